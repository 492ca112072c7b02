"""Discrete greedy search: change single symbols by ±1 where the predicted gain is highest, check, keep or halve."""

from __future__ import annotations

import torch
from torch import Tensor

from lof.codecs import Coded
from lof.profiles import GreedyFlipStage
from lof.search.objective import Evaluation
from lof.search.relaxations import RELAXATIONS
from lof.search.sensitivity import probed
from lof.search.state import Search


def run_greedy_flip(state: Search, stage: GreedyFlipStage) -> None:
    """Flip the share of elements that promise most, each latent tensor in turn."""
    names = [name for name in state.best if name not in state.codec.held]
    seen = state.codec.synthesised
    side = [name for name in names if name not in seen]
    shares = {name: torch.full_like(state.best_cost, stage.share) for name in names}
    failures = torch.zeros_like(state.best_cost)
    curvature: dict[str, Tensor] = {}
    for turn in range(stage.evaluations):
        # What reaches the pixels carries most of the bits, so it has three turns of four.
        name = seen[turn % len(seen)] if turn % 4 < 3 or not side else side[turn // 4 % len(side)]
        evaluation, gradients, probed = _differentiate(state)
        for key, probe in probed.items():
            curvature[key] = probe if key not in curvature else 0.7 * curvature[key] + 0.3 * probe
        coded = evaluation.coded[name]
        change, delta = _predict(state, coded, gradients[name], curvature[name])
        proposal = {key: c.value.detach().clone() for key, c in evaluation.coded.items()}
        proposal[name] = proposal[name] + _most_promising(change, delta, shares[name])
        better = state.offer(proposal, state.hard(proposal))
        failures = torch.where(better, 0, failures + 1)
        shares[name] = torch.where(better, shares[name], shares[name] * stage.shrink)
        state.report()
        if bool((failures >= stage.patience).all()):
            break


def _differentiate(state: Search) -> tuple[Evaluation, dict[str, Tensor], dict[str, Tensor]]:
    """Cost, its gradient and a probe of the distortion's curvature at the best symbols, all under hard rounding."""
    values = {name: tensor.clone().requires_grad_() for name, tensor in state.best.items()}
    straight = RELAXATIONS["ste"]
    state.evaluations += 1
    coded = state.codec.code(values, lambda _, r: straight(r, 1.0, state.noise))
    decoded = state.codec.synthesise({name: c.value for name, c in coded.items()})
    visible = state.codec.crop(decoded, state.objective.height, state.objective.width)
    bits = torch.stack([c.bits.flatten(1).sum(1) for c in coded.values()]).sum(0)
    bpp = bits / state.objective.pixels
    distortion = state.objective.distortion(visible)
    cost = bpp + state.objective.lmbda * distortion
    names = list(values)
    probe = probed(visible, state.objective, state.noise)
    inputs = [values[name] for name in names]
    # Without predicted means the image does not depend on the side latents: their probe is 0.
    probes = torch.autograd.grad(probe, inputs, retain_graph=True, materialize_grads=True)
    gradients = torch.autograd.grad(cost.sum(), inputs)
    return (
        Evaluation(bpp, distortion, cost, coded),
        dict(zip(names, gradients, strict=True)),
        {name: probe.square() for name, probe in zip(names, probes, strict=True)},
    )


def _predict(state: Search, coded: Coded, gradient: Tensor, curvature: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted change of cost of each element's better flip, and that flip (±1)."""
    pixels = state.objective.pixels
    residual = coded.residual.detach()
    with torch.enable_grad():
        own = residual.clone().requires_grad_()
        (own_slope,) = torch.autograd.grad(coded.bits_of(own).sum(), own)
    others = gradient - own_slope / pixels  # the element's own rate is priced exactly instead
    with torch.no_grad():
        now = coded.bits_of(residual)
        up = (coded.bits_of(residual + 1) - now) / pixels + others + 0.5 * curvature
        down = (coded.bits_of(residual - 1) - now) / pixels - others + 0.5 * curvature
    return torch.minimum(up, down), torch.where(up < down, 1.0, -1.0)


def _most_promising(change: Tensor, delta: Tensor, share: Tensor) -> Tensor:
    """``delta`` where the predicted change is among the best ``share`` (B,) of the negative ones, else 0."""
    flips = torch.zeros_like(delta)
    for index in range(change.shape[0]):
        gains = change[index].flatten()
        promising = int((gains < 0).sum())
        if promising == 0:
            continue
        count = max(1, int(float(share[index]) * promising))
        chosen = torch.topk(gains, count, largest=False).indices
        flat = torch.zeros_like(gains)
        flat[chosen] = delta[index].flatten()[chosen]
        flips[index] = flat.reshape(delta[index].shape)
    return flips
