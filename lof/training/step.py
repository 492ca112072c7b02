"""One optimisation step: forward, backward, clipping, Adam, moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from lof.training.cpu import speed_up
from lof.training.frozen import LatentRate
from lof.training.loss import RateDistortion, quantiles, weights
from lof.training.recipe import Recipe, Rung, Schedule

Wrap = Callable[[nn.Module], nn.Module]


class Stepper:
    """A network in training at one rate point.

    The network is moved to ``device`` and its entropy models are taken over (see :class:`RateDistortion`).
    ``sums`` holds, since the last :meth:`flush`: loss, bpp, distortion, gradient norm.

    Args:
        wrap: puts the loss module into a data-parallel one.
        plain: contiguous tensors and Adam's loop over the parameters, as textbook code has them; for
            comparison.
    """

    def __init__(
        self,
        net: nn.Module,
        recipe: Recipe,
        rung: Rung,
        *,
        device: torch.device,
        precision: torch.dtype,
        wrap: Wrap | None = None,
        plain: bool = False,
    ) -> None:
        layout = torch.contiguous_format if plain else torch.channels_last
        self.net = cast(Any, net.to(device).train()).to(memory_format=layout)
        self.recipe, self.rung, self.layout = recipe, rung, layout
        if device.type == "cpu" and precision != torch.float32 and not plain:
            speed_up(self.net, precision)
        loss: nn.Module = (
            LatentRate(self.net, precision=precision)
            if recipe.frozen
            else RateDistortion(self.net, lmbda=rung.lmbda, metric=recipe.metric, precision=precision)
        )
        self.model: Callable[[Tensor], Any] = wrap(loss) if wrap else loss
        self.captured = recipe.compile and device.type == "cuda"
        if self.captured:
            self.model = torch.compile(self.model, mode="reduce-overhead")
        self.weights = weights(self.net)
        groups: list[dict[str, Any]] = [
            {"params": self.weights},
            {"params": list(quantiles(self.net)), "lr": recipe.quantiles_learning_rate},
        ]
        self.optimiser = torch.optim.Adam(
            groups,
            lr=rung.learning_rate,
            fused=not plain,
            foreach=False if plain else None,
        )
        self.averaged = {name: p for name, p in self.net.named_parameters() if p.requires_grad}
        self.ema = {name: p.detach().clone() for name, p in self.averaged.items()}
        self.step = 0
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)
        self.steps_summed = 0
        self.bad_step = torch.zeros((), dtype=torch.int64, device=device)

    def advance(self, images: Tensor) -> None:
        """One step on a batch of images, (B, 3, H, W) float32 in [0, 1], or of latents where transforms are frozen.

        Nothing waits for the device.
        """
        rate = learning_rate(self.recipe.schedule, self.rung, self.step)
        self.optimiser.param_groups[0]["lr"] = rate
        if self.captured:
            torch.compiler.cudagraph_mark_step_begin()
        objective, *measured = self.model(images.contiguous(memory_format=self.layout))
        self.optimiser.zero_grad(set_to_none=True)
        objective.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.weights, self.recipe.clip)
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
    """Of the step after ``step`` steps: warm-up, plateau, cosine decay."""
    warm = min(1.0, (step + 1) / max(1, schedule.warmup))
    past = max(0.0, (step / rung.steps - schedule.hold) / (1 - schedule.hold))
    decay = schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * past))
    return rung.learning_rate * warm * decay
