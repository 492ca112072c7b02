"""How ``lof optimize`` scales on this machine: two workers against one, what Ray costs, what a driver holds.

    python -m pipelines.scaling PHOTOS --profile fast

Prints images per minute of one and of two one-thread workers on the same images, in turns, and of two separate
jobs, for comparison; Ray's seconds per image beside those of this process, both with next to no work; and the
driver's peak memory over many tiny images, reports included. A figure over 0 images is left out. Exit code 1 if
a target is missed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from lof.errors import LofError
from lof.files.inputs import Source, find
from lof.jobs import JobSettings
from lof.pictures.batches import spread
from lof.pools import ThisProcess, make_pool
from lof.profiles import load_profile
from pipelines.job_speed import (
    images_per_minute,
    images_per_minute_apart,
    peak_memory_of_driver,
    seconds_per_image,
    tiny_images,
)

SPEEDUP, OVERHEAD, MEMORY = 1.85, 0.050, 1.5e9


def main() -> int:
    """Exit code 0 if all targets are met, 1 if not, or that of the error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", help="for the first figure")
    parser.add_argument("--codec", default="mean-scale-96")
    parser.add_argument("--profile", default="fast")
    parser.add_argument("--count", type=int, default=16, help="images of the first figure")
    parser.add_argument("--rounds", type=int, default=2, help="of the first two figures")
    parser.add_argument("--tiny", type=int, default=500, help="images of the second figure")
    parser.add_argument("--many", type=int, default=10_000, help="images of the third figure")
    parser.add_argument("--ray", default="local", help="cluster of the second and third figure")
    parser.add_argument("--driver", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        if arguments.driver:
            return _driver(arguments)
        with tempfile.TemporaryDirectory() as folder:
            met = [
                *([_speedup(arguments, Path(folder))] if arguments.images else []),
                *([_overhead(arguments, Path(folder))] if arguments.tiny else []),
                *([_memory(arguments, Path(folder))] if arguments.many else []),
            ]
    except LofError as error:
        print(f"lof: {error}", file=sys.stderr)
        return error.exit_code
    return 0 if all(met) else 1


def _speedup(arguments: argparse.Namespace, folder: Path) -> bool:
    settings = JobSettings(arguments.codec, load_profile(arguments.profile), device="cpu")
    sources: list[Source] = spread(find(arguments.images).sources, arguments.count)
    measures = {
        "1 worker": partial(images_per_minute, 1),
        "2 workers": partial(images_per_minute, 2),
        "2 jobs apart": partial(images_per_minute_apart, 2),
    }
    found: dict[str, list[float]] = {name: [] for name in measures}
    print(f"{len(sources)} images, {arguments.codec}, profile {arguments.profile}, one thread per worker")
    for number in range(arguments.rounds):
        for name, measure in measures.items():
            found[name].append(measure(sources, folder / f"{name}-{number}", settings))
        rates = ", ".join(f"{name} {rates[-1]:.2f}" for name, rates in found.items())
        print(f"  round {number + 1}: {rates} images/min", flush=True)
    one, two, apart = (statistics.median(rates) for rates in found.values())
    print(
        f"  speed-up: {two / one:.2f} by the medians  (at least {SPEEDUP}; two jobs apart {apart / one:.2f})"
    )
    return two / one >= SPEEDUP


def _overhead(arguments: argparse.Namespace, folder: Path) -> bool:
    sources = tiny_images(folder / "tiny", arguments.tiny)
    found: dict[str, list[float]] = {"here": [], "ray": []}
    for number in range(arguments.rounds):
        ray = make_pool(1, threads=1, ray=arguments.ray)
        for name, pool in (("here", ThisProcess()), ("ray", ray)):
            found[name].append(seconds_per_image(sources, folder / f"{name}-{number}", pool))
    here, there = (statistics.median(seconds) for seconds in found.values())
    print(f"{len(sources)} tiny images, one evaluation each, one worker of one thread")
    print(f"  this process: {1000 * here:8.1f} ms/image")
    print(f"  a Ray worker: {1000 * there:8.1f} ms/image")
    print(f"  overhead:     {1000 * (there - here):8.1f} ms/image  (under {1000 * OVERHEAD:.0f})")
    return there - here < OVERHEAD


def _memory(arguments: argparse.Namespace, folder: Path) -> bool:
    images, out = folder / "many", folder / "many-out"
    tiny_images(images, arguments.many)
    command = [
        sys.executable,
        "-m",
        "pipelines.scaling",
        "--ray",
        arguments.ray,
        "--driver",
        str(images),
        str(out),
    ]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    peak = int(answer.stdout.split()[-1])
    print(f"{arguments.many} tiny images on Ray, reports included")
    print(f"  peak memory of the driver: {peak / 1e9:.2f} GB  (under {MEMORY / 1e9:g})")
    return peak < MEMORY


def _driver(arguments: argparse.Namespace) -> int:
    images, out = map(Path, arguments.driver)
    print(peak_memory_of_driver(find([str(images)]).sources, out, make_pool(ray=arguments.ray)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
