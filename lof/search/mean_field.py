"""Mean-field stage: gradient descent on the expected true cost under independent stochastic rounding.

Let every element of the synthesised latents be rounded up with probability p, its fractional part, and down
otherwise, independently. Its mean is then the unrounded value itself, and

- the expected rate is exactly ``(1 - p)·R(floor) + p·R(floor + 1)``;
- the expected distortion is, to second order, ``D(mean) + ½ Σ h·p·(1 - p)`` with h the diagonal of the
  distortion's Hessian.

This is linear in each element alone, so its minima are integers: nothing is gained by staying in between, which
is where other relaxations lose what they seemed to win. The weight of the variance term grows over the stage,
from the continuous problem to the discrete one; no noise is drawn and no temperature is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lof.profiles import MeanFieldStage
from lof.search.relaxations import soft_round
from lof.search.schedules import value_at
from lof.search.state import Search


def run_mean_field(state: Search, stage: MeanFieldStage) -> None:
    """Adam on the expected cost, from the best latents so far."""
    main = state.codec.latents[-1]
    latents = _contracted(state, main, stage.fraction)
    optimizer = torch.optim.Adam(
        [{"params": [tensor], "name": name} for name, tensor in latents.items()], lr=0.0, betas=stage.betas
    )
    curvature: Tensor | None = None
    stale = 0
    for step in range(stage.evaluations):
        progress = step / max(1, stage.evaluations - 1)
        for group in optimizer.param_groups:
            rate = stage.learning_rate_of.get(group["name"], stage.learning_rate)
            group["lr"] = rate * value_at(stage.decay, progress)
        if step % stage.curvature_every == 0:
            curvature = distortion_curvature(state, latents, main)
        if curvature is None:
            raise AssertionError("the curvature is measured in the first step")
        optimizer.zero_grad(set_to_none=True)
        side = value_at(stage.side, progress) if progress < stage.side_until else None
        cost = _expected_cost(state, latents, main, curvature, value_at(stage.variance, progress), side)
        cost.sum().backward()
        optimizer.step()
        if (step + 1) % stage.check_every == 0 or step + 1 == stage.evaluations:
            better = state.offer(latents, state.hard(latents))
            stale = 0 if bool(better.any()) else stale + 1
        state.report()
        if stage.patience is not None and stale >= stage.patience:
            break


def _contracted(state: Search, main: str, fraction: float) -> dict[str, Tensor]:
    """The best latents, with the synthesised ones moved towards their nearest integers.

    Far from integers the expected rate is that of a coin toss: at low rates, where nearly all elements are 0
    once rounded, a search from the raw latents spends most of its steps on getting back to that.
    """

    def towards_integers(name: str, residual: Tensor) -> Tensor:
        return torch.lerp(torch.round(residual), residual, fraction) if name == main else residual

    with torch.no_grad():
        start = state.codec.code(state.best, towards_integers)[main].value
    return {
        name: (start if name == main else tensor).clone().requires_grad_()
        for name, tensor in state.best.items()
    }


def _expected_cost(
    state: Search,
    latents: dict[str, Tensor],
    main: str,
    curvature: Tensor,
    variance: float,
    side: float | None,
) -> Tensor:
    """(B,): expected cost of each image; the other latents are soft-rounded, or rounded where ``side`` is None."""

    def quantize(name: str, residual: Tensor) -> Tensor:
        if name == main:
            return residual
        return torch.round(residual.detach()) if side is None else soft_round(residual, side)

    relaxed = state.relaxed(latents, quantize)
    coded = relaxed.coded[main]
    floor = torch.floor(coded.residual.detach())
    up = coded.residual - floor
    expected = (1 - up) * coded.bits_of(floor) + up * coded.bits_of(floor + 1)
    rate_change = (expected - coded.bits).flatten(1).sum(1) / state.objective.pixels
    spread = 0.5 * (curvature * up * (1 - up)).flatten(1).sum(1)
    return relaxed.cost + rate_change + variance * spread


def distortion_curvature(state: Search, latents: dict[str, Tensor], name: str) -> Tensor:
    """Estimate of ``λ·∂²D/∂value²`` of each element of one latent tensor, (B, C, h, w).

    One Hutchinson probe of the Gauss-Newton diagonal (the squared gradient of the decoded image against random
    signs), smoothed as the product of a channel's mean and a place's mean, since one probe is noisy.
    Counts as one gradient evaluation.
    """
    objective = state.objective
    state.evaluations += 1
    fixed = {key: tensor.detach() for key, tensor in latents.items()}
    with torch.no_grad():
        coded = state.codec.code(fixed, lambda _, residual: residual)
    values = {key: c.value for key, c in coded.items()}
    values[name] = values[name].clone().requires_grad_()
    decoded = state.codec.crop(state.codec.synthesise(values), objective.height, objective.width)
    signs = 2 * torch.round(state.noise.uniform(decoded.shape)) - 1
    (probe,) = torch.autograd.grad((decoded * signs).sum(), values[name])
    raw = objective.squared_error_curvature * probe.square()
    place = torch.nn.functional.avg_pool2d(raw.mean(1, keepdim=True), 5, 1, 2, count_include_pad=False)
    return raw.mean((2, 3), keepdim=True) * place / place.mean((1, 2, 3), keepdim=True).clamp_min(1e-20)
