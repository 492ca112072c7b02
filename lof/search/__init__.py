"""Per-image search for better latents; knows codecs only through their contract."""

from lof.codecs import symbols_of
from lof.search.engine import Found, StopSearch, refuse_other_latents, search
from lof.search.gradients import with_gradients
from lof.search.objective import Objective
from lof.search.relaxations import RELAXATIONS
from lof.search.state import Progress, Sensitivity
from lof.search.trades import Trades, trades
from lof.search.windows import Window, analyse_in_windows, begin, search_in_windows, windows_for

__all__ = [
    "RELAXATIONS",
    "Found",
    "Objective",
    "Progress",
    "Sensitivity",
    "StopSearch",
    "Trades",
    "Window",
    "analyse_in_windows",
    "begin",
    "refuse_other_latents",
    "search",
    "search_in_windows",
    "symbols_of",
    "trades",
    "windows_for",
    "with_gradients",
]
