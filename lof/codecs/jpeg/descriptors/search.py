"""The search of coefficients and descriptors together, for the lowest cost of what ``lof decode`` shows.

Coefficients are those of the search of ``jpeg``, whose gradient goes through the filter. Descriptors begin with what
each class would bring everywhere; then single ones are tried on places so far from each other that they hardly meet.
Every step's file is counted, and the JPEG is searched without the filter too, for graphics that the filter ruins. What
other programs show stays in view: an encoding whose plain JPEG costs more than the plain encoding's is not taken.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from lof.codecs.base import Latents
from lof.codecs.descriptors.choice import chosen_for
from lof.codecs.descriptors.classes import CLASSES, NAME, OFF, SIDE
from lof.codecs.descriptors.context import Context
from lof.codecs.jpeg.codec import JpegCodec
from lof.codecs.jpeg.descriptors.filter import Seen
from lof.codecs.jpeg.descriptors.network import level_of
from lof.codecs.jpeg.descriptors.pictures import picture_of
from lof.codecs.jpeg.search import refine

_PER_PASS: Final = 4
"""Gradient evaluations for which one pass over all places stands."""
_AGAIN: Final = 4
"""With so many gradient evaluations, coefficients are searched a second time, with the descriptors that were found."""


def refine_both(search: Any, evaluations: int) -> None:
    """See the module.

    Args:
        search: as for :meth:`lof.codecs.Codec.refine`.
        evaluations: gradient evaluations that may be spent.
    """
    guarded, unfiltered = _Guarded(search), _Unfiltered(search)
    for _ in range(2 if evaluations >= _AGAIN else 1):
        refine(guarded, evaluations)
        before = search.best_cost
        refine(unfiltered, 0)
        if bool((search.best_cost < before).any()):  # graphics, which the filter ruins
            refine(unfiltered, evaluations)
        steer(guarded, evaluations // _PER_PASS)


class _Guarded:
    """A search for which an encoding costs all, if its plain JPEG costs more than the plain encoding's."""

    def __init__(self, search: Any) -> None:
        self._search, self.codec = search, search.codec
        objective = search.objective
        plain = search.codec.analyse(search.codec.pad(objective.target))
        self._limit = self._shown(plain).minimum(self._shown(search.latents))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._search, name)

    @property
    def evaluations(self) -> int:
        """Gradient evaluations spent."""
        return int(self._search.evaluations)

    @evaluations.setter
    def evaluations(self, count: int) -> None:
        self._search.evaluations = count

    def hard(self, latents: Latents) -> Any:
        """As :meth:`lof.search.state.Search.hard`."""
        found = self._search.hard(latents)
        return replace(found, cost=found.cost.masked_fill(self._shown(latents) > self._limit, torch.inf))

    def offer(self, latents: Latents, found: Any) -> Tensor:
        """As :meth:`lof.search.state.Search.offer`; where the filter makes it worse, without the filter too."""
        better: Tensor = self._search.offer(latents, found)
        if bool((self._shown(latents) < found.cost.minimum(self._limit)).any()):
            off = latents | {NAME: torch.full_like(latents[NAME], OFF)}
            better = better | self._search.offer(off, self.hard(off))
        return better

    def _shown(self, latents: Latents) -> Tensor:
        """The cost of the plain JPEG, (B,)."""
        codec, objective = self.codec, self._search.objective
        with torch.no_grad():
            coded = JpegCodec.code(codec, latents, codec.rounded)
            symbols = {name: one.residual for name, one in coded.items()}
            shown = JpegCodec.synthesise(codec, {name: one.value for name, one in coded.items()}, exact=True)
            distortion = objective.distortion(codec.crop(shown, objective.height, objective.width))
            lengths = [
                len(
                    JpegCodec.compress(
                        codec, {name: tensor[index : index + 1] for name, tensor in symbols.items()}
                    )[0]
                )
                for index in range(objective.batch)
            ]
        bits = 8 * torch.tensor(lengths, dtype=torch.float32, device=distortion.device)
        cost: Tensor = bits / objective.pixels + objective.lmbda * distortion
        return cost


class _Unfiltered(_Guarded):
    """A search of what the JPEG shows without the filter."""

    def __init__(self, search: Any) -> None:
        super().__init__(search)
        self.codec = copy.copy(self.codec)
        self.codec.repaired, self.codec.coarser = JpegCodec.repaired, JpegCodec.coarser

    @property
    def best(self) -> Latents:
        """What the coefficients of the next encodings go with."""
        best: Latents = self._search.best
        return best | {NAME: torch.full_like(best[NAME], OFF)}


@dataclass(frozen=True)
class _Picture:
    """One picture of a search, as far as descriptors change it.

    Attributes:
        coefficients, seen, tables: as :class:`Filter` has them.
        target: (1, 3, H, W) padded.
        weights: (1, 1, H, W), bits for a squared error of one sample.
    """

    codec: Any
    coefficients: Tensor
    seen: Seen
    tables: Tensor
    target: Tensor
    weights: Tensor

    def errors(self, chosen: Tensor) -> Tensor:
        """What the errors of each place cost in bits, (1, h, w), with descriptors (1, h, w)."""
        hot = F.one_hot(chosen, CLASSES).float()
        added = self.codec.fast.filter.head(self.seen, self.tables, hot)
        wrong = (
            (picture_of(self.coefficients + added).clamp(0, 1) - self.target).square().sum(1, keepdim=True)
        )
        return SIDE**2 * F.avg_pool2d(self._even(wrong * self.weights), SIDE)[:, 0]

    def prices(self, chosen: Tensor) -> Tensor:
        """What each class would cost at each place, as the places before it stand, (1, 16, h, w)."""
        context: Context = self.codec.fast.context
        return context.prices(F.one_hot(chosen, CLASSES).float(), level_of(self.tables))

    @staticmethod
    def _even(plane: Tensor) -> Tensor:
        return F.pad(plane, (0, -plane.shape[3] % SIDE, 0, -plane.shape[2] % SIDE))


def steer(search: Any, passes: int) -> None:
    """Better descriptors for the best coefficients so far."""
    with torch.no_grad():
        found = [
            chosen_for(_picture(search, index), search.best[NAME][index].long(), passes)
            for index in range(search.objective.batch)
        ]
    latents = search.best | {NAME: torch.stack(found).to(search.best[NAME])}
    search.offer(latents, search.hard(latents))
    search.report()


def _picture(search: Any, index: int) -> _Picture:
    codec, objective = search.codec, search.objective
    values = {name: torch.round(one[index : index + 1]) for name, one in search.best.items()}
    coefficients, (tables, divisors) = codec.coefficients(values), codec.told(values)
    seen = codec.fast.filter.trunk(coefficients, tables, divisors)
    target = codec.pad(objective.target[index : index + 1])
    decoded = picture_of(coefficients + codec.fast.filter.head(seen, tables))
    decoded = codec.crop(decoded, objective.height, objective.width)
    curvature = objective.error_curvature(decoded.expand(objective.batch, -1, -1, -1))[index : index + 1]
    cost = 0.5 * objective.pixels * curvature.expand(-1, -1, objective.height, objective.width)
    weights = F.pad(cost, (0, target.shape[3] - objective.width, 0, target.shape[2] - objective.height))
    return _Picture(codec, coefficients, seen, tables, target, weights)
