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
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lof.codecs import Latents
from lof.profiles import MeanFieldStage
from lof.search.relaxations import soft_round
from lof.search.schedules import value_at
from lof.search.state import Search


def run_mean_field(state: Search, stage: MeanFieldStage) -> None:
    """Adam on the expected cost, from the best latents so far; several steps per gradient evaluation."""
    latents = _contracted(state, stage.fraction)
    optimizer = torch.optim.Adam(
        [{"params": [tensor], "name": name} for name, tensor in latents.items()], lr=0.0, betas=stage.betas
    )
    curvature: Latents = {}
    steps = stage.evaluations * stage.steps
    stale = 0
    for evaluation in range(stage.evaluations):
        if evaluation % stage.curvature_every == 0:
            curvature = distortion_curvature(state, latents)
        near = _distortion_near(state, latents, curvature)
        for step in range(evaluation * stage.steps, (evaluation + 1) * stage.steps):
            progress = step / max(1, steps - 1)
            for group in optimizer.param_groups:
                rate = stage.learning_rate_of.get(group["name"], stage.learning_rate)
                group["lr"] = rate * value_at(stage.decay, progress)
            optimizer.zero_grad(set_to_none=True)
            side = value_at(stage.side, progress) if progress < stage.side_until else None
            _expected_cost(state, latents, near, value_at(stage.variance, progress), side).backward()
            optimizer.step()
        if (evaluation + 1) % stage.check_every == 0 or evaluation + 1 == stage.evaluations:
            better = state.offer(latents, state.hard(latents))
            stale = 0 if bool(better.any()) else stale + 1
        state.report()
        if stage.patience is not None and stale >= stage.patience:
            break


@dataclass(frozen=True)
class _Near:
    """The distortion around one point, times λ: ``gradient·d + ½·curvature·d²`` with ``d = value - point``."""

    point: Tensor
    gradient: Tensor
    curvature: Tensor


def _distortion_near(state: Search, latents: Latents, curvature: Latents) -> dict[str, _Near]:
    """One gradient evaluation: forward and backward through the synthesis."""
    state.evaluations += 1
    values, decoded = _decoded(state, latents)
    distortion = state.objective.distortion(decoded)
    gradients = torch.autograd.grad(state.objective.lmbda * distortion.sum(), list(values.values()))
    return {
        name: _Near(value.detach(), gradient, curvature[name])
        for (name, value), gradient in zip(values.items(), gradients, strict=True)
    }


def _decoded(state: Search, latents: Latents) -> tuple[Latents, Tensor]:
    """The unrounded values that reach the pixels, as leaves of a graph, and the visible part of the image."""
    with torch.no_grad():
        coded = state.codec.code(latents, lambda _, residual: residual)
    values = {name: c.value for name, c in coded.items()}
    leaves = {name: values[name].clone().requires_grad_() for name in state.codec.synthesised}
    decoded = state.codec.synthesise(values | leaves)
    return leaves, state.codec.crop(decoded, state.objective.height, state.objective.width)


def _contracted(state: Search, fraction: float) -> Latents:
    """The best latents, with the synthesised ones moved towards their nearest integers.

    Far from integers the expected rate is that of a coin toss: at low rates, where nearly all elements are 0
    once rounded, a search from the raw latents spends most of its steps on getting back to that.
    """
    seen = state.codec.synthesised

    def towards_integers(name: str, residual: Tensor) -> Tensor:
        return torch.lerp(torch.round(residual), residual, fraction) if name in seen else residual

    with torch.no_grad():
        coded = state.codec.code(state.best, towards_integers)
    return {
        name: (coded[name].value if name in seen else tensor).clone().requires_grad_()
        for name, tensor in state.best.items()
    }


def _expected_cost(
    state: Search, latents: Latents, near: dict[str, _Near], variance: float, side: float | None
) -> Tensor:
    """Expected cost of the batch, up to a constant; the other latents are soft-rounded, or rounded where
    ``side`` is None."""

    def quantize(name: str, residual: Tensor) -> Tensor:
        if name in near:
            return residual
        return torch.round(residual.detach()) if side is None else soft_round(residual, side)

    pixels = state.objective.pixels
    cost = torch.zeros((), device=state.codec.device)
    for name, coded in state.codec.code(latents, quantize).items():
        if name not in near:
            cost = cost + coded.bits.sum() / pixels
            continue
        at = near[name]
        floor = torch.floor(coded.residual.detach())
        up = coded.residual - floor
        bits = (1 - up) * coded.bits_of(floor) + up * coded.bits_of(floor + 1)
        moved = coded.value - at.point
        distortion = at.gradient * moved + 0.5 * at.curvature * moved.square()
        spread = 0.5 * variance * at.curvature * up * (1 - up)
        cost = cost + bits.sum() / pixels + (distortion + spread).sum()
    return cost


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
