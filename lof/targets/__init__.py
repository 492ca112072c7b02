"""Files of a size or a quality that is asked for. Knows codecs only through their contract."""

from lof.targets.ladder import Ladder
from lof.targets.reach import reach_target
from lof.targets.total import plain_sizes, shares

__all__ = ["Ladder", "plain_sizes", "reach_target", "shares"]
