"""Crops that look as if cut from other photographs: scaled down, with more colour, with channels exchanged.

Photographs at full size are softer and calmer than most that are published, and few of them show saturated colours.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLER: Final = 3.0
"""The largest factor by which a crop is scaled down; factors are log-uniform."""
_COLOURED: Final = 0.5
"""The share of varied crops whose saturation is raised."""
_SATURATION: Final = 1.9
"""The largest factor of the saturation, log-uniform too."""
_EXCHANGED: Final = 0.15
"""The share of varied crops whose channels change places."""
_ORDERS: Final = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


class Variation(NamedTuple):
    """What is done to a crop."""

    scale: float = 1.0
    saturation: float = 1.0
    order: tuple[int, ...] = (0, 1, 2)

    def reach(self, side: int, at_most: int) -> int:
        """Pixels a side to cut for a crop of ``side``, where a picture has no more than ``at_most``."""
        return min(int(side * self.scale), at_most)

    def apply(self, cut: Tensor, side: int) -> Tensor:
        """The crop, (side, side, 3) uint8, from a larger square."""
        x = cut.permute(2, 0, 1)[None].float()
        if cut.shape[0] > side:
            x = F.interpolate(x, (side, side), mode="bicubic", antialias=True)
        grey = x.mean(1, keepdim=True)
        x = (grey + self.saturation * (x - grey))[:, list(self.order)]
        return x.clamp(0, 255).round()[0].permute(1, 2, 0).to(cut.dtype)


UNCHANGED: Final = Variation()


def draw_variations(count: int, share: float, generator: torch.Generator) -> list[Variation]:
    """One for each crop; about ``share`` of them change something. Where ``share`` is 0, nothing is drawn."""
    if share == 0:
        return [UNCHANGED] * count
    draws = torch.rand(count, 5, generator=generator, dtype=torch.float64).tolist()
    return [
        Variation(
            SMALLER**scale,
            _SATURATION**saturation if coloured < _COLOURED else 1.0,
            _ORDERS[int(order / _EXCHANGED * len(_ORDERS))] if order < _EXCHANGED else (0, 1, 2),
        )
        if varied < share
        else UNCHANGED
        for varied, scale, coloured, saturation, order in draws
    ]
