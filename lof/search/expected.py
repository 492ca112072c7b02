"""The expected true cost under independent stochastic rounding: what a mean-field stage descends.

:meth:`Walk.at` walks the probability model, and :meth:`Point.measured` evaluates the synthesis at the same latents.
Together they foresee the cost near by: :meth:`Walk.moves` tells where it falls without another evaluation of either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from lof.codecs import Coded, Latents, Quantize
from lof.search.relaxations import soft_round
from lof.search.state import Search, choose

_NEAR_WHOLE = 1e-4  # residuals are differences of values of up to some hundreds, in float32


@dataclass(frozen=True)
class Weights:
    """What of the expected cost changes over a stage: the weight of the variance, and the temperature of the soft
    rounding of the latents that are not synthesised, which are rounded where it is ``None``."""

    variance: float
    side: float | None


@dataclass(frozen=True)
class Near:
    """The distortion around one point, times λ: ``gradient·d + ½·curvature·d²`` with ``d = value - point``."""

    point: Tensor
    gradient: Tensor
    curvature: Tensor

    def where(self, which: Tensor, other: Near) -> Near:
        """Per image: this one where ``which``, (B,), holds, else ``other``."""
        return Near(
            choose(which, self.point, other.point),
            choose(which, self.gradient, other.gradient),
            choose(which, self.curvature, other.curvature),
        )

    def slope(self, value: Tensor) -> Tensor:
        """Derivative by the value, (B, C, h, w)."""
        return torch.addcmul(self.gradient, self.curvature, value - self.point)

    def spread(self, up: Tensor) -> Tensor:
        """What rounding up with probability ``up`` adds to the distortion of each image, (B,)."""
        return (0.5 * self.curvature * up * (1 - up)).flatten(1).sum(1)


@dataclass(frozen=True)
class Walk:
    """One walk of the probability model, with the gradients through it.

    Attributes:
        coded: all latents as their entropy model saw them.
        bits: (B,), expected bits.
        informing: gradient of the bits of other elements, which each one tells something of; of the latents that are
            not synthesised, of all bits, and of those that are rounded for good none.
        latents: where the walk was.
    """

    coded: dict[str, Coded]
    bits: Tensor
    informing: Latents
    latents: Latents

    @classmethod
    def at(cls, state: Search, latents: Latents, weights: Weights) -> Self:
        """Walk with ``latents``."""
        seen = state.codec.synthesised
        leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in latents.items()}
        coded = state.codec.code(leaves, _quantizer(state, weights))
        own: Latents = {}
        bits = torch.zeros(1, device=state.codec.device)
        for name, part in coded.items():
            if name in seen:
                each, own[name] = expected_bits(part)
            else:
                each = part.bits
            bits = bits + each.flatten(1).sum(1)
        found = torch.autograd.grad(bits.sum(), list(leaves.values()), allow_unused=True)
        informing = {
            name: gradient - own.get(name, 0)
            for name, gradient in zip(leaves, found, strict=True)
            if gradient is not None
        }
        return cls(coded, bits.detach(), informing, {n: leaf.detach() for n, leaf in leaves.items()})

    def settled(self, state: Search, weights: Weights) -> bool:
        """Whether none but synthesised latents moves, here and from now on: what others tell changes fast."""
        return weights.side is None and set(self.informing) <= set(state.codec.synthesised)

    @torch.no_grad()
    def onwards(self, state: Search, latents: Latents, weights: Weights) -> Self:
        """New predictions for latents near by. The gradients through them, half of the work, stay as they were."""
        return replace(self, coded=state.codec.code(latents, _quantizer(state, weights)))

    @torch.no_grad()
    def moves(self, point: Point, latents: Latents, variance: float, *, moved: bool) -> dict[str, Move]:
        """Where the expected cost falls.

        Args:
            point: what the distortion is foreseen from.
            latents: where the walk was, or near by.
            variance: weight of what rounding adds to the distortion.
            moved: whether they have moved since the walk. What elements tell of one another is then taken as it was
                there, and only synthesised latents, whose own rate is exact, move on.
        """
        side = {} if moved else {n: g for n, g in self.informing.items() if n not in point.near}
        found = {name: Move(gradient) for name, gradient in side.items()}
        for name, near in point.near.items():
            part, value = self.coded[name], latents[name]
            residual = part.residual + (value - part.value)
            between = Between.of(part, residual)
            below, above = between.slopes(near.curvature, point.pixels * variance)
            others = torch.add(self.informing[name], near.slope(value), alpha=point.pixels)
            falling, rising = below.add_(others), above.add_(others)
            # Products with masks: choosing with torch.where takes ten times as long.
            stops = between.whole * (rising >= 0)
            downwards = stops * (falling > 0)
            gradient = torch.addcmul(rising, rising, stops, value=-1).addcmul_(falling, downwards)
            lowest = between.floor - residual - downwards
            found[name] = Move(gradient, lowest, (downwards - stops).add_(lowest).add_(1))
        return found


@dataclass(frozen=True)
class Point:
    """Where the synthesis was evaluated.

    Attributes:
        latents: (B, C, h, w) float32 by name.
        near: the model of the distortion around each synthesised latent tensor.
        distortion: (B,), times λ.
        spread: (B,), what rounding adds to it.
        bits: (B,), expected bits.
        pixels: of one image.
    """

    latents: Latents
    near: dict[str, Near]
    distortion: Tensor
    spread: Tensor
    bits: Tensor
    pixels: int

    @classmethod
    def measured(cls, state: Search, walk: Walk, curvature: Latents) -> Self:
        """One gradient evaluation, where the walk was: forward and backward through the synthesis.

        Args:
            curvature: as from :func:`lof.search.sensitivity.distortion_curvature`.
        """
        state.evaluations += 1
        values, image = decoded(state, walk.coded)
        distortion = state.objective.lmbda * state.objective.distortion(image)
        gradients = torch.autograd.grad(distortion.sum(), list(values.values()))
        near = {
            name: Near(value.detach(), gradient.nan_to_num(0.0, 0.0, 0.0), curvature[name])
            for (name, value), gradient in zip(values.items(), gradients, strict=True)
        }
        none = torch.zeros_like(distortion)
        return cls(walk.latents, near, distortion.detach(), none, none, state.objective.pixels).priced(walk)

    def priced(self, walk: Walk) -> Self:
        """The same place at the prices of a walk there, whose side latents may be softer or harder than before.

        The values that were synthesised are not rounded, so that the distortion is the same.
        """
        spread = torch.zeros_like(self.distortion)
        for name, near in self.near.items():
            _, up, _ = _rounding(walk.coded[name].residual.detach())
            spread = spread + near.spread(up)
        return replace(self, spread=spread, bits=walk.bits)

    def cost(self, variance: float) -> Tensor:
        """Expected cost of each image, (B,), with ``variance`` times what rounding adds."""
        return self.distortion + variance * self.spread + self.bits / self.pixels

    def where(self, which: Tensor, other: Point) -> Point:
        """Per image: this one where ``which``, (B,), holds, else ``other``."""
        return Point(
            {name: choose(which, tensor, other.latents[name]) for name, tensor in self.latents.items()},
            {name: near.where(which, other.near[name]) for name, near in self.near.items()},
            torch.where(which, self.distortion, other.distortion),
            torch.where(which, self.spread, other.spread),
            torch.where(which, self.bits, other.bits),
            self.pixels,
        )


@dataclass(frozen=True)
class Move:
    """Where to move a latent tensor.

    Attributes:
        gradient: of the expected cost in bits.
        lowest, highest: how far each element may move: to the next whole residual, where the gradient jumps. Both are 0
            for an element that rests there. ``None`` for latents that are not synthesised.
    """

    gradient: Tensor
    lowest: Tensor | None = None
    highest: Tensor | None = None


@dataclass(frozen=True)
class Between:
    """Whole numbers around each residual, and what they cost; all (B, C, h, w), without graphs.

    Attributes:
        floor: the number below; the residual itself where it is whole.
        up: probability to be rounded up.
        whole: 1 where the residual is whole, else 0.
        below: bits of ``floor`` less those of ``floor - 1``.
        own: bits of ``floor + 1`` less those of ``floor``: how the expected bits rise with the residual.
    """

    floor: Tensor
    up: Tensor
    whole: Tensor
    below: Tensor
    own: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, coded: Coded, residual: Tensor) -> Self:
        """Those of any residuals under a walk's parameters."""
        floor, up, whole = _rounding(residual)
        return cls(floor, up, whole, *coded.rises_of_whole(floor))

    def slopes(self, curvature: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """Derivatives of the expected cost by the residual, below and above it; they differ where it is whole.

        Args:
            curvature: of the distortion that rounding adds to.
            weight: what makes it bits.
        """
        swing = (self.up - 0.5).mul_(curvature)
        return torch.add(self.below, swing, alpha=weight), torch.sub(self.own, swing, alpha=weight)


def _quantizer(state: Search, weights: Weights) -> Quantize:
    """Synthesised latents stay as they are."""

    def quantize(name: str, residual: Tensor) -> Tensor:
        if name in state.codec.synthesised:
            return residual
        side = weights.side
        return torch.round(residual.detach()) if side is None else soft_round(residual, side)

    return quantize


def expected_bits(coded: Coded) -> tuple[Tensor, Tensor]:
    """Of each element, differentiable; and how they rise with its own residual, without a graph."""
    floor, _, _ = _rounding(coded.residual.detach())
    low, high = coded.bits_of_whole(floor), coded.bits_of_whole(floor + 1)
    return torch.lerp(low, high, coded.residual - floor), (high - low).detach()


def _rounding(residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The number below, or the residual where it is whole; the probability to be rounded up; 1 where it is whole."""
    floor = torch.floor(residual + _NEAR_WHOLE)
    up = residual - floor
    between = (up > _NEAR_WHOLE).to(residual)
    return floor, up.mul_(between), 1 - between


def decoded(state: Search, coded: Mapping[str, Coded]) -> tuple[Latents, Tensor]:
    """The values that reach the pixels, as leaves of a graph, and the visible part of the image."""
    values = {name: part.value.detach() for name, part in coded.items()}
    leaves = {name: values[name].clone().requires_grad_() for name in state.codec.synthesised}
    image = state.codec.synthesise(values | leaves)
    return leaves, state.codec.crop(image, state.objective.height, state.objective.width)
