"""Train a codec from a recipe, on one device or on many: ``lof train`` as a job script.

    python pipelines/train.py mean-scale-96 --data PHOTOS -o RUN
    python pipelines/train.py mean-scale-96 --data PHOTOS -o RUN --workers 8
    python pipelines/train.py mean-scale-96 --benchmark --crop 128 --batch 8

The driver runs on this machine; with ``--workers`` it only submits to Ray, and ``RUN`` must be reachable from
every worker. ``--benchmark`` trains nothing: it prints images per second of the recipe's step beside those of
the same loop written plainly.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lof.errors import LofError
from lof.machine.devices import resolve_device
from lof.training import load_recipe, train
from lof.training.distributed import train_distributed
from lof.training.loop import Event, Logged
from lof.training.recipe import Recipe
from lof.training.throughput import compare


def main() -> int:
    """Exit code 0, or that of the error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="name of a shipped recipe, or a TOML file")
    parser.add_argument("-o", "--out", type=Path, default=Path("run"))
    parser.add_argument("--data", nargs="+", type=Path, default=[])
    parser.add_argument("--validation", nargs="+", type=Path, default=[])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--benchmark", action="store_true")
    parser.add_argument("--rounds", type=int, default=5, help="of the benchmark")
    parser.add_argument("--crop", type=int, help="other than the recipe's, for the benchmark")
    parser.add_argument("--batch", type=int, help="other than the recipe's, for the benchmark")
    arguments = parser.parse_args()
    try:
        recipe = load_recipe(arguments.recipe).with_data(arguments.data, arguments.validation)
        if arguments.benchmark:
            _benchmark(recipe, arguments)
        elif arguments.workers > 1:
            use_gpu = resolve_device(arguments.device).type == "cuda"
            train_distributed(recipe, arguments.out, arguments.workers, use_gpu=use_gpu)
        else:
            train(recipe, arguments.out, device=arguments.device, on_event=_print)
    except LofError as error:
        print(f"lof: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _benchmark(recipe: Recipe, arguments: argparse.Namespace) -> None:
    sizes = {key: getattr(arguments, key) for key in ("crop", "batch") if getattr(arguments, key)}
    recipe = recipe.model_copy(update=sizes)
    found = compare(recipe, device=arguments.device, rounds=arguments.rounds)
    print(f"{recipe.name}, batch {recipe.batch}, crops of {recipe.crop}×{recipe.crop}, {found.device}")
    print(f"plain loop (float32, contiguous): {found.plain:8.1f} images/s")
    print(f"lof train ({found.precision}):              {found.fast:8.1f} images/s, {found.gain:.2f} times")
    print(f"                                  {found.fast / recipe.batch:8.2f} steps/s")


def _print(event: Event) -> None:
    if isinstance(event, Logged):
        print(event.record, flush=True)


if __name__ == "__main__":
    sys.exit(main())
