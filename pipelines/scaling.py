"""How ``lof optimize`` scales on this machine: two workers against one, what Ray costs, what a driver holds.

    python -m pipelines.scaling PHOTOS --profile fast

Prints images per minute of one and of two one-thread workers on the same images, in turns, and of two separate
jobs, for comparison; Ray's seconds per image beside those of this process, both with next to no work; and the
driver's peak memory over many tiny images, reports included. A figure over 0 images is left out. Exit code 1 if
a target is missed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lof.files.inputs import Source, find
from lof.jobs import JobSettings
from lof.pictures.batches import spread
from lof.pools import ThisProcess, make_pool
from lof.profiles import load_profile
from pipelines.command import CodecName, ProfileName, run
from pipelines.job_speed import (
    images_per_minute,
    images_per_minute_apart,
    peak_memory_of_driver,
    seconds_per_image,
    tiny_images,
)

SPEEDUP, OVERHEAD, MEMORY = 1.85, 0.050, 1.5e9


def main(
    images: Annotated[list[str] | None, typer.Argument(help="For the first figure.")] = None,
    *,
    codec: CodecName = "mean-scale-96",
    profile: ProfileName = "fast",
    count: Annotated[int, typer.Option(min=1, help="Images of the first figure.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Of the first two figures.")] = 2,
    tiny: Annotated[int, typer.Option(min=0, help="Images of the second figure.")] = 500,
    many: Annotated[int, typer.Option(min=0, help="Images of the third figure.")] = 10_000,
    ray: Annotated[str, typer.Option(help="Cluster of the second and third figure.")] = "local",
    driver: Annotated[tuple[Path, Path] | None, typer.Option(hidden=True)] = None,
) -> None:
    """Exit code 0 if all targets are met, 1 if not, or that of the error."""
    if driver:
        return _driver(*driver, ray)
    with tempfile.TemporaryDirectory() as name:
        folder, settings = Path(name), JobSettings(codec, load_profile(profile), device="cpu")
        met = [
            *([_speedup(spread(find(images).sources, count), rounds, settings, folder)] if images else []),
            *([_overhead(tiny_images(folder / "tiny", tiny), rounds, ray, folder)] if tiny else []),
            *([_memory(many, ray, folder)] if many else []),
        ]
    if not all(met):
        raise typer.Exit(1)


def _speedup(sources: list[Source], rounds: int, settings: JobSettings, folder: Path) -> bool:
    measures = {
        "1 worker": partial(images_per_minute, 1),
        "2 workers": partial(images_per_minute, 2),
        "2 jobs apart": partial(images_per_minute_apart, 2),
    }
    found: dict[str, list[float]] = {name: [] for name in measures}
    print(f"{len(sources)} images, {settings.codec}, profile {settings.profile.name}, one thread per worker")
    for number in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure(sources, folder / f"{name}-{number}", settings))
        rates = ", ".join(f"{name} {rates[-1]:.2f}" for name, rates in found.items())
        print(f"  round {number + 1}: {rates} images/min", flush=True)
    one, two, apart = (statistics.median(rates) for rates in found.values())
    print(
        f"  speed-up: {two / one:.2f} by the medians  (at least {SPEEDUP}; two jobs apart {apart / one:.2f})"
    )
    return two / one >= SPEEDUP


def _overhead(sources: list[Source], rounds: int, ray: str, folder: Path) -> bool:
    found: dict[str, list[float]] = {"here": [], "ray": []}
    for number in range(rounds):
        cluster = make_pool(1, threads=1, ray=ray)
        for name, pool in (("here", ThisProcess()), ("ray", cluster)):
            found[name].append(seconds_per_image(sources, folder / f"{name}-{number}", pool))
    here, there = (statistics.median(seconds) for seconds in found.values())
    print(f"{len(sources)} tiny images, one evaluation each, one worker of one thread")
    print(f"  this process: {1000 * here:8.1f} ms/image")
    print(f"  a Ray worker: {1000 * there:8.1f} ms/image")
    print(f"  overhead:     {1000 * (there - here):8.1f} ms/image  (under {1000 * OVERHEAD:.0f})")
    return there - here < OVERHEAD


def _memory(many: int, ray: str, folder: Path) -> bool:
    images, out = folder / "many", folder / "many-out"
    tiny_images(images, many)
    own = [sys.executable, "-m", "pipelines.scaling", "--ray", ray, "--driver", str(images), str(out)]
    answer = subprocess.run(own, stdout=subprocess.PIPE, check=True, text=True)
    peak = int(answer.stdout.split()[-1])
    print(f"{many} tiny images on Ray, reports included")
    print(f"  peak memory of the driver: {peak / 1e9:.2f} GB  (under {MEMORY / 1e9:g})")
    return peak < MEMORY


def _driver(images: Path, out: Path, ray: str) -> None:
    print(peak_memory_of_driver(find([str(images)]).sources, out, make_pool(ray=ray)))


if __name__ == "__main__":
    run(main)
