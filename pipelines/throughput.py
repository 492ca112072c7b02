"""How fast a recipe trains here, against the same loop written plainly.

python -m pipelines.throughput mean-scale-96 --crop 128 --batch 8
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Annotated

import torch
import typer

from lof.codecs import trainable
from lof.machine.devices import resolve_device
from lof.training.data import Pool
from lof.training.recipe import Recipe, load_recipe
from lof.training.step import Stepper
from pipelines.command import DeviceName, run


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
    precision = recipe.precision_on(where)
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
    family, rung = trainable(recipe.codec), recipe.rung[0]
    task = family.task(family.build(recipe.network).to(device), recipe.aim(rung, precision))
    return Stepper(task, recipe, rung, plain=plain)


def _time(stepper: Stepper, pool: Pool, batch: int, steps: int, device: torch.device) -> float:
    started = time.perf_counter()
    for _ in range(steps):
        stepper.advance(pool.batch(batch, stepper.step))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def main(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe, or a TOML file.")],
    crop: Annotated[int | None, typer.Option(min=64, help="Side of a crop, if not the recipe's.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Crops in a step, if not the recipe's.")] = None,
    device: DeviceName = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Of both loops, in turn.")] = 5,
) -> None:
    """Print images per second of both loops."""
    sizes = {key: size for key, size in (("crop", crop), ("batch", batch)) if size}
    chosen = load_recipe(recipe).model_copy(update=sizes)
    found = compare(chosen, device=device, rounds=rounds)
    print(f"{chosen.name}, batch {chosen.batch}, crops of {chosen.crop}×{chosen.crop}, {found.device}")
    print(f"plain loop (float32, contiguous): {found.plain:8.1f} images/s")
    print(f"{f'lof train ({found.precision}):':33} {found.fast:8.1f} images/s, {found.gain:.2f} times")
    print(f"{'':33} {found.fast / chosen.batch:8.2f} steps/s")


if __name__ == "__main__":
    run(main)
