"""The stages that a profile can list, by kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lof.profiles import GreedyGradientStage, OwnStage, RelaxStage
from lof.search.flips import run_greedy_flip
from lof.search.mean_field import run_mean_field
from lof.search.relaxations import RELAXATIONS
from lof.search.schedules import value_at
from lof.search.state import Search, choose


def run_relax(state: Search, stage: RelaxStage) -> None:
    """Adam on relaxed latents, from the best latents so far."""
    relaxation = RELAXATIONS[stage.relaxation]
    latents = {name: tensor.clone().requires_grad_() for name, tensor in state.best.items()}
    rates = {name: stage.learning_rate_of.get(name, stage.learning_rate) for name in latents}
    optimizer = torch.optim.Adam(
        [{"params": [tensor], "name": name} for name, tensor in latents.items()], lr=0.0, betas=stage.betas
    )
    stale = 0
    for step in range(stage.evaluations):
        progress = step / max(1, stage.evaluations - 1)
        temperature = value_at(stage.temperature, progress)
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]] * value_at(stage.decay, progress)
        optimizer.zero_grad(set_to_none=True)
        relaxed = state.relaxed(latents, lambda _, r, t=temperature: relaxation(r, t, state.noise))  # type: ignore[misc]
        relaxed.cost.sum().backward()
        optimizer.step()
        if (step + 1) % stage.check_every == 0 or step + 1 == stage.evaluations:
            better = state.offer(latents, state.hard(latents))
            stale = 0 if bool(better.any()) else stale + 1
            if stage.patience is not None and stale >= stage.patience:
                break
        state.report()
    state.latents = {name: tensor.detach() for name, tensor in latents.items()}


def run_greedy_gradient(state: Search, stage: GreedyGradientStage) -> None:
    """Steps along the normalised gradient under hard rounding, each image with its own step size."""
    rate = torch.full_like(state.best_cost, stage.learning_rate)
    failures = torch.zeros_like(rate)
    momentum = {name: torch.zeros_like(tensor) for name, tensor in state.best.items()}
    straight = RELAXATIONS["ste"]
    for _ in range(stage.evaluations):
        latents = {name: tensor.clone().requires_grad_() for name, tensor in state.best.items()}
        evaluation = state.relaxed(latents, lambda _, r: straight(r, 1.0, state.noise))
        names = list(latents)
        gradients = torch.autograd.grad(evaluation.cost.sum(), [latents[name] for name in names])
        proposal = {}
        for name, gradient in zip(names, gradients, strict=True):
            momentum[name] = 0.5 * momentum[name] + gradient
            step = momentum[name] / (_rms(momentum[name]) + 1e-12)
            proposal[name] = latents[name].detach() - _per_image(rate, step) * step
        better = state.offer(proposal, state.hard(proposal))
        failures = torch.where(better, 0, failures + 1)
        rate = torch.where(better, rate, rate * stage.shrink)
        momentum = {n: choose(better, m, torch.zeros_like(m)) for n, m in momentum.items()}
        state.report()
        if bool((failures >= stage.patience).all()):
            break


def run_own(state: Search, stage: OwnStage) -> None:
    """What the codec itself knows to do."""
    state.codec.refine(state, stage.evaluations)
    state.report()


def _rms(tensor: Tensor) -> Tensor:
    return tensor.square().mean((1, 2, 3), keepdim=True).sqrt()


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.dim() - 1))


STAGES: dict[str, Callable[[Search, Any], None]] = {
    "relax": run_relax,
    "mean-field": run_mean_field,
    "greedy-gradient": run_greedy_gradient,
    "greedy-flip": run_greedy_flip,
    "own": run_own,
}
