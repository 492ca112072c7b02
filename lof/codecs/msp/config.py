"""What an MSP codec is made of, as data; the tiers differ in nothing else."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Self

D, B, C = (1, 1), (0, 1), (1, 0)
"""Row and column, within a 2×2 cell, of the three positions that a level codes; (0, 0) is known."""

SPATIAL_STEPS: dict[int, tuple[tuple[tuple[int, int], ...], ...]] = {
    1: ((D, B, C),),
    2: ((D,), (B, C)),
    3: ((D,), (B,), (C,)),
}
"""Positions coded together, in order: the diagonal first, then the two that it informs."""


@dataclass(frozen=True)
class MSPConfig:
    """Sizes of an MSP codec.

    Attributes:
        transform_width: channels inside the transforms (N).
        latent_channels: channels of y (M).
        levels: 2×2 refinements from the coarsest sub-grid, which has stride ``2**levels``, to y (L).
        spatial_steps: 1, 2 or 3 steps for the three unknown positions of a cell (S).
        width: channels of the probability model's state.
        depth: residual blocks of one evaluation.
        groups: channels of each group, in coding order; their sum is ``latent_channels`` (K groups).
    """

    transform_width: int
    latent_channels: int
    levels: int
    spatial_steps: int
    width: int
    depth: int
    groups: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.spatial_steps not in SPATIAL_STEPS or sum(self.groups) != self.latent_channels:
            raise ValueError(f"no such MSP codec: {self}")
        if min(self.transform_width, self.levels, self.width // 2, self.depth, *self.groups) < 1:
            raise ValueError(f"no such MSP codec: {self}")

    @classmethod
    def from_sizes(cls, sizes: tuple[int, ...]) -> Self:
        """Inverse of :attr:`sizes`.

        Raises:
            ValueError: they describe no codec.
        """
        if len(sizes) < 7:
            raise ValueError("an MSP codec has at least 7 sizes")
        n, m, levels, spatial_steps, width, depth, *groups = sizes
        return cls(n, m, levels, spatial_steps, width, depth, tuple(groups))

    @property
    def sizes(self) -> tuple[int, ...]:
        """All fields as one flat tuple of integers, the groups last: the network's constructor arguments."""
        *single, groups = astuple(self)
        return (*single, *groups)

    @property
    def positions(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Positions of a cell coded in each spatial step."""
        return SPATIAL_STEPS[self.spatial_steps]

    @property
    def evaluations(self) -> int:
        """Evaluations of the probability model for an image of any size, the factorised prior counted as one."""
        return 1 + self.levels * self.spatial_steps * len(self.groups)


TIERS: dict[str, MSPConfig] = {
    "msp-fast": MSPConfig(96, 128, levels=3, spatial_steps=1, width=96, depth=1, groups=(32, 96)),
    "msp-base": MSPConfig(96, 128, levels=3, spatial_steps=2, width=128, depth=1, groups=(32, 96)),
    "msp-high": MSPConfig(96, 128, levels=3, spatial_steps=3, width=128, depth=1, groups=(16, 48, 64)),
    "msp-tiny": MSPConfig(16, 24, levels=2, spatial_steps=2, width=16, depth=1, groups=(8, 16)),
}
