"""One optimisation step: forward, backward, clipping, Adam, moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from lof.codecs.training import Task
from lof.training.recipe import Recipe, Rung, Schedule

Wrap = Callable[[nn.Module], nn.Module]


class Stepper:
    """A network in training.

    ``sums`` holds, since the last :meth:`flush`: loss, bpp, distortion, gradient norm.

    Args:
        wrap: puts the loss module into a data-parallel one.
        plain: contiguous tensors and Adam's loop over the parameters, as textbook code has them; for
            comparison.
    """

    def __init__(
        self, task: Task, recipe: Recipe, rung: Rung, *, wrap: Wrap | None = None, plain: bool = False
    ) -> None:
        self.layout = torch.contiguous_format if plain else torch.channels_last
        self.network = cast(Any, task.network.train()).to(memory_format=self.layout)
        self.recipe, self.rung, self.groups = recipe, rung, task.groups
        self.model: Callable[[Tensor], Any] = wrap(task.loss) if wrap else task.loss
        device = next(self.network.parameters()).device
        self.captured = recipe.compile and device.type == "cuda"
        if self.captured:
            self.model = torch.compile(self.model, mode="reduce-overhead")
        self.clipped = [p for group in self.groups if group.fixed is None for p in group.parameters]
        self.optimiser = torch.optim.Adam(
            [
                {"params": list(group.parameters), "lr": group.fixed or rung.learning_rate}
                for group in self.groups
            ],
            betas=recipe.betas,
            fused=not plain,
            foreach=False if plain else None,
        )
        # Not torch's AveragedModel: it copies the whole network, with the layers that the task has replaced, and
        # its first update copies the weights over the average.
        self.averaged = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        self.ema = {name: p.detach().clone() for name, p in self.averaged.items()}
        self.step = 0
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)
        self.steps_summed = 0
        self.bad_step = torch.zeros((), dtype=torch.int64, device=device)

    def advance(self, batch: Tensor) -> None:
        """One step on a batch of the task's source.

        Nothing waits for the device.
        """
        rate = learning_rate(self.recipe.schedule, self.rung, self.step)
        for group, settings in zip(self.groups, self.optimiser.param_groups, strict=True):
            settings["lr"] = group.fixed or group.factor * rate
        if self.captured:
            torch.compiler.cudagraph_mark_step_begin()
        objective, *measured = self.model(batch.contiguous(memory_format=self.layout))
        self.optimiser.zero_grad(set_to_none=True)
        objective.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.clipped, self.recipe.clip)
        self.optimiser.step()
        self._average()
        self.step += 1
        now = torch.stack([*measured, norm]).double()
        self.sums += now
        self.steps_summed += 1
        newly_bad = (self.bad_step == 0) & ~now.isfinite().all()
        self.bad_step = torch.where(newly_bad, self.step, self.bad_step)

    def means(self) -> list[float]:
        """Loss, bpp, distortion and gradient norm, averaged since the last :meth:`flush`."""
        return cast(list[float], (self.sums / max(1, self.steps_summed)).tolist())

    def flush(self) -> None:
        """Start the sums anew."""
        self.sums.zero_()
        self.steps_summed = 0

    @torch.no_grad()
    def _average(self) -> None:
        # Early on the average follows fast, or it would remember the start for 1 / (1 - decay) steps.
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.ema.values()), list(self.averaged.values()), 1 - decay)


def learning_rate(schedule: Schedule, rung: Rung, step: int) -> float:
    """Learning rate of the step after ``step`` steps: warm-up, plateau, cosine decay, by the rung's schedule if any."""
    schedule = rung.schedule or schedule
    warm = min(1.0, (step + 1) / max(1, schedule.warmup))
    past = max(0.0, (step / rung.steps - schedule.hold) / (1 - schedule.hold))
    decay = schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * past))
    return rung.learning_rate * warm * decay
