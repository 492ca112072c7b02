"""The probability model: lapped's, with mixtures, their refinement, and what is recalled of the window.

Everything that decides a symbol is a whole number, as in :mod:`lof.codecs.lapped.fixed`.
"""

from __future__ import annotations

from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lof.codecs.entropy.mixture import WEIGHT_MAX, WEIGHT_UNIT, centre_and_form
from lof.codecs.lapped.fixed import UNIT, FixedLinear, FixedModule, on_grid
from lof.codecs.lapped.jointiq.config import JointConfig
from lof.codecs.lapped.jointiq.context import Recall
from lof.codecs.lapped.prior import (
    MEAN_BITS,
    MEAN_LIMIT,
    MEAN_UNIT,
    OCTAVE,
    PLACE_OF_ONE,
    PLACES,
    PLACES_PER_OCTAVE,
    WAVE,
    Prior,
    Slice,
    Take,
    bounded,
    power,
    waves,
)

FINE: Final = 2**MEAN_BITS
"""What layers say of a component is added up in units of 1/4 of an activation's."""
NARROW: Final = 10
"""Up to this place in the table of scales an element has the first component alone: mixtures gain nothing there, and
most elements are such."""
_REACH: Final = 2
"""Places that the local context sees in each direction."""
_FIRST, _OTHERS, _APART = 4.0, 1.0, 0.75
"""Weights that untrained components begin with, and by how many octaves their widths differ."""


class JointPrior(Prior):
    """Predicts y from z, slice by slice."""

    def slice(self, number: int) -> Slice:
        """See :meth:`Prior.slice`."""
        config = cast(JointConfig, self.config)
        return (SerialSlice if config.in_waves else JointSlice)(config, number)


class JointSlice(Slice):
    """Predicts one slice: of each component of the mixtures mean, width and weight."""

    def __init__(self, config: JointConfig, number: int) -> None:
        channels, width = config.slices[number], config.width
        super().__init__(width, channels)
        self.components = config.components_of(number)
        if self.components > 1:
            outputs = (3 * self.components - 2) * channels
            self.first_more = _more(width, outputs, channels)
            self.second_more = _more(width, outputs, channels)
        refined = bool(config.refinement) and self.components > 1
        hidden = config.refinement[0] if refined else 0
        steps = self.components if refined else 0
        self.refinement = nn.ModuleList(_Refinement(width, channels, hidden) for _ in range(steps))
        self.recalled = Recall(width, *config.context) if config.context else None

    def recall(self, h: Tensor, known: Tensor) -> Tensor | None:
        """See :meth:`Slice.recall`."""
        return None if self.recalled is None else cast(Tensor, self.recalled(h, known))

    def predict(self, state: Tensor, scale: Tensor, *, second: bool) -> tuple[Tensor, Tensor]:
        """Means and places, or centres and forms of mixtures, (B, places, 3·J·channels)."""
        if self.components == 1:
            return super().predict(state, scale, second=second)
        first = self.fine((self.second if second else self.first)(state))
        more = self.fine((self.second_more if second else self.first_more)(state))
        base, weight = first.chunk(2, -1), more[..., : first.shape[-1] // 2]
        told = [torch.cat([*base, weight], -1)]
        for other in more[..., weight.shape[-1] :].chunk(self.components - 1, -1):
            mean, octaves, its = other.chunk(3, -1)
            told.append(torch.cat([base[0] + mean, base[1] + octaves, its], -1))
        if self.refinement:
            told = [
                one + self.fine(module(state, one)) for module, one in zip(self.refinement, told, strict=True)
            ]
        parts = zip(*(one.chunk(3, -1) for one in told), strict=True)
        mean, octaves, weight = (torch.cat(part, -1) for part in parts)
        settled = self._settled(mean, octaves, weight, self._repeated(scale))
        return centre_and_form(*settled, self.components, dim=-1)

    def fine(self, x: Tensor) -> Tensor:
        """What a layer says, rounded so that sums of it are exact."""
        return (x * FINE).round_().clamp_(-MEAN_LIMIT, MEAN_LIMIT) / FINE if self.exact else x

    def _settled(
        self, mean: Tensor, octaves: Tensor, weight: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Means, multiples of 1/64, places in the table of scales, and weights."""
        places = scale * (PLACES_PER_OCTAVE / OCTAVE) + PLACE_OF_ONE
        octaves = self.settle(octaves)
        if self.exact:
            mean = (mean * FINE).clamp_(-MEAN_LIMIT, MEAN_LIMIT)
            mean = (mean * (power(scale) * (MEAN_UNIT / UNIT / FINE))).round_() / MEAN_UNIT
            place = (octaves * (PLACES_PER_OCTAVE / UNIT) + places).round_().clamp_(0, PLACES - 1)
            weight = (weight * (WEIGHT_UNIT / UNIT)).round_().clamp_(1, WEIGHT_MAX)
        else:
            limit = MEAN_LIMIT / UNIT / FINE
            mean = F.hardtanh(mean, -limit, limit) * power(scale)
            place = bounded(octaves * PLACES_PER_OCTAVE + places, 0, PLACES - 1)
            weight = bounded(weight * WEIGHT_UNIT, 1, WEIGHT_MAX)
        channels = scale.shape[-1] // self.components
        wide = place[..., :channels] > NARROW + 0.5
        alone = torch.arange(self.components, device=wide.device).repeat_interleave(channels) == 0
        chosen = self._repeated(wide) | alone
        return (
            torch.where(chosen, mean, self._repeated(mean[..., :channels])),
            torch.where(chosen, place, self._repeated(place[..., :channels])),
            torch.where(chosen, weight, 0),
        )

    def _repeated(self, x: Tensor) -> Tensor:
        """The same for every component."""
        return x.repeat(*[1] * (x.dim() - 1), self.components)


class SerialSlice(JointSlice):
    """Predicts one slice wave by wave: each place sees the twelve before it in a 5×5 window, and what is recalled."""

    def __init__(self, config: JointConfig, number: int) -> None:
        super().__init__(config, number)
        del self.first
        if self.components > 1:
            del self.first_more

    def forward(self, h: Tensor, scale: Tensor, part: int, take: Take) -> Tensor:
        """See :meth:`Slice.forward`."""
        h = self.block(h)
        _, height, width, _ = h.shape
        order, _, back = waves(height, width, h.device)
        number = (order % width + WAVE * (order // width)).tolist()
        weight, bias = self.spread.weight, cast(Tensor, self.spread.bias)
        if self.training:
            weight, bias = on_grid(weight, bias)
        weight = weight.squeeze(1).permute(1, 2, 0)
        flat, steps = h.flatten(1, 2), torch.arange(2 * _REACH + 1, device=h.device)
        images = torch.arange(len(h), device=h.device)[:, None]
        near = F.pad(torch.zeros_like(h), (0, 0, _REACH, _REACH, _REACH, _REACH))
        memory = None if self.recalled is None else self.recalled.memory(h)
        found: list[Tensor] = []
        for wave in sorted(set(number)):
            start = number.index(wave)
            places = order[start : start + number.count(wave)]
            rows, columns = places // width, places % width
            inside = near[:, rows[:, None, None] + steps[:, None], columns[:, None, None] + steps]
            state = self.add(flat[:, places], (inside * weight).sum((2, 3)) + bias)
            if memory is not None:
                state = self.add(state, memory.recall(places))
            mean, place = self.predict(self.block2(state), scale, second=True)
            found.append(self.seen(take(part, mean, place, slice(wave, wave + 1)), scale))
            new = self.settle(self.enter(found[-1]))
            near = near.index_put((images, rows + _REACH, columns + _REACH), new)
            if memory is not None:
                memory.add(places, new)
        take(part + 1, mean[:, :0], place[:, :0], slice(0, 0))
        seen = torch.cat(found, 1).index_select(1, back).unflatten(1, (height, width))
        return self.add(h, self.join(seen))


class _Refinement(FixedModule):
    """What to add to mean, width and weight of one component, from the state and from these three."""

    def __init__(self, width: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.a, self.b = FixedLinear(width + 3 * channels, 2 * hidden), FixedLinear(hidden, 3 * channels)
        with torch.no_grad():
            self.b.weight.zero_()
            self.b.bias.zero_()

    def forward(self, state: Tensor, told: Tensor) -> Tensor:
        seen = self.settle(told.clone())
        return cast(Tensor, self.b(self.gate(self.settle(self.a(torch.cat([state, seen], -1))))))


def _more(width: int, outputs: int, channels: int) -> FixedLinear:
    """The weight of the first component; of each other one mean and width, less the first's, and weight."""
    layer = FixedLinear(width, outputs)
    with torch.no_grad():
        layer.weight.mul_(0.1)
        layer.bias.fill_(_FIRST)
        for index, (mean, octaves, weight) in enumerate(layer.bias[channels:].view(-1, 3, channels)):
            mean.zero_()
            octaves.fill_(_APART if index % 2 == 0 else -_APART)
            weight.fill_(_OTHERS)
    return layer
