"""The probability model: a convolutional network with a state that is carried through all steps.

Everything that decides a symbol is fixed-point arithmetic carried by float32: weights are whole multiples of
``2**-shift`` of their output channel, activations whole multiples of 1/32 of at most 255/32, and no sum of
products reaches 2^24 units. Every partial sum is then exact, so that every order of summation, number of
threads, batch size and machine gives the same predictions (Ballé et al. 2019, "Integer networks for data
compression with latent-variable models"). Only ``exact`` evaluations round activations; searches do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lof.codecs.entropy.fixed import ACTIVATION_UNIT, CEILING, UNSET, FixedConv, powers_of_two
from lof.codecs.entropy.mixture import (
    MEAN_UNIT,
    SCALE_MIN,
    SCALE_STEP,
    SCALES,
    WEIGHT_UNIT,
    centre_and_form,
    weight_of,
)
from lof.codecs.msp.config import MSPConfig
from lof.codecs.msp.layout import Step

INDEX_UNIT = 8
"""Scales are predicted in units of this many places of the table, about a factor e: as fast to learn as means."""
SCALES_APART, START_WEIGHT = 0.8, 32
"""Where a mixture's components start: neighbours' scales, in that unit, and weights."""


class Prior(nn.Module):
    """Means and scales, or mixtures, of every step, from the steps before it.

    All tensors are (B, channels, rows, columns) of cells.

    The finest level has networks of its own; the coarser levels, which code a quarter of the latents together,
    share theirs.
    """

    spread: Tensor

    def __init__(self, config: MSPConfig) -> None:
        super().__init__()
        self.config, self.exact = config, False
        # Latents are divided by their channel's power of two before the network sees them.
        self.register_buffer("spread", torch.ones(config.latent_channels))
        self.fine = _Level(config, under_another=config.levels > 1)
        self.coarse = _Level(config, under_another=config.levels > 2) if config.levels > 1 else self.fine

    def enter(self, level: int, known: Tensor, hidden: Tensor | None) -> Tensor:
        """The state at the start of a level, from the coarser grid's values and the state left there."""
        net = self._level(level)
        seen = self._seen(known, 0, 1)
        if hidden is None:
            rows, columns = known.shape[-2:]
            above = known.new_zeros(known.shape[0], self.config.width // 2, rows, columns)
        else:
            above = F.pixel_shuffle(self._settle(net.up(hidden)), 2)
        return self._settle(net.enter(torch.cat([seen, above], 1)))

    def step(self, step: Step, hidden: Tensor, new: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """One evaluation: the new state, and centre and form of what the step codes.

        The form is the place in the table of scales; with mixtures, see :func:`centre_and_form`.

        Args:
            hidden: the state before.
            new: values that the step before took, of this level; none in the level's first step.
        """
        net = self._level(step.level).step(step.spatial * len(self.config.groups) + step.group)
        if new is not None:
            before = steps_before(self.config, step)
            seen = self._seen(new, *before)
            hidden = self._settle(hidden + self._inner(net.join(torch.cat([hidden, seen], 1))))
        for widen, back in net.pairs():
            hidden = self._settle(hidden + self._inner(back(self._settle(widen(hidden)))))
        features = self._settle(net.features(hidden))
        with torch.autocast(features.device.type, enabled=False):
            mean, index, *weight = net.head(features.float()).chunk(min(3, self.config.outputs), 1)
            index = INDEX_UNIT * index
            if self.exact:
                mean = torch.round(mean * MEAN_UNIT) / MEAN_UNIT
                index = torch.round(index).clamp(0, SCALES - 1)
            else:
                index = _leaky_clamp(index)
            if weight:
                weights = weight_of(weight[0], exact=self.exact)
                return hidden, *centre_and_form(mean, index, weights, self.config.components)
        return hidden, mean, index

    def to_grid(self) -> None:
        """Put all weights on their fixed-point grids; what ships and decodes is on them."""
        for module in self.modules():
            if isinstance(module, FixedConv) and bool((module.shift == UNSET).any()):
                module.to_grid()

    def lower_precision(self, dtype: torch.dtype) -> None:
        """For searching only: weights on grids are kept, all but those of the predictions in ``dtype``."""
        self.exact = False
        for name, module in self.named_modules():
            if isinstance(module, FixedConv) and not name.endswith(".head"):
                module.to(dtype)

    @torch.no_grad()
    def calibrate(self, spread: Tensor) -> None:
        """Start from latents' standard deviations, (M,), in coding order."""
        powers = torch.round(torch.log2(spread.clamp_min(2**-6)))
        self.spread.copy_(powers_of_two(powers))
        index = torch.log(spread.clamp_min(SCALE_MIN) / SCALE_MIN) / (SCALE_STEP * INDEX_UNIT)
        for level in (self.fine, self.coarse)[: min(2, self.config.levels)]:
            for number in range(len(level.steps)):
                net = level.step(number)
                group = number % len(self.config.groups)
                first = sum(self.config.groups[:group])
                positions = len(self.config.positions[number // len(self.config.groups)])
                start = index[first : first + self.config.groups[group]].repeat(positions)
                net.head.weight.mul_(0.1)
                cast(Tensor, net.head.bias).copy_(_start(start, self.config.components))

    def _level(self, level: int) -> _Level:
        return self.fine if level == 0 else self.coarse

    def _seen(self, values: Tensor, first: int, positions: int) -> Tensor:
        count = values.shape[1] // positions
        scaled = values / self.spread[first : first + count].repeat(positions).reshape(1, -1, 1, 1)
        return self._inner(scaled).clamp(-CEILING, CEILING)

    def _inner(self, x: Tensor) -> Tensor:
        return torch.round(x * ACTIVATION_UNIT) / ACTIVATION_UNIT if self.exact else x

    def _settle(self, x: Tensor) -> Tensor:
        return F.hardtanh(self._inner(x), 0.0, CEILING)  # a clamp whose gradient is one kernel


class _Level(nn.Module):
    def __init__(self, config: MSPConfig, *, under_another: bool) -> None:
        super().__init__()
        width, channels = config.width, config.latent_channels
        if under_another:
            self.up = FixedConv(width, 4 * (width // 2), 1)
        self.enter = FixedConv(channels + width // 2, width, 3)
        self.steps = nn.ModuleList(_steps(config))

    def step(self, number: int) -> _Step:
        return cast(_Step, self.steps[number])


class _Step(nn.Module):
    def __init__(self, width: int, depth: int, new: int, coded: int, outputs: int) -> None:
        super().__init__()
        if new:
            self.join = FixedConv(width + new, width, 3)
        self.blocks = nn.ModuleList(
            nn.ModuleList([FixedConv(width, width, 3), FixedConv(width, width, 1)]) for _ in range(depth)
        )
        self.features = FixedConv(width, width, 1)
        self.head = FixedConv(width, outputs * coded, 1)

    def pairs(self) -> list[tuple[FixedConv, FixedConv]]:
        """The two layers of each residual block."""
        return [cast(tuple[FixedConv, FixedConv], tuple(cast(nn.ModuleList, b))) for b in self.blocks]


def _steps(config: MSPConfig) -> Iterator[_Step]:
    new = 0
    for positions in config.positions:
        for channels in config.groups:
            coded = len(positions) * channels
            yield _Step(config.width, config.depth, new, coded, config.outputs)
            new = coded


def steps_before(config: MSPConfig, step: Step) -> tuple[int, int]:
    """First channel and number of positions of the step before ``step`` in its level."""
    groups = len(config.groups)
    spatial, group = divmod(step.spatial * groups + step.group - 1, groups)
    return sum(config.groups[:group]), len(config.positions[spatial])


def _start(index: Tensor, components: int) -> Tensor:
    """Biases that predict zero-mean Gaussians, of scales a little apart in a mixture: equal ones stay equal."""
    if components == 1:
        return torch.cat([torch.zeros_like(index), index])
    apart = [(number - (components - 1) / 2) * SCALES_APART for number in range(components)]
    indexes = torch.cat([(index + by).clamp(0, (SCALES - 1) / INDEX_UNIT) for by in apart])
    weights = torch.full_like(indexes, START_WEIGHT / WEIGHT_UNIT)
    return torch.cat([torch.zeros_like(indexes), indexes, weights])


def _leaky_clamp(index: Tensor) -> Tensor:
    """Into the table; a gradient that leads back inside passes at its edges."""
    return index + (index.clamp(0, SCALES - 1) - index).detach()
