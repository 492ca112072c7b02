"""The expected true cost under independent stochastic rounding: what a mean-field stage descends.

The synthesis is evaluated at a :class:`Point`, around which the distortion is foreseen. The probability model is walked
by :meth:`Walk.at`; after it, :meth:`Walk.moves` gives the gradients, at latents near by too, without another one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lof.codecs import Coded, Latents
from lof.search.relaxations import soft_round
from lof.search.state import Search, choose

_NEAR_WHOLE = 1e-4


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
        return self.gradient + self.curvature * (value - self.point)

    def spread(self, up: Tensor) -> Tensor:
        """What rounding up with probability ``up`` adds to the distortion of each image, (B,)."""
        return (0.5 * self.curvature * up * (1 - up)).flatten(1).sum(1)


@dataclass(frozen=True)
class Point:
    """Where the synthesis was evaluated.

    Attributes:
        latents: (B, C, h, w) float32 by name.
        distortion: (B,), times λ.
        near: the model of it around each synthesised latent tensor.
        bits, spread: expected bits, and what rounding adds to the distortion, each (B,); 0 before a walk.
    """

    latents: Latents
    distortion: Tensor
    near: dict[str, Near]
    bits: Tensor
    spread: Tensor

    @classmethod
    def measured(cls, state: Search, latents: Latents, curvature: Latents) -> Point:
        """One gradient evaluation: forward and backward through the synthesis."""
        state.evaluations += 1
        values, image = decoded(state, latents)
        distortion = state.objective.lmbda * state.objective.distortion(image)
        gradients = torch.autograd.grad(distortion.sum(), list(values.values()))
        return cls(
            {name: tensor.detach().clone() for name, tensor in latents.items()},
            distortion.detach(),
            {
                name: Near(value.detach(), gradient, curvature[name])
                for (name, value), gradient in zip(values.items(), gradients, strict=True)
            },
            torch.zeros_like(distortion),
            torch.zeros_like(distortion),
        )

    def cost(self, pixels: int, variance: float) -> Tensor:
        """Expected cost of each image, (B,), with ``variance`` times what rounding adds."""
        return self.distortion + variance * self.spread + self.bits / pixels

    def where(self, which: Tensor, other: Point) -> Point:
        """Per image: this one where ``which``, (B,), holds, else ``other``."""
        return Point(
            {name: choose(which, tensor, other.latents[name]) for name, tensor in self.latents.items()},
            torch.where(which, self.distortion, other.distortion),
            {name: near.where(which, other.near[name]) for name, near in self.near.items()},
            torch.where(which, self.bits, other.bits),
            torch.where(which, self.spread, other.spread),
        )


@dataclass(frozen=True)
class Move:
    """Where to move a latent tensor.

    Attributes:
        gradient: of the expected cost in bits.
        lowest, highest: how far each element may move: to the next whole residual, where the gradient jumps. Both are 0
            for an element that rests there.
    """

    gradient: Tensor
    lowest: Tensor | None = None
    highest: Tensor | None = None


@dataclass(frozen=True)
class Walk:
    """One walk of the probability model, with the gradients through it.

    Attributes:
        point: what the distortion is foreseen from.
        coded: the synthesised latents as their entropy model saw them.
        informing: gradient, in bits, of what each element tells of others; of the latents that are not synthesised, the
            whole gradient, and of those at rest none.
        bits, spread: see :class:`Point`.
        pixels: of one image.
    """

    point: Point
    coded: dict[str, Coded]
    informing: Latents
    bits: Tensor
    spread: Tensor
    pixels: int

    @classmethod
    def at(cls, state: Search, point: Point, latents: Latents, weights: Weights) -> Walk:
        """Walk with ``latents``."""
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in latents.items()}

        def quantize(name: str, residual: Tensor) -> Tensor:
            if name in point.near:
                return residual
            side = weights.side
            return torch.round(residual.detach()) if side is None else soft_round(residual, side)

        bits = spread = torch.zeros_like(point.distortion)
        coded, own = {}, {}
        for name, part in state.codec.code(leaves, quantize).items():
            if name not in point.near:
                bits = bits + part.bits.flatten(1).sum(1)
                continue
            between = Between.of(part, part.residual)
            up = part.residual - between.floor
            bits = bits + torch.lerp(between.low, between.high, up).flatten(1).sum(1)
            spread = spread + point.near[name].spread(between.up)
            coded[name], own[name] = part, between.high.detach() - between.low.detach()
        found = torch.autograd.grad(bits.sum(), list(leaves.values()), allow_unused=True)
        informing = {
            name: gradient - own[name] if name in own else gradient
            for name, gradient in zip(leaves, found, strict=True)
            if gradient is not None
        }
        return cls(point, coded, informing, bits.detach(), spread, state.objective.pixels)

    @torch.no_grad()
    def moves(self, latents: Latents, weights: Weights, *, moved: bool) -> dict[str, Move]:
        """Where the expected cost falls.

        Args:
            latents: where the walk was, or near by.
            weights: of this step.
            moved: whether they have moved since the walk. What elements tell of one another is then taken as it was
                there, and only synthesised latents, whose own rate is exact, move on.
        """
        side = {} if moved else {n: g for n, g in self.informing.items() if n not in self.coded}
        found = {name: Move(gradient) for name, gradient in side.items()}
        for name, part in self.coded.items():
            near, value = self.point.near[name], latents[name]
            residual = part.residual + (value - part.value)
            between = Between.of(part, residual)
            below, above = between.slopes(self.pixels * weights.variance * near.curvature)
            others = self.informing[name] + self.pixels * near.slope(value)
            falling, rising = others + below, others + above
            downwards = between.whole & (falling > 0) & (rising >= 0)
            rests = between.whole & (falling <= 0) & (rising >= 0)
            gradient = torch.where(downwards, falling, rising).masked_fill_(rests, 0)
            lowest = between.floor - residual - downwards.to(residual)
            highest = torch.where(rests, lowest, lowest + 1)
            found[name] = Move(gradient, lowest, highest)
        return found


@dataclass(frozen=True)
class Between:
    """Where residuals are between whole numbers, and what those cost; all (B, C, h, w), without graphs of residuals.

    Attributes:
        floor: the residual itself where it is whole.
        up: probability to be rounded up.
        whole: whether the residual is whole.
        below, low, high: bits of ``floor - 1``, ``floor`` and ``floor + 1``; differentiable through the parameters.
    """

    floor: Tensor
    up: Tensor
    whole: Tensor
    below: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, coded: Coded, residual: Tensor) -> Between:
        """Those of any residuals under a walk's parameters."""
        residual = residual.detach()
        near = torch.round(residual)
        whole = (residual - near).abs() < _NEAR_WHOLE
        floor = torch.where(whole, near, torch.floor(residual))
        up = torch.where(whole, 0, residual - floor)
        with torch.no_grad():
            below = coded.bits_of_whole(floor - 1)
        return cls(floor, up, whole, below, coded.bits_of_whole(floor), coded.bits_of_whole(floor + 1))

    @torch.no_grad()
    def slopes(self, curvature: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives of the expected cost by the residual, below and above it; they differ where it is whole.

        Args:
            curvature: of the distortion that rounding adds to, in bits.
        """
        return (
            self.low - self.below + curvature * (self.up - 0.5),
            self.high - self.low + curvature * (0.5 - self.up),
        )


def expected_bits(coded: Coded) -> Tensor:
    """Of each element; differentiable."""
    floor = torch.floor(coded.residual.detach())
    return torch.lerp(coded.bits_of_whole(floor), coded.bits_of_whole(floor + 1), coded.residual - floor)


def decoded(state: Search, latents: Latents) -> tuple[Latents, Tensor]:
    """The unrounded values that reach the pixels, as leaves of a graph, and the visible part of the image."""
    with torch.no_grad():
        coded = state.codec.code(latents, lambda _, residual: residual)
    values = {name: c.value for name, c in coded.items()}
    leaves = {name: values[name].clone().requires_grad_() for name in state.codec.synthesised}
    image = state.codec.synthesise(values | leaves)
    return leaves, state.codec.crop(image, state.objective.height, state.objective.width)
