"""The paper's filter, to train and to compare with: EDSR-baseline without its upsampling (Lim et al. 2017).

Full resolution: 64 channels and 16 blocks make 1.2 million products for a pixel, which is too much for a CPU.
"""

from __future__ import annotations

from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lof.codecs.descriptors.classes import SIDE
from lof.codecs.jpeg.descriptors.config import Config
from lof.codecs.jpeg.descriptors.filter import Filter
from lof.codecs.jpeg.descriptors.pictures import samples_of
from lof.codecs.jpeg.planes import coefficients_of

_GREY: Final = 64.0
"""Grey levels that count as 1 where samples enter and leave."""


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(x · factor)))``; features of the descriptors are factors, as in the paper."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(channels, channels, 3, padding=1)
        self.b = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return x + cast(Tensor, self.b(F.relu(self.a(x * factor))))


class EdsrFilter(Filter):
    """See the module and :class:`Filter`. It knows samples alone; tables are not told."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.bytes_per_pixel, self.decoding_bytes_per_pixel = 12_000 * config.views, 1_200 * config.views
        channels = config.channels
        self.enter = nn.Conv2d(3, channels, 3, padding=1)
        self.first = nn.ModuleList([ResidualBlock(channels) for _ in range(config.blocks - config.steered)])
        self.last = nn.ModuleList([ResidualBlock(channels) for _ in range(config.steered)])
        self.body = nn.Conv2d(channels, channels, 3, padding=1)
        self.leave = nn.Conv2d(channels, 3, 3, padding=1)
        with torch.no_grad():
            for parameter in self.leave.parameters():
                parameter.zero_()

    def features(self, coefficients: Tensor, tables: Tensor, divisors: Tensor) -> tuple[Tensor, Tensor]:
        """See :data:`Seen`: features of the first blocks and of the first layer, both (B, C, H, W)."""
        entered = self.enter(samples_of(coefficients) / _GREY)
        x = entered
        with self.reduced(x):
            for block in self.first:
                x = block(x, x.new_ones(1))
        return x, entered

    def added(self, x: Tensor, beside: Tensor, tables: Tensor, descriptors: Tensor | None) -> Tensor:
        """See :meth:`Filter.added`."""
        factors = [
            factor.permute(0, 3, 1, 2) if factor.ndim == 4 else factor
            for factor in self.factors(descriptors, SIDE, *x.shape[2:])
        ]
        with self.reduced(x):
            for block, factor in zip(self.last, factors, strict=False):
                x = block(x, factor)
            x = beside + self.body(x * factors[-1])
        planes = _GREY * cast(Tensor, self.leave(x))
        return torch.cat([coefficients_of(plane) for plane in planes.split(1, 1)], 1).permute(0, 2, 3, 1)
