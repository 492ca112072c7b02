"""The search for the best map of descriptors of one picture, whatever filter they steer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, Self

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


def chosen_for(picture: Steered, chosen: Tensor, passes: int, moves: Tensor | None = None) -> Tensor:
    """Descriptors (1, h, w) that cost about the least.

    All places are chosen anew as their neighbours stand, each class as if it were everywhere; then single places are
    tried, so far from each other that they hardly meet.

    Args:
        chosen: what to begin with, (1, h, w) int64.
        passes: over all places, at most.
        moves: (1, h, w) bool, the places where another class may be chosen; all if ``None``.
    """
    may_move = torch.ones_like(chosen, dtype=torch.bool) if moves is None else moves

    def elsewhere_as_it_was(tried: Tensor) -> Tensor:
        return torch.where(may_move, tried, chosen)

    classes = [torch.full_like(chosen, number) for number in range(CLASSES)]
    each = torch.stack([picture.errors(elsewhere_as_it_was(one)) for one in classes], 1)
    best, settled = _Map.of(picture, chosen), chosen
    for _ in range(_SETTLED):
        settled = elsewhere_as_it_was((each + picture.prices(settled)).argmin(1))
    for tried in (settled, *(elsewhere_as_it_was(classes[number]) for number in SHORT)):
        best = min(best, _Map.of(picture, tried), key=lambda one: one.cost)
    for _ in range(passes):
        before = best.cost
        promising = (each + picture.prices(best.chosen)).topk(1 + _TRIED, 1, largest=False).indices
        for rank in range(1 + _TRIED):
            for down in range(_APART):
                for right in range(_APART):
                    places = torch.zeros_like(may_move)
                    places[:, down::_APART, right::_APART] = may_move[:, down::_APART, right::_APART]
                    best = _moved(picture, best, promising[:, rank], places)
        if best.cost > before - 1:
            break
    return best.chosen


@dataclass(frozen=True)
class _Map:
    """Descriptors, (1, h, w), with what errors and they themselves cost at each place, and in all, in bits."""

    chosen: Tensor
    costs: Tensor
    cost: float

    @classmethod
    def of(cls, picture: Steered, chosen: Tensor) -> Self:
        errors, bits = picture.errors(chosen), picture.prices(chosen).gather(1, chosen[:, None])[:, 0]
        alike = (8 * len(string) for number, string in SHORT.items() if bool((chosen == number).all()))
        return cls(chosen, errors + bits, float(errors.sum()) + next(alike, float(bits.sum())))


def _moved(picture: Steered, best: _Map, wanted: Tensor, places: Tensor) -> _Map:
    """With other descriptors at those of some places, far from each other, where that pays; if all together it does."""
    change = _Map.of(picture, torch.where(places, wanted, best.chosen)).costs - best.costs
    around = _APART**2 * F.avg_pool2d(F.pad(change[None], (1, 1, 1, 1)), _APART, 1)[0]
    tried = _Map.of(picture, torch.where(places & (around < 0), wanted, best.chosen))
    return min(best, tried, key=lambda one: one.cost)
