"""Order of coding: which elements of y each step codes, and the walk over all steps.

All shapes are those of y padded at the bottom and right to multiples of ``2**levels``; the padding is 0 and is
not coded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lof.codecs.msp.config import MSPConfig


@dataclass(frozen=True)
class Part:
    """The elements that one step codes: some positions of every cell, some channels.

    Attributes:
        stride: of the level's grid in y.
        positions: row and column of each position within the cell, in grid units.
        channels: first and one past the last, in coding order.
        cell: rows and columns of y that a cell covers.
    """

    stride: int
    positions: tuple[tuple[int, int], ...]
    channels: tuple[int, int]
    cell: int

    def cut(self, y: Tensor) -> Tensor:
        """Elements of a padded (B, M, h, w), as (B, positions × channels, rows, columns) of cells."""
        first, last = self.channels
        cuts = [
            y[:, first:last, row * self.stride :: self.cell, column * self.stride :: self.cell]
            for row, column in self.positions
        ]
        return cuts[0] if len(cuts) == 1 else torch.cat(cuts, 1)

    def extents(self, height: int, width: int) -> list[tuple[int, int]]:
        """Rows and columns of cells whose element lies inside a y of this size, for each position."""
        return [
            (_count(height, row * self.stride, self.cell), _count(width, column * self.stride, self.cell))
            for row, column in self.positions
        ]


@dataclass(frozen=True)
class Step:
    """One evaluation of the probability model: where it stands, and what it codes."""

    level: int
    spatial: int
    group: int
    part: Part


def coarsest(config: MSPConfig) -> Part:
    """What the factorised prior codes: every channel of the coarsest sub-grid."""
    stride = 2**config.levels
    return Part(stride, ((0, 0),), (0, config.latent_channels), stride)


@lru_cache
def steps(config: MSPConfig) -> tuple[Step, ...]:
    """All steps after the coarsest sub-grid, in coding order."""
    return tuple(_steps(config))


def _steps(config: MSPConfig) -> Iterator[Step]:
    for level in reversed(range(config.levels)):
        for spatial, positions in enumerate(config.positions):
            start = 0
            for group, channels in enumerate(config.groups):
                part = Part(2**level, positions, (start, start + channels), 2 ** (level + 1))
                yield Step(level, spatial, group, part)
                start += channels


def parts(config: MSPConfig) -> Iterator[Part]:
    """The parts of all steps, the coarsest sub-grid first."""
    yield coarsest(config)
    yield from (step.part for step in steps(config))


def pad(y: Tensor, config: MSPConfig) -> Tensor:
    """(B, M, h, w) with zeros at the bottom and right, to multiples of the coarsest stride."""
    stride = 2**config.levels
    return F.pad(y, (0, -y.shape[-1] % stride, 0, -y.shape[-2] % stride))


@lru_cache(maxsize=8)
def _order(config: MSPConfig, height: int, width: int) -> Tensor:
    """For each element of a padded (M, h, w), its place in the concatenation of all parts."""
    places = torch.arange(config.latent_channels * height * width)
    places = places.reshape(1, config.latent_channels, height, width)
    return torch.cat([part.cut(places).flatten() for part in parts(config)]).argsort()


def assemble(cut: list[Tensor], config: MSPConfig, height: int, width: int) -> Tensor:
    """Inverse of cutting a padded (B, M, h, w) into the parts of all steps; differentiable."""
    flat = torch.cat([piece.flatten(1) for piece in cut], 1)
    order = _order(config, height, width).to(flat.device)
    return flat.index_select(1, order).reshape(-1, config.latent_channels, height, width)


class Model(Protocol):
    """The probability model as the walk needs it: :class:`lof.codecs.msp.prior.Prior`."""

    config: MSPConfig

    def enter(self, level: int, known: Tensor, hidden: Tensor | None) -> Tensor: ...

    def step(self, step: Step, hidden: Tensor, new: Tensor | None) -> tuple[Tensor, Tensor, Tensor]: ...


class Take(Protocol):
    """What is done with a step's prediction: draw symbols, write them, price them."""

    def __call__(self, part: Part, centre: Tensor | None, form: Tensor | None, /) -> Tensor:
        """Values of the part's elements, 0 in the padding; the coarsest part comes without a prediction.

        The centre is (B, positions × channels, rows, columns), the form that for each of its numbers in turn.
        """
        ...


def walk(model: Model, take: Take) -> None:
    """Visit all parts in coding order, each with the prediction from everything taken before it."""
    config = model.config
    known = take(coarsest(config), None, None)
    hidden: Tensor | None = None
    taken: list[Tensor] = []
    for step in steps(config):
        if step.spatial == step.group == 0:
            known = _refine(known, taken, config) if taken else known
            hidden, taken = model.enter(step.level, known, hidden), []
        assert hidden is not None
        hidden, centre, form = model.step(step, hidden, taken[-1] if taken else None)
        taken.append(take(step.part, centre, form))


def _refine(known: Tensor, taken: list[Tensor], config: MSPConfig) -> Tensor:
    """The next finer grid, from its known position and the three that were taken step by step."""
    groups = len(config.groups)
    at = {(0, 0): known}
    for index, positions in enumerate(config.positions):
        split = [piece.chunk(len(positions), 1) for piece in taken[index * groups : (index + 1) * groups]]
        at |= {place: torch.cat([s[n] for s in split], 1) for n, place in enumerate(positions)}
    cells = torch.stack([at[0, 0], at[0, 1], at[1, 0], at[1, 1]], 2)
    return F.pixel_shuffle(cells.flatten(1, 2), 2)


def _count(size: int, offset: int, stride: int) -> int:
    return max(0, -(-(size - offset) // stride))
