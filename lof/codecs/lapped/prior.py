"""The probability model: a hyperprior, then slices of channels of y, each in two passes over a checkerboard.

Everything that decides a symbol is a whole number (:mod:`lof.codecs.lapped.fixed`). All tensors are channels-last;
latents are in steps of the quantiser.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lof.codecs.lapped.config import LappedConfig
from lof.codecs.lapped.fixed import LIMIT, UNIT, FixedBlock, FixedDepthwise, FixedLinear, FixedModule
from lof.codecs.lapped.transforms import shuffle

MEAN_UNIT = 64
"""Means, and so all values of y, are multiples of 1/64."""
VALUE_LIMIT = 2**15 - 1
"""What predictions see of a value, in units of 1/64."""
MEAN_BITS, MEAN_LIMIT = 2, 2**14 - 1
"""Means are predicted, in standard deviations of their channel, as multiples of 1/1024."""
OCTAVE = 32
"""Standard deviations of channels are powers of 2^(1/32)."""
PLACES_PER_OCTAVE, PLACES, PLACE_OF_ONE = 8, 80, 26
"""The table of scales: place p stands for σ = 2^((p - 26) / 8)."""
SIDE_UNIT = 8
"""z informs predictions in units of 8, clamped at 64."""
FORMULA_BITS = 8
_PLACES_AT_ONCE = 2**15
"""Exact walks of larger images go by strips of about so many places: what comes out is the same, in less memory."""

OCTAVES = 16
POWERS = torch.tensor(
    [
        math.ldexp(round(UNIT * 2 ** (i % OCTAVE / OCTAVE)), i // OCTAVE) / UNIT
        for i in range(-OCTAVES * OCTAVE, OCTAVES * OCTAVE + 1)
    ]
)


class Take(Protocol):
    """What is done with a prediction: draw symbols, write them, price them."""

    def __call__(self, part: int, mean: Tensor | None, place: Tensor, rows: slice) -> Tensor:
        """Values of a part's elements, or of those in some rows of y.

        Args:
            part: 0 for z, then one for each slice's first and second pass.
            mean: (B, places, channels), multiples of 1/64; none for z, whose values are whole.
            place: in the table of scales, of the mean's shape; (B, h, w, channels) for z.
            rows: of y; exact walks take a part strip by strip, others take it whole. Codecs in waves take one of them
                after the other; this is its number.
        """
        ...


class Prior(FixedModule):
    """Predicts y from z, slice by slice."""

    spread: Tensor
    side: Tensor

    def __init__(self, config: LappedConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        # Whole numbers a, b of each channel: (256·a + b·rate) / 2^8 tells log2 of its standard deviation in
        # 1/32, and for z the place in the table in 1/256.
        self.register_buffer("spread", torch.zeros(2, config.latent_channels, dtype=torch.int32))
        self.register_buffer("side", torch.zeros(2, config.side_channels, dtype=torch.int32))
        self.enter = FixedLinear(config.side_channels + 1, width)
        self.block64, self.up32 = FixedBlock(width, 3), FixedLinear(width, 4 * width)
        self.block32, self.up16 = FixedBlock(width, 3), FixedLinear(width, 4 * width)
        self.slices = nn.ModuleList(self.slice(number) for number in range(len(config.slices)))

    def slice(self, number: int) -> Slice:
        """What predicts one of the slices, untrained."""
        return Slice(self.config.width, self.config.slices[number])

    def scales(self, rate: Tensor) -> Tensor:
        """log2 of the channels' standard deviations in 1/32, (B, 1, M), whole; rate: (B,), whole."""
        return _formula(self.spread, rate)[:, None]

    def walk(self, rate: Tensor, size: tuple[int, int], take: Take, z_scale: Tensor | None = None) -> None:
        """Visit all parts in coding order, each with the prediction from everything taken before it.

        Args:
            rate: (B,) whole numbers.
            size: rows and columns of y.
            z_scale: places of z's elements in the table, while they are trained.
        """
        unit = UNIT if self.exact else 1
        scale = self.scales(rate)
        if z_scale is None:
            z_scale = side_places(self.side, rate)
        rows, columns = -(-size[0] // 4), -(-size[1] // 4)
        z = take(0, None, z_scale.expand(-1, rows, columns, -1), slice(0, size[0]))
        seen = self.clip(z * (unit / SIDE_UNIT), unit)
        level = (rate.float() * (unit / UNIT))[:, None, None, None].expand(len(seen), rows, columns, 1)
        h = self.settle(self.enter(torch.cat([seen, level], -1)))
        h = shuffle(self.settle(self.up32(self.block64(h))), 2)
        h = shuffle(self.settle(self.up16(self.block32(h))), 2)[:, : size[0], : size[1]].contiguous()
        at = 0
        for number, module in enumerate(self.slices):
            channels = self.config.slices[number]
            h = cast(Slice, module)(h, scale[..., at : at + channels], 2 * number + 1, take)
            at += channels

    @staticmethod
    def clip(x: Tensor, unit: int) -> Tensor:
        """Values as predictions see them."""
        return x.clamp(-LIMIT * unit / UNIT, LIMIT * unit / UNIT)


class Slice(FixedModule):
    """Predicts one slice of y in two passes."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.block, self.first = FixedBlock(width, 3), FixedLinear(width, 2 * channels)
        self.enter, self.spread = FixedLinear(channels, width), FixedDepthwise(width, 5)
        self.block2, self.second = FixedBlock(width), FixedLinear(width, 2 * channels)
        self.join = FixedLinear(channels, width)
        with torch.no_grad():
            for head in (self.first, self.second):
                head.weight.mul_(0.1)
                head.bias.zero_()

    def forward(self, h: Tensor, scale: Tensor, part: int, take: Take) -> Tensor:
        """The state with this slice known."""
        strips = _strips(h) if self.exact else [(0, h.shape[1])]
        h = joined([rows_of(self.block, h, *strip, 1) for strip in strips])
        first: list[Tensor] = []
        near: list[Tensor] = []
        for top, end in strips:
            anchors, others, back = checkerboard(end - top, h.shape[2], h.device)
            flat = h[:, top:end].flatten(1, 2)
            mean, place = self.predict(flat.index_select(1, anchors), scale, second=False)
            first.append(self.seen(take(part, mean, place, slice(top, end)), scale))
            new = self.settle(self.enter(first[-1]))
            new = torch.cat([new, new.new_zeros(new.shape[0], len(others), new.shape[2])], 1)
            near.append(new.index_select(1, back).unflatten(1, (end - top, h.shape[2])))
        known, out = joined(near), []
        near.clear()
        recalled = self.recall(h, known)
        for (top, end), seen in zip(strips, first, strict=True):
            _, others, back = checkerboard(end - top, h.shape[2], h.device)
            flat = h[:, top:end].flatten(1, 2)
            spread = rows_of(self.spread, known, top, end, 2).flatten(1, 2)
            flat2 = self.add(flat.index_select(1, others), spread.index_select(1, others))
            if recalled is not None:
                more = recalled[:, top:end].flatten(1, 2).index_select(1, others)
                flat2 = self.add(flat2, more)
            mean, place = self.predict(self.block2(flat2), scale, second=True)
            second = self.seen(take(part + 1, mean, place, slice(top, end)), scale)
            new = self.join(torch.cat([seen, second], 1).index_select(1, back))
            out.append(self.add(h[:, top:end], new.unflatten(1, (end - top, h.shape[2]))))
        return joined(out)

    def recall(self, h: Tensor, known: Tensor) -> Tensor | None:
        """What the second pass is told beyond its neighbours, of the state's shape; nothing here.

        Args:
            h: the state, (B, rows, columns, width).
            known: what the first pass brought, 0 at the places of the second.
        """
        return None

    def predict(self, state: Tensor, scale: Tensor, *, second: bool) -> tuple[Tensor, Tensor]:
        """Means and places in the table of scales, for a pass."""
        mean, octaves = (self.second if second else self.first)(state).chunk(2, -1)
        places = scale * (PLACES_PER_OCTAVE / OCTAVE) + PLACE_OF_ONE
        if self.exact:
            mean = (mean * 2**MEAN_BITS).round_().clamp_(-MEAN_LIMIT, MEAN_LIMIT)
            mean = (mean * (power(scale) * (MEAN_UNIT / UNIT / 2**MEAN_BITS))).round_() / MEAN_UNIT
            octaves = self.settle(octaves.clone())
            return mean, (octaves * (PLACES_PER_OCTAVE / UNIT) + places).round_().clamp_(0, PLACES - 1)
        mean = F.hardtanh(mean, -MEAN_LIMIT / UNIT / 2**MEAN_BITS, MEAN_LIMIT / UNIT / 2**MEAN_BITS) * power(
            scale
        )
        octaves = self.settle(octaves)
        return mean, bounded(octaves * PLACES_PER_OCTAVE + places, 0, PLACES - 1)

    def seen(self, values: Tensor, scale: Tensor) -> Tensor:
        """Values in standard deviations of their channel, on the grid of activations."""
        limit = VALUE_LIMIT / MEAN_UNIT
        inside = values.clamp(-limit, limit) * power(-scale)
        return self.settle(inside * UNIT if self.exact else inside)


def _strips(h: Tensor) -> list[tuple[int, int]]:
    """Rows of a large state, an even number at a time, so that each strip's checkerboard is that of the whole."""
    height = max(2, _PLACES_AT_ONCE // h.shape[2] // 2 * 2)
    return [(top, min(top + height, h.shape[1])) for top in range(0, h.shape[1], height)]


def rows_of(layer: Callable[[Tensor], Tensor], x: Tensor, top: int, end: int, reach: int) -> Tensor:
    """Rows ``top`` to ``end`` of ``layer(x)``, each of which depends on ``reach`` rows on both sides."""
    above, below = min(top, reach), min(x.shape[1] - end, reach)
    if end - top == x.shape[1]:
        return layer(x)
    return layer(x[:, top - above : end + below])[:, above : above + end - top]


def joined(strips: list[Tensor]) -> Tensor:
    """Pieces one after another, along the second dimension."""
    return strips[0] if len(strips) == 1 else torch.cat(strips, 1)


def power(scale: Tensor) -> Tensor:
    """2^(scale / 32), rounded to 9 binary digits; scale: whole, up to 16 octaves."""
    return POWERS.to(scale.device)[scale.long() + OCTAVES * OCTAVE]


def side_places(side: Tensor, rate: Tensor) -> Tensor:
    """Places of z's channels in the table of scales, (B, 1, 1, channels), whole."""
    return torch.round(_formula(side, rate) / UNIT).clamp(0, PLACES - 1)[:, None, None]


def _formula(numbers: Tensor, rate: Tensor) -> Tensor:
    a, b = numbers.long()
    whole: Tensor = (a * UNIT + b * rate.long()[:, None] + UNIT // 2) >> FORMULA_BITS
    return whole.float()


def bounded(x: Tensor, low: float, high: float) -> Tensor:
    """Clamped; outside only a gradient that leads back inside passes."""
    return cast(Tensor, _Bounded.apply(x, low, high))


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x < low, x > high)
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        below, above = ctx.saved_tensors
        grad = grads[0]
        return grad.masked_fill((below & (grad > 0)) | (above & (grad < 0)), 0), None, None


WAVE = 3
"""By how many places a row of a wave lies left of the row above."""


@lru_cache(maxsize=16)
def waves(rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Places in coding order, none for a second pass, and where each place is in that order.

    A wave has the places whose column + 3·row is the same: none of them is in the 5×5 window of another.
    """
    down, right = torch.arange(rows, device=device), torch.arange(columns, device=device)
    number = (right + WAVE * down[:, None]).flatten()
    order = number.argsort(stable=True)
    return order, order[:0], order.argsort()


@lru_cache(maxsize=16)
def checkerboard(rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Places, row by row, of the first pass, of the second, and where each is in the two together."""
    odd = (torch.arange(rows, device=device)[:, None] + torch.arange(columns, device=device)) % 2
    order, even = odd.flatten().argsort(stable=True), (rows * columns + 1) // 2
    return order[:even], order[even:], order.argsort()
