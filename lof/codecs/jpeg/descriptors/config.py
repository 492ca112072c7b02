"""What the filter, the choice of descriptors and their probability model are made of, as data."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Final, Self

from lof.codecs.descriptors.classes import SIDE

CELL: Final = SIDE // 8
"""Blocks of 8×8 pixels for which a descriptor stands, a side."""
FREQUENCIES: Final = 64
"""Of a block."""


@dataclass(frozen=True)
class Config:
    """Sizes of a network.

    Attributes:
        channels: of the filter; at 1/8 of the resolution, unless it is EDSR.
        blocks: of the filter.
        steered: how many of them, the last ones, descriptors steer.
        seen: channels of the network that chooses descriptors.
        width: channels of the probability model.
        edsr: 1 for the paper's trunk, EDSR at the full resolution; 0 for that of :mod:`.patches`.
        views: 2 to filter the picture and its transpose, and add the mean of both.
    """

    channels: int
    blocks: int
    steered: int
    seen: int
    width: int
    edsr: int = 0
    views: int = 1

    def __post_init__(self) -> None:
        fits = self.steered <= self.blocks and self.edsr in (0, 1) and self.views in (1, 2)
        if min(astuple(self)[:5]) < 1 or not fits:
            raise ValueError(f"no such filter: {self}")

    @classmethod
    def from_sizes(cls, sizes: tuple[int, ...]) -> Self:
        """Inverse of :attr:`sizes`.

        Raises:
            ValueError: they describe no network.
        """
        if len(sizes) not in (5, 6, 7):
            raise ValueError("a filter has 5 to 7 sizes")
        return cls(*sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """All fields, without the last ones that are as they are by default: older weights had none of them."""
        return astuple(self)[: 7 if self.views > 1 else 6 if self.edsr else 5]


CONFIGS: Final = {
    "jpeg-descriptors": Config(192, 10, 3, 24, 32, views=2),
    "jpeg-descriptors-tiny": Config(16, 2, 1, 4, 8),
}
"""By the codec's name."""
