"""Per-image search for better latents; knows codecs only through their contract."""

from lof.search.engine import Found, StopSearch, search
from lof.search.objective import Objective, symbols_of
from lof.search.relaxations import RELAXATIONS
from lof.search.state import Progress
from lof.search.trades import Trades, trades

__all__ = [
    "RELAXATIONS",
    "Found",
    "Objective",
    "Progress",
    "StopSearch",
    "Trades",
    "search",
    "symbols_of",
    "trades",
]
