"""The filter that ships: gated blocks at 1/8 of the resolution, on coefficients.

All tensors are (B, h, w, C), one place for a block of 8×8 pixels.
"""

from __future__ import annotations

from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lof.codecs.jpeg.descriptors.config import CELL, FREQUENCIES, Config
from lof.codecs.jpeg.descriptors.filter import Filter

_GREY: Final = 24.0
"""Grey levels that count as 1 where coefficients enter."""
_LEVELS: Final = 3.0
"""Larger levels of luma look like this one; the coefficients tell them apart."""
_ERROR: Final = 0.3
"""Of a step, about the error of a coefficient: the unit of what the last layer says."""
_HIDDEN: Final = 64
_OPEN: Final = 4.0
"""Gates open no further: else features of pictures unlike any photograph grow with each block, beyond all bounds."""


class Block(nn.Module):
    """``x + b(p·gate(q))``, p and q linear in a depthwise 3×3 of x times ``factor``; gates are from 0 to 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels + channels // 4
        self.dw = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.a, self.b = nn.Linear(channels, 2 * inner), nn.Linear(inner, channels)
        with torch.no_grad():
            self.b.weight.mul_(0.1)
            self.b.bias.zero_()

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:
        """(B, h, w, C) to the same shape; ``factor`` as that, or one for a whole image."""
        near = self.dw((x * factor).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        p, q = self.a(near).chunk(2, -1)
        return x + cast(Tensor, self.b(p * F.hardtanh(q, 0, _OPEN)))


class PatchFilter(Filter):
    """See the module and :class:`Filter`. Gains of all channels follow from the tables."""

    bytes_per_pixel, decoding_bytes_per_pixel = 1600, 400

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        channels = config.channels
        self.enter = nn.Linear(4 * FREQUENCIES, channels)
        self.first = nn.ModuleList([Block(channels) for _ in range(config.blocks - config.steered)])
        self.last = nn.ModuleList([Block(channels) for _ in range(config.steered)])
        self.leave = nn.Linear(channels, 3 * FREQUENCIES)
        self.tables = nn.Sequential(
            nn.Linear(2 * FREQUENCIES + 2, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU()
        )
        self.gains = nn.Linear(_HIDDEN, (config.blocks + 1) * channels + 3 * FREQUENCIES)
        with torch.no_grad():
            for parameter in (*self.leave.parameters(), self.gains.bias):
                parameter.zero_()
            self.gains.weight.mul_(0.3)

    def features(self, coefficients: Tensor, tables: Tensor, divisors: Tensor) -> tuple[Tensor, Tensor]:
        """See :data:`Seen`: features (B, h, w, C), gains (B, 1, 1, all channels)."""
        known = torch.cat([torch.log2(tables).flatten(1) / 4 - 1, divisors - 1.5], 1)
        gains = torch.exp(torch.tanh(cast(Tensor, self.gains(self.tables(known)))))[:, None, None]
        levels = coefficients[..., :FREQUENCIES] / tables[:, None, None, 0]
        x = self.enter(torch.cat([coefficients / _GREY, levels.clamp(-_LEVELS, _LEVELS)], -1))
        with self.reduced(x):
            for index, block in enumerate(self.first):
                x = block(x, self._of(gains, index))
        return x, gains

    def added(self, x: Tensor, beside: Tensor, tables: Tensor, descriptors: Tensor | None) -> Tensor:
        """See :meth:`Filter.added`."""
        factors = self.factors(descriptors, CELL, *x.shape[1:3])
        with self.reduced(x):
            for index, block in enumerate(self.last):
                x = block(x, self._of(beside, len(self.first) + index) * factors[index])
        x = x * (self._of(beside, len(self.first) + len(self.last)) * factors[-1])
        steps = tables[:, 1].log().mean(1, keepdim=True).exp().expand(-1, 2 * FREQUENCIES)
        errors = _ERROR * torch.cat([tables[:, 0], steps], 1)[:, None, None]
        return cast(Tensor, self.leave(x)) * beside[..., -3 * FREQUENCIES :] * errors

    def _of(self, gains: Tensor, index: int) -> Tensor:
        return gains[..., index * self.channels : (index + 1) * self.channels]
