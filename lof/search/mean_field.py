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
and h, while the rate, which is cheap and far from quadratic, is followed exactly (:mod:`lof.search.expected`).

The cost has a kink at every whole residual, where most elements have their minimum. A gradient method swings about it
by the length of its steps, and a little beside 0 an unlikely neighbour costs bits, in each of the many elements that
should be 0. So no step crosses a whole residual: it ends there, and an element rests while both directions cost more.

How long a step may be differs between codecs by orders of magnitude. Three things keep it right on one that nobody
tuned for. No step is longer than a few of the channel's *natural steps*, over which the cost changes by half a bit
for each element (:mod:`lof.search.sensitivity`). Each new evaluation measures the expected cost where the model only
foresaw it: an image whose cost has risen goes back to its best point and on with steps half as long. And one whose true
cost has not fallen after half of the stage starts again, with its other latents rounded and at rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lof.codecs import Latents
from lof.profiles import MeanFieldStage
from lof.search.expected import Move, Point, Walk, Weights
from lof.search.schedules import value_at
from lof.search.sensitivity import distortion_curvature, measured
from lof.search.state import Search, choose

_SMALL = 3e-4  # bits; gradients below it are nothing to go by


class _Adam:
    """Adam (Kingma & Ba 2015) with a longest step for each channel and a pace for each image.

    Gradients are in bits, so that what counts as small does not depend on the image's size.
    """

    def __init__(self, betas: tuple[float, float], longest: Latents) -> None:
        self.betas, self.longest, self.steps = betas, longest, 0
        self.mean: Latents = {}
        self.square: Latents = {}

    @torch.no_grad()
    def step(self, latents: Latents, moves: Mapping[str, Move], pace: Tensor) -> None:
        """Move ``latents`` in place, each image by its share ``pace``, (B,), of the longest steps.

        What has no gradient stays where it is, whatever its momentum; what reaches the end of its move stops there.
        """
        self.steps += 1
        slow, fast = self.betas
        for name, move in moves.items():
            tensor = latents[name]
            mean = self.mean.setdefault(name, torch.zeros_like(tensor))
            square = self.square.setdefault(name, torch.zeros_like(tensor))
            mean.mul_(slow).add_(move.gradient, alpha=1 - slow)
            square.mul_(fast).addcmul_(move.gradient, move.gradient, value=1 - fast)
            size = (square / (1 - fast**self.steps)).sqrt_().add_(_SMALL)
            length = pace.reshape(-1, 1, 1, 1) * self.longest[name] / (1 - slow**self.steps)
            by = mean * -length / size
            if move.lowest is not None and move.highest is not None:
                mean.mul_((by > move.lowest) & (by < move.highest))
                by = torch.minimum(torch.maximum(by, move.lowest), move.highest)
            tensor.add_(by)

    def forget(self, which: Tensor) -> None:
        """Lose the momentum of the images that ``which``, (B,), names."""
        self.mean = {name: choose(which, torch.zeros_like(mean), mean) for name, mean in self.mean.items()}

    def rest(self, which: Tensor, names: Sequence[str]) -> None:
        """Move these latents of the images that ``which``, (B,), names no more."""
        for name in names:
            self.longest[name] = choose(which, torch.zeros_like(self.longest[name]), self.longest[name])


def run_mean_field(state: Search, stage: MeanFieldStage) -> None:
    """Adam on the expected cost, from the best latents so far; several steps per gradient evaluation."""
    latents = _contracted(state, stage.fraction)
    sensitivity = measured(state, latents, stage.side.start)
    curvature = sensitivity.curvature
    start_cost = state.best_cost
    adam = _Adam(stage.betas, _longest_steps(stage, sensitivity.natural))
    pace = torch.ones_like(state.best_cost)
    best: Point | None = None
    restarted = torch.zeros_like(pace, dtype=torch.bool)
    stale = 0
    for evaluation in range(stage.evaluations):
        if evaluation and evaluation % stage.curvature_every == 0:
            curvature = distortion_curvature(state, latents)
        weights = _weights(stage, evaluation * stage.steps)
        walk = Walk.at(state, latents, weights)
        point = Point.measured(state, walk, curvature)
        if best is not None:
            now, before = (p.cost(weights.variance) for p in (point, best))
            before = torch.where(restarted, torch.inf, before)
            rose = now > before * (1 + stage.tolerance)
            pace = torch.where(rose, pace / 2, (pace * 1.5).clamp_max(1))
            if bool(rose.any()):
                point = best.where(rose, point)
                walk = Walk.at(state, point.latents, weights)
                # The best point may be of a time when its side latents were softer, and so cheaper than now.
                point = point.priced(walk)
                adam.forget(rose)
            best = point.where(rose | (now <= before), best)
        else:
            best = point
        latents = _descend(state, stage, point, walk, evaluation, adam, pace)
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
    state.latents = latents


def _descend(
    state: Search, stage: MeanFieldStage, point: Point, walk: Walk, evaluation: int, adam: _Adam, pace: Tensor
) -> Latents:
    """The steps that one gradient evaluation serves, from ``point``, where ``walk`` was."""
    latents = {name: tensor.clone() for name, tensor in point.latents.items()}
    for count in range(stage.steps):
        step = evaluation * stage.steps + count
        weights, moved = _weights(stage, step), count % stage.walk_every > 0
        if count and not moved:
            near = stage.walk_every > 1 and walk.settled(state, weights)
            walk = (walk.onwards if near else Walk.at)(state, latents, weights)
        moves = walk.moves(point, latents, weights.variance, moved=moved)
        adam.step(latents, moves, pace * value_at(stage.decay, _progress(stage, step)))
    return latents


def _progress(stage: MeanFieldStage, step: int) -> float:
    return step / max(1, stage.evaluations * stage.steps - 1)


def _weights(stage: MeanFieldStage, step: int) -> Weights:
    progress = _progress(stage, step)
    side = value_at(stage.side, progress) if progress < stage.side_until else None
    return Weights(value_at(stage.variance, progress), side)


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
        name: (coded[name].value if rest or name in seen else tensor).clone()
        for name, tensor in state.best.items()
    }


def _longest_steps(stage: MeanFieldStage, natural: Latents) -> Latents:
    """The longest step of each channel in each image, in steps of the quantiser: (B, C, 1, 1) by name."""
    rates = {name: stage.learning_rate_of.get(name, stage.learning_rate) for name in natural}
    return {name: (stage.longest * step).clamp_max(rates[name]) for name, step in natural.items()}
