"""What the filter, the choice of descriptors and their probability model are made of, as data."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Final, Self

CLASSES: Final = 16
"""Descriptors are 0 to 15; 0 leaves the filter as it is."""
CELL: Final = 2
"""Blocks of 8×8 pixels for which a descriptor stands, a side."""
SIDE: Final = 8 * CELL
"""The same in pixels."""


@dataclass(frozen=True)
class Config:
    """Sizes of a network.

    Attributes:
        channels: of the filter, at 1/8 of the resolution.
        blocks: of the filter.
        steered: how many of them, the last ones, descriptors steer.
        seen: channels of the network that chooses descriptors.
        width: channels of the probability model.
    """

    channels: int
    blocks: int
    steered: int
    seen: int
    width: int

    def __post_init__(self) -> None:
        if min(self.sizes) < 1 or self.steered > self.blocks:
            raise ValueError(f"no such filter: {self}")

    @classmethod
    def from_sizes(cls, sizes: tuple[int, ...]) -> Self:
        """Inverse of :attr:`sizes`.

        Raises:
            ValueError: they describe no network.
        """
        if len(sizes) != 5:
            raise ValueError("a filter has 5 sizes")
        return cls(*sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """All fields."""
        return astuple(self)


CONFIGS: Final = {
    "jpeg-descriptors": Config(192, 8, 3, 24, 32),
    "jpeg-descriptors-tiny": Config(8, 2, 1, 4, 8),
}
"""By the codec's name."""
