"""How fast a recipe trains here, against the same loop written plainly."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from lof.machine.devices import resolve_device, resolve_precision
from lof.training.data import Pool
from lof.training.recipe import Recipe
from lof.training.step import Stepper


@dataclass(frozen=True)
class Throughput:
    """Images per second of the first rung's step, medians over rounds; data is cut anew for each step."""

    plain: float
    fast: float
    precision: str
    device: str

    @property
    def gain(self) -> float:
        """How many times faster."""
        return self.fast / self.plain


def compare(recipe: Recipe, *, device: str = "auto", rounds: int = 5, steps: int = 2) -> Throughput:
    """Time both loops in turn, round by round, so that other load on the machine meets both.

    The plain loop is float32, contiguous, Adam parameter by parameter, nothing compiled; the other is what
    :func:`lof.training.train` runs. Pictures are noise, which costs the same.

    Args:
        rounds: after one that is not counted.
        steps: per round and loop.
    """
    where = resolve_device(device)
    precision = resolve_precision(recipe.precision, where)
    noise = [
        torch.randint(0, 256, (2 * recipe.crop, 2 * recipe.crop, 3), dtype=torch.uint8, device=where)
        for _ in range(4)
    ]
    pool = Pool(noise, recipe.crop, [])
    plain = _stepper(recipe.model_copy(update={"compile": False}), where, torch.float32, plain=True)
    fast = _stepper(recipe, where, precision, plain=False)
    times: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(rounds + 1):
        for which, stepper in enumerate((plain, fast)):
            took = _time(stepper, pool, recipe.batch, steps, where)
            if turn:
                times[which].append(took)
    rates = [recipe.batch * steps / statistics.median(times[which]) for which in (0, 1)]
    return Throughput(rates[0], rates[1], str(precision).removeprefix("torch."), str(where))


def _stepper(recipe: Recipe, device: torch.device, precision: torch.dtype, *, plain: bool) -> Stepper:
    net = recipe.spec.load_class().network(*recipe.sizes)
    return Stepper(net, recipe, recipe.rung[0], device=device, precision=precision, plain=plain)


def _time(stepper: Stepper, pool: Pool, batch: int, steps: int, device: torch.device) -> float:
    started = time.perf_counter()
    for _ in range(steps):
        stepper.advance(pool.batch(batch, stepper.step))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
