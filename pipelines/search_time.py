"""How long a search of one picture takes and where the time goes, and how long its file takes to decode.

    python -m pipelines.search_time KODAK/kodim03.png --profile fast --threads 2

Nothing else should run beside it. The parts are by Python's profiler, in a search of its own; profiles of mean-field
stages have them.
"""

from __future__ import annotations

import cProfile
import inspect
import pstats
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer

from lof.codecs import DEFAULT_CODEC, load_codec, tensor_of
from lof.pictures.reading import read_picture
from lof.profiles import load_profile
from lof.search import search
from lof.search.expected import Point, Walk
from lof.search.state import Search
from pipelines.command import CodecName, DeviceName, Precision, ProfileName, Threads, run

PARTS: Final[dict[str, Callable[..., object]]] = {
    "walks of the probability model, with gradients": Walk.at,
    "walks for new predictions alone": Walk.onwards,
    "the synthesis, with gradients": Point.measured,
    "where the expected cost falls": Walk.moves,
    "checks of the true cost": Search.hard,
}
ROUNDS: Final = 3


def main(
    picture: Annotated[Path, typer.Argument(help="An image.")],
    *,
    codec: CodecName = DEFAULT_CODEC,
    quality: Annotated[float | None, typer.Option(help="Of the codec.")] = None,
    profile: ProfileName = "fast",
    device: DeviceName = "auto",
    precision: Precision = "auto",
    threads: Threads = 2,
) -> None:
    """Print the seconds of a search, of its parts and of decoding; the best of three rounds."""
    torch.set_num_threads(threads)
    loaded, plan = load_codec(codec, quality, device=device, precision=precision), load_profile(profile)
    image = tensor_of(read_picture(picture))
    height, width = image.shape[-2:]

    def searched() -> None:
        search(loaded, image, plan, lmbda=loaded.lmbda)

    strings = loaded.compress(loaded.symbols(loaded.analyse(loaded.pad(image))))
    print(f"{codec} quality {loaded.quality:g}, {width}×{height}, {loaded.device}, {threads} CPU threads")
    print(f"decoding {_best(lambda: loaded.decompress(strings, height, width)):.2f} s")
    print(f"{plan.name} {_best(searched):.1f} s, of which")
    profiler = cProfile.Profile()
    profiler.runcall(searched)
    stats = pstats.Stats(profiler)
    for what, part in PARTS.items():
        print(f"{100 * _seconds(stats, part) / _seconds(stats, search):5.0f} % {what}")


def _seconds(stats: Any, part: Callable[..., object]) -> float:
    """Those of a function, with all that it calls."""
    code = inspect.unwrap(part).__code__  # type: ignore[attr-defined]
    key = (code.co_filename, code.co_firstlineno, code.co_name)
    return float(stats.stats[key][3]) if key in stats.stats else 0.0


def _best(work: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return min(took)


if __name__ == "__main__":
    run(main)
