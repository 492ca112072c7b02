"""One size for many pictures: shares such that no byte would be better spent on another of them.

That is so where all have the same λ. Their plain encodings say how large each is at a λ; searches then make better
files of these sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from lof.measure import TrueCost
from lof.pictures.picture import Picture
from lof.results import Target
from lof.search import windows_for
from lof.targets.ladder import Aim, Ladder, Plains

Key = TypeVar("Key", bound=Hashable)
Sizes = Sequence[tuple[float, int]]
"""λ and bytes of plain encodings of one picture, by rising λ."""
MOST = 8
"""Plain encodings of a picture; between them, log bytes is a straight line in log λ."""


def plain_sizes(
    picture: Picture, ladder: Ladder, *, format: str, metric: str, portable: bool, memory: int | None = None
) -> Sizes:
    """What plain encodings of a picture take, at qualities spread over all that a ladder has.

    Args:
        format: name of the container.
        memory: bytes that this process may take.
    """
    cost = TrueCost(picture.pixels, ladder.lmbdas[ladder.start], metric)
    height, width = picture.pixels.shape[:2]
    codec = ladder.load(ladder.start).for_size(height, width)
    plains = Plains(
        ladder,
        Aim(Target(size=1), picture.pixels),
        picture,
        format,
        cost,
        portable=portable,
        windows=[] if memory is None else windows_for(codec, height, width, memory),
    )
    count = len(plains.order)
    places = sorted({round(place) for place in np.linspace(0, count - 1, min(MOST, count))})
    found = []
    for place in places:
        found.append((ladder.lmbdas[plains.order[place]], len(plains[place].data)))
    return found


def shares(sizes: Mapping[Key, Sizes], total: int) -> dict[Key, int]:
    """The most bytes for each picture, all together ``total`` or a few less, 1 and more for each.

    A total that no λ of the plain encodings gives is shared in proportion to the sizes at the nearest λ.
    """
    curves = {
        key: (np.log([lmbda for lmbda, _ in points]), np.log(np.maximum.accumulate([n for _, n in points])))
        for key, points in sizes.items()
    }

    def at(log: float) -> dict[Key, float]:
        return {key: float(np.exp(np.interp(log, *curve))) for key, curve in curves.items()}

    low = min((float(logs[0]) for logs, _ in curves.values()), default=0.0)
    high = max((float(logs[-1]) for logs, _ in curves.values()), default=0.0)
    log = _root(lambda log: sum(at(log).values()) - total, low, high)
    found = at(log)
    scale = total / max(sum(found.values()), 1)
    return {key: max(1, int(size * scale)) for key, size in found.items()}


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2
