"""What an MSP codec is made of, as data; the tiers differ in nothing else."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from itertools import accumulate
from typing import Self

D, B, C = (1, 1), (0, 1), (1, 0)
"""Row and column, within a 2×2 cell, of the three positions that a level codes; (0, 0) is known."""

SPATIAL_STEPS: dict[int, tuple[tuple[tuple[int, int], ...], ...]] = {
    1: ((D, B, C),),
    2: ((D,), (B, C)),
    3: ((D,), (B,), (C,)),
}
"""Positions coded together, in order: the diagonal first, then the two that it informs."""

MOST_COMPONENTS = 8
MOST_LEVELS = 8


@dataclass(frozen=True)
class MSPConfig:
    """Sizes of an MSP codec.

    Attributes:
        transform_width: channels inside the transforms (N).
        latent_channels: channels of y (M).
        levels: 1 to 8 2×2 refinements from the coarsest sub-grid, which has stride ``2**levels``, to y (L).
        spatial_steps: 1, 2 or 3 steps for the three unknown positions of a cell (S).
        width: channels of the probability model's state.
        depth: residual blocks of one evaluation.
        groups: channels of each group, in coding order; their sum is ``latent_channels`` (K groups).
        components: Gaussians in the mixture of each element that a step codes, 1 to 8 (J); 1 is the plain Gaussian.
    """

    transform_width: int
    latent_channels: int
    levels: int
    spatial_steps: int
    width: int
    depth: int
    groups: tuple[int, ...]
    components: int = 1

    def __post_init__(self) -> None:
        if self.spatial_steps not in SPATIAL_STEPS or sum(self.groups) != self.latent_channels:
            raise ValueError(f"no such MSP codec: {self}")
        if not 1 <= self.components <= MOST_COMPONENTS:
            raise ValueError(f"no such MSP codec: {self}")
        if min(self.transform_width, self.levels, self.width // 2, self.depth, *self.groups) < 1:
            raise ValueError(f"no such MSP codec: {self}")
        if self.levels > MOST_LEVELS:
            raise ValueError(f"no such MSP codec: {self}")

    @classmethod
    def from_sizes(cls, sizes: tuple[int, ...]) -> Self:
        """Inverse of :attr:`sizes`.

        Raises:
            ValueError: they describe no codec.
        """
        if len(sizes) < 7:
            raise ValueError("an MSP codec has at least 7 sizes")
        n, m, levels, spatial_steps, width, depth, *rest = sizes
        count = next((at for at, total in enumerate(accumulate(rest), 1) if total >= m), len(rest))
        groups, components = tuple(rest[:count]), tuple(rest[count:])
        config = cls(n, m, levels, spatial_steps, width, depth, groups, *components[:1])
        if config.sizes != tuple(sizes):
            raise ValueError(f"no such MSP codec: {sizes}")
        return config

    @property
    def sizes(self) -> tuple[int, ...]:
        """All fields as one flat tuple of integers: the network's constructor arguments.

        The groups come last, and after them the number of components if it is not 1.
        """
        *single, groups, components = astuple(self)
        return (*single, *groups, *([components] if components > 1 else []))

    @property
    def positions(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Positions of a cell coded in each spatial step."""
        return SPATIAL_STEPS[self.spatial_steps]

    @property
    def outputs(self) -> int:
        """Predictions for each element: mean and place in the table of scales, or these and a weight, J times."""
        return 2 if self.components == 1 else 3 * self.components

    @property
    def form(self) -> int:
        """Numbers that tell an element's distribution about its centre: the place in the table, or a mixture's."""
        return 1 if self.components == 1 else 3 * self.components

    @property
    def evaluations(self) -> int:
        """Evaluations of the probability model for an image of any size, the factorised prior counted as one."""
        return 1 + self.levels * self.spatial_steps * len(self.groups)


TIERS: dict[str, MSPConfig] = {
    "msp-fast": MSPConfig(96, 128, levels=3, spatial_steps=1, width=96, depth=1, groups=(32, 96)),
    "msp-base": MSPConfig(96, 128, levels=3, spatial_steps=2, width=128, depth=1, groups=(32, 96)),
    "msp-high": MSPConfig(96, 128, levels=3, spatial_steps=2, width=192, depth=1, groups=(8, 12, 20, 32, 56)),
    "msp-tiny": MSPConfig(16, 24, levels=2, spatial_steps=2, width=16, depth=1, groups=(8, 16)),
}
