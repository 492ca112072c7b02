"""The state of one search: what stages read and move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lof.codecs import Latents, Quantize, symbols_of
from lof.results import TracePoint
from lof.search.objective import Evaluation, Objective
from lof.search.relaxations import NoiseSource


@dataclass(frozen=True)
class Progress:
    """Where a search is: reported after every gradient evaluation.

    Attributes:
        stage, stages: the one at hand, from 1, and how many there are.
        evaluations, budget: gradient evaluations done and planned, over all windows.
        gain: each image's relative change of cost so far (-0.1 is 10 % lower), in the window at hand.
        window, windows: the one at hand, from 1, and how many there are.
    """

    stage: int
    stages: int
    evaluations: int
    budget: int
    gain: list[float]
    window: int = 1
    windows: int = 1


@dataclass
class Sensitivity:
    """How sensitive the cost of a batch is, as :mod:`lof.search.sensitivity` has measured it once; empty before.

    A search that goes on where another one stopped is given what that one knew.

    Attributes:
        lmbda: λ of that measurement.
        curvature: of λ times the distortion, by synthesised latent tensor, (B, C, h, w).
        natural: :func:`lof.search.sensitivity.natural_steps`, by latent tensor.
    """

    lmbda: float = 0.0
    curvature: Latents = field(default_factory=dict)
    natural: Latents = field(default_factory=dict)


class Search:
    """State of one search over a batch; what stages read and move.

    Attributes:
        sensitivity: filled by the first stage that needs it.
        latents: where the stage at hand started or the last one stopped, unrounded, (B, C, h, w) float32 by name.
        best: latents that gave each image's best true cost.
        best_cost: (B,) float32.
    """

    def __init__(
        self,
        objective: Objective,
        latents: Latents,
        budget: int,
        seeds: list[int],
        on_progress: Callable[[Progress], None] | None,
        sensitivity: Sensitivity | None = None,
    ) -> None:
        self.objective, self.codec, self.budget = objective, objective.codec, budget
        self.sensitivity = sensitivity or Sensitivity()
        self.noise = NoiseSource(seeds, self.codec.device)
        self.latents = {name: tensor.detach().clone() for name, tensor in latents.items()}
        self.evaluations = 0
        self.stage, self.stages, self.stage_name = 0, 0, "plain"
        self._on_progress = on_progress
        self.traces: list[list[TracePoint]] = [[] for _ in range(objective.batch)]
        start = self.hard(self.latents)
        self.start_cost = start.cost
        self.best_cost = torch.full_like(start.cost, torch.inf)
        self.best = {name: tensor.clone() for name, tensor in self.latents.items()}
        self.offer(self.latents, start)

    def relaxed(self, latents: Mapping[str, Tensor], quantize: Quantize) -> Evaluation:
        """A differentiable evaluation; counts as one gradient evaluation."""
        self.evaluations += 1
        return self.objective.evaluate(self.codec.code(latents, quantize))

    def hard(self, latents: Mapping[str, Tensor]) -> Evaluation:
        """The true cost under hard rounding, without gradients; about a third of a gradient evaluation.

        Where the bits of the elements do not add up to the strings' length, the strings are written and decoded:
        ``bits_of`` shows the way, and what was gained on it alone never counts.
        """
        with torch.no_grad():
            exact = not self.codec.exact_bits
            evaluation = self.objective.evaluate(self.codec.code(latents, self.codec.rounded), exact=exact)
            if not exact:
                return evaluation
            return self.objective.at_rate(evaluation, self.codec.rate(symbols_of(evaluation.coded)))

    def offer(self, latents: Mapping[str, Tensor], evaluation: Evaluation) -> Tensor:
        """Keep ``latents`` for those images whose true cost they lower; returns which, (B,) bool."""
        cost = evaluation.cost.detach()
        better = cost < self.best_cost
        if bool(better.any()):
            self.best_cost = torch.where(better, cost, self.best_cost)
            for name in self.best:
                self.best[name] = choose(better, latents[name].detach(), self.best[name])
        for index in torch.nonzero(better).flatten().tolist():
            self.traces[index].append(
                TracePoint(
                    self.evaluations,
                    self.stage_name,
                    float(cost[index]),
                    float(evaluation.bpp[index]),
                    float(evaluation.distortion[index]),
                )
            )
        return better

    def report(self) -> None:
        """Tell the caller how far the search is."""
        if self._on_progress is not None:
            gain = (self.best_cost / self.start_cost - 1).tolist()
            self._on_progress(Progress(self.stage, self.stages, self.evaluations, self.budget, gain))


def choose(which: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Per image: ``yes`` where ``which`` (B,) holds, else ``no``; both (B, ...)."""
    return torch.where(which.reshape(-1, *[1] * (yes.dim() - 1)), yes, no)
