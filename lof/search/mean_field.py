"""Mean-field stage: gradient descent on the expected true cost under independent stochastic rounding.

Let every element of the synthesised latents be rounded up with probability p, its fractional part, and down
otherwise, independently. Its mean is then the unrounded value itself, and

- the expected rate is exactly ``(1 - p)·R(floor) + p·R(floor + 1)``;
- the expected distortion is, to second order, ``D(mean) + ½ Σ h·p·(1 - p)`` with h the diagonal of the
  distortion's Hessian.

This is linear in each element alone, so its minima are integers: nothing is gained by staying in between, which
is where other relaxations lose what they seemed to win. The weight of the variance term grows over the stage,
from the continuous problem to the discrete one; no noise is drawn and no temperature is needed.

Only the distortion needs the synthesis, and it is nearly quadratic over the length of a few steps. So each
gradient evaluation serves several steps: between two of them the distortion is extrapolated from its gradient
and h, while the rate, which is cheap and far from quadratic, is followed exactly.

How long a step may be differs between codecs by orders of magnitude. Three things keep it right on one that nobody
tuned for. No step is longer than a few of the channel's *natural steps*, over which the cost changes by half a bit
for each element (:func:`natural_steps`). Each new evaluation measures the expected cost where the model only
foresaw it: an image whose cost has risen goes back to its best point and on with steps half as long. And one whose true
cost has not fallen after half of the stage starts again, with its other latents rounded and at rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lof.codecs import Coded, Latents
from lof.profiles import MeanFieldStage
from lof.search.relaxations import soft_round
from lof.search.schedules import value_at
from lof.search.state import Search, choose

_SMALL = 3e-4  # bits; gradients below it are nothing to go by


def run_mean_field(state: Search, stage: MeanFieldStage) -> None:
    """Adam on the expected cost, from the best latents so far; several steps per gradient evaluation."""
    last = max(1, stage.evaluations * stage.steps - 1)

    def weights_at(step: int) -> _Weights:
        progress = step / last
        side = value_at(stage.side, progress) if progress < stage.side_until else None
        return _Weights(value_at(stage.variance, progress), side)

    latents = _contracted(state, stage.fraction)
    curvature = distortion_curvature(state, latents)
    start_cost = state.best_cost
    adam = _Adam(stage.betas, _longest_steps(state, stage, latents, curvature))
    pace = torch.ones_like(state.best_cost)
    best: _Point | None = None
    restarted = torch.zeros_like(pace, dtype=torch.bool)
    stale = 0
    for evaluation in range(stage.evaluations):
        if evaluation and evaluation % stage.curvature_every == 0:
            curvature = distortion_curvature(state, latents)
        point, first = _measured(state, latents, curvature), evaluation * stage.steps
        if best is not None:
            now, before = (_expected_cost(state, p, p.latents, weights_at(first)) for p in (point, best))
            before = torch.where(restarted, torch.inf, before)
            rose = now > before * (1 + stage.tolerance)
            pace = torch.where(rose, pace / 2, (pace * 1.5).clamp_max(1))
            if bool(rose.any()):
                point = best.where(rose, point)
                adam.forget(rose)
            best = point.where(now <= before, best)
        else:
            best = point
        latents = {name: tensor.clone().requires_grad_() for name, tensor in point.latents.items()}
        for step in range(first, first + stage.steps):
            cost = state.objective.pixels * _expected_cost(state, point, latents, weights_at(step)).sum()
            gradients = torch.autograd.grad(cost, list(latents.values()), allow_unused=True)
            adam.step(latents, gradients, pace * value_at(stage.decay, step / last))
        restarted = torch.zeros_like(restarted)
        if evaluation + 1 == stage.evaluations // 2:
            state.offer(latents, state.hard(latents))
            restarted = state.best_cost >= start_cost
            if bool(restarted.any()):
                again = _contracted(state, stage.fraction, rest=True)
                latents = {name: choose(restarted, again[name], tensor) for name, tensor in latents.items()}
                adam.forget(restarted)
                adam.rest(restarted, [name for name in latents if name not in curvature])
        if (evaluation + 1) % stage.check_every == 0 or evaluation + 1 == stage.evaluations:
            better = state.offer(latents, state.hard(latents))
            stale = 0 if bool(better.any()) else stale + 1
        state.report()
        if stage.patience is not None and stale >= stage.patience:
            break


@dataclass(frozen=True)
class _Weights:
    """What of the expected cost changes over a stage: the weight of the variance, and the temperature of the soft
    rounding of the latents that are not synthesised, which are rounded where it is ``None``."""

    variance: float
    side: float | None


class _Adam:
    """Adam (Kingma & Ba 2015) with a longest step for each channel and a pace for each image.

    Gradients are in bits, so that what counts as small does not depend on the image's size.
    """

    def __init__(self, betas: tuple[float, float], longest: Latents) -> None:
        self.betas, self.longest, self.steps = betas, longest, 0
        self.mean: Latents = {}
        self.square: Latents = {}

    @torch.no_grad()
    def step(self, latents: Latents, gradients: Sequence[Tensor | None], pace: Tensor) -> None:
        """Move ``latents`` in place, each image by its share ``pace``, (B,), of the longest steps.

        What has no gradient stays where it is, whatever its momentum.
        """
        self.steps += 1
        slow, fast = self.betas
        for (name, tensor), gradient in zip(latents.items(), gradients, strict=True):
            if gradient is None:
                continue
            mean = self.mean.setdefault(name, torch.zeros_like(tensor))
            square = self.square.setdefault(name, torch.zeros_like(tensor))
            mean.mul_(slow).add_(gradient, alpha=1 - slow)
            square.mul_(fast).addcmul_(gradient, gradient, value=1 - fast)
            size = (square / (1 - fast**self.steps)).sqrt_().add_(_SMALL)
            length = pace.reshape(-1, 1, 1, 1) * self.longest[name] / (1 - slow**self.steps)
            tensor.addcdiv_(mean * -length, size)

    def forget(self, which: Tensor) -> None:
        """Lose the momentum of the images that ``which``, (B,), names."""
        self.mean = {name: choose(which, torch.zeros_like(mean), mean) for name, mean in self.mean.items()}

    def rest(self, which: Tensor, names: Sequence[str]) -> None:
        """Move these latents of the images that ``which``, (B,), names no more."""
        for name in names:
            self.longest[name] = choose(which, torch.zeros_like(self.longest[name]), self.longest[name])


@dataclass(frozen=True)
class _Near:
    """The distortion around one point, times λ: ``gradient·d + ½·curvature·d²`` with ``d = value - point``."""

    point: Tensor
    gradient: Tensor
    curvature: Tensor

    def where(self, which: Tensor, other: _Near) -> _Near:
        """Per image: this one where ``which``, (B,), holds, else ``other``."""
        return _Near(
            choose(which, self.point, other.point),
            choose(which, self.gradient, other.gradient),
            choose(which, self.curvature, other.curvature),
        )


@dataclass(frozen=True)
class _Point:
    """Latents, their distortion times λ, (B,), and the model of it around each synthesised latent tensor."""

    latents: Latents
    distortion: Tensor
    near: dict[str, _Near]

    def where(self, which: Tensor, other: _Point) -> _Point:
        """Per image: this one where ``which``, (B,), holds, else ``other``."""
        return _Point(
            {name: choose(which, tensor, other.latents[name]) for name, tensor in self.latents.items()},
            torch.where(which, self.distortion, other.distortion),
            {name: near.where(which, other.near[name]) for name, near in self.near.items()},
        )


def _measured(state: Search, latents: Latents, curvature: Latents) -> _Point:
    """One gradient evaluation: forward and backward through the synthesis."""
    state.evaluations += 1
    values, decoded = _decoded(state, latents)
    distortion = state.objective.lmbda * state.objective.distortion(decoded)
    gradients = torch.autograd.grad(distortion.sum(), list(values.values()))
    return _Point(
        {name: tensor.detach().clone() for name, tensor in latents.items()},
        distortion.detach(),
        {
            name: _Near(value.detach(), gradient, curvature[name])
            for (name, value), gradient in zip(values.items(), gradients, strict=True)
        },
    )


def _decoded(state: Search, latents: Latents) -> tuple[Latents, Tensor]:
    """The unrounded values that reach the pixels, as leaves of a graph, and the visible part of the image."""
    with torch.no_grad():
        coded = state.codec.code(latents, lambda _, residual: residual)
    values = {name: c.value for name, c in coded.items()}
    leaves = {name: values[name].clone().requires_grad_() for name in state.codec.synthesised}
    decoded = state.codec.synthesise(values | leaves)
    return leaves, state.codec.crop(decoded, state.objective.height, state.objective.width)


def _contracted(state: Search, fraction: float, *, rest: bool = False) -> Latents:
    """The best latents, with the synthesised ones moved towards their nearest integers.

    Far from integers the expected rate is that of a coin toss: at low rates, where nearly all elements are 0
    once rounded, a search from the raw latents spends most of its steps on getting back to that. With ``rest`` the
    others are rounded.
    """
    seen = state.codec.synthesised

    def towards_integers(name: str, residual: Tensor) -> Tensor:
        if name in seen:
            return torch.lerp(torch.round(residual), residual, fraction)
        return torch.round(residual) if rest else residual

    with torch.no_grad():
        coded = state.codec.code(state.best, towards_integers)
    return {
        name: (coded[name].value if rest or name in seen else tensor).clone().requires_grad_()
        for name, tensor in state.best.items()
    }


def _expected_cost(state: Search, point: _Point, latents: Latents, weights: _Weights) -> Tensor:
    """Expected cost of each image, (B,), with the distortion as it is foreseen from ``point``."""

    def quantize(name: str, residual: Tensor) -> Tensor:
        if name in point.near:
            return residual
        side = weights.side
        return torch.round(residual.detach()) if side is None else soft_round(residual, side)

    bits = torch.zeros_like(point.distortion)
    cost = point.distortion
    for name, coded in state.codec.code(latents, quantize).items():
        if name not in point.near:
            bits = bits + coded.bits.flatten(1).sum(1)
            continue
        at = point.near[name]
        moved = coded.value - at.point
        up, expected = _expected_bits(coded)
        bits = bits + expected.flatten(1).sum(1)
        distortion = at.gradient * moved + 0.5 * at.curvature * moved.square()
        spread = 0.5 * weights.variance * at.curvature * up * (1 - up)
        cost = cost + (distortion + spread).flatten(1).sum(1)
    return cost + bits / state.objective.pixels


def _expected_bits(coded: Coded) -> tuple[Tensor, Tensor]:
    """Probability of each element to be rounded up, and its expected bits."""
    floor = torch.floor(coded.residual.detach())
    up = coded.residual - floor
    return up, (1 - up) * coded.bits_of(floor) + up * coded.bits_of(floor + 1)


def _longest_steps(state: Search, stage: MeanFieldStage, latents: Latents, curvature: Latents) -> Latents:
    """The longest step of each channel in each image, in steps of the quantiser: (B, C, 1, 1) by name."""
    natural = natural_steps(state, latents, curvature, stage.side.start)
    rates = {name: stage.learning_rate_of.get(name, stage.learning_rate) for name in natural}
    return {name: (stage.longest * step).clamp_max(rates[name]) for name, step in natural.items()}


def natural_steps(state: Search, latents: Latents, curvature: Latents, side: float) -> Latents:
    """The change of an element that costs about half a bit: h^-½ with h the curvature of the cost in bits, the mean
    of a channel in an image; (B, C, 1, 1) by name.

    Of synthesised latents it is the distortion's curvature, as their own rate is followed exactly. Of the others it is
    that of the rate of everything that they inform, by the Fisher information: for a model that tells the truth, the
    curvature of a code length in nats is the mean square of its gradient. One backward pass from random signs on the
    bits of all elements estimates the sum of the squares.

    Args:
        curvature: of the distortion, as from :func:`distortion_curvature`.
        side: temperature of the soft rounding of the latents that are not synthesised.
    """
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in latents.items()}
    coded = state.codec.code(leaves, lambda name, r: r if name in curvature else soft_round(r, side))
    signed = torch.zeros((), device=state.codec.device)
    for name, part in coded.items():
        bits = _expected_bits(part)[1] if name in curvature else part.bits
        signs = 2 * torch.round(state.noise.uniform(bits.shape)) - 1
        signed = signed + (signs * bits).sum()
    probes = torch.autograd.grad(signed, list(leaves.values()), materialize_grads=True)
    found = {}
    for name, probe in zip(leaves, probes, strict=True):
        bend = state.objective.pixels * curvature[name] if name in curvature else math.log(2) * probe.square()
        found[name] = bend.mean((2, 3), keepdim=True).clamp_min(1e-12).rsqrt()
    return found


def distortion_curvature(state: Search, latents: Latents) -> Latents:
    """Estimate of ``λ·∂²D/∂value²`` of each element of the synthesised latents, (B, C, h, w) by name.

    One Hutchinson probe of the Gauss-Newton diagonal (the squared gradient of the decoded image against random
    signs), smoothed as the product of a channel's mean and a place's mean, since one probe is noisy.
    Counts as one gradient evaluation.
    """
    state.evaluations += 1
    values, decoded = _decoded(state, latents)
    signs = 2 * torch.round(state.noise.uniform(decoded.shape)) - 1
    probing = signs * state.objective.error_curvature(decoded).sqrt()
    probes = torch.autograd.grad((decoded * probing).sum(), list(values.values()))
    found = {}
    for name, probe in zip(values, probes, strict=True):
        raw = probe.square()
        place = torch.nn.functional.avg_pool2d(raw.mean(1, keepdim=True), 5, 1, 2, count_include_pad=False)
        found[name] = (
            raw.mean((2, 3), keepdim=True) * place / place.mean((1, 2, 3), keepdim=True).clamp_min(1e-20)
        )
    return found
