"""Files of a size or a quality that is asked for. Knows codecs only through their contract."""

from lof.targets.ladder import Ladder
from lof.targets.reach import reach_target

__all__ = ["Ladder", "reach_target"]
