"""The search for the best map of descriptors of one picture, whatever filter they steer."""

from __future__ import annotations

from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lof.codecs.descriptors.classes import CLASSES, SHORT

_APART: Final = 3
"""Descriptors that change together are so many places from each other, in rows and in columns."""
_SETTLED: Final = 3
"""How often all descriptors are chosen anew, each as its neighbours stand, before single ones are tried."""
_TRIED: Final = 2
"""Classes that are tried at a place in a pass, the most promising ones."""


class Steered(Protocol):
    """One picture, as far as descriptors change it."""

    def errors(self, chosen: Tensor) -> Tensor:
        """What the errors of each place cost in bits, (1, h, w), with descriptors (1, h, w)."""
        ...

    def prices(self, chosen: Tensor) -> Tensor:
        """What each class would cost at each place, as the places before it stand, in bits, (1, 16, h, w)."""
        ...


def chosen_for(picture: Steered, chosen: Tensor, passes: int) -> Tensor:
    """Descriptors (1, h, w) that cost about the least.

    All places are chosen anew as their neighbours stand, each class as if it were everywhere; then single places are
    tried, so far from each other that they hardly meet.

    Args:
        chosen: what to begin with, (1, h, w) int64.
        passes: over all places, at most.
    """
    each = torch.stack([picture.errors(torch.full_like(chosen, number)) for number in range(CLASSES)], 1)
    best, cost = chosen, _cost(picture, chosen)
    for _ in range(_SETTLED):
        chosen = (each + picture.prices(chosen)).argmin(1)
    if (found := _cost(picture, chosen)) < cost:
        best, cost = chosen, found
    for number in SHORT:
        alike = torch.full_like(chosen, number)
        if (found := _cost(picture, alike)) < cost:
            best, cost = alike, found
    for _ in range(passes):
        before = cost
        promising = (each + picture.prices(best)).topk(1 + _TRIED, 1, largest=False).indices
        for rank in range(1 + _TRIED):
            for down in range(_APART):
                for right in range(_APART):
                    best, cost = _moved(picture, best, cost, promising[:, rank], (down, right))
        if cost > before - 1:
            break
    return best


def _moved(
    picture: Steered, best: Tensor, cost: float, wanted: Tensor, first: tuple[int, int]
) -> tuple[Tensor, float]:
    """Those of the places ``first``, and every third from there, changed where that pays; if all together it does."""
    places = torch.zeros_like(best, dtype=torch.bool)
    places[:, first[0] :: _APART, first[1] :: _APART] = True
    tried = torch.where(places, wanted, best)
    change = picture.errors(tried) + _bits(picture, tried) - picture.errors(best) - _bits(picture, best)
    around = _APART**2 * F.avg_pool2d(F.pad(change[None], (1, 1, 1, 1)), _APART, 1)[0]
    tried = torch.where(places & (around < 0), wanted, best)
    found = _cost(picture, tried)
    return (tried, found) if found < cost else (best, cost)


def _cost(picture: Steered, chosen: Tensor) -> float:
    short = next(
        (8 * len(string) for number, string in SHORT.items() if bool((chosen == number).all())), None
    )
    bits = float(_bits(picture, chosen).sum()) if short is None else short
    return float(picture.errors(chosen).sum()) + bits


def _bits(picture: Steered, chosen: Tensor) -> Tensor:
    """What each descriptor costs, (1, h, w)."""
    return picture.prices(chosen).gather(1, chosen[:, None])[:, 0]
