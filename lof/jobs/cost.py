"""What a search costs on this machine: a short calibration, measured once and kept."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from lof.errors import OutputError
from lof.files.atomic import write_atomically
from lof.pictures.reading import read_picture
from lof.pictures.samples import SAMPLES, content
from lof.profiles import MeanFieldStage, Profile

if TYPE_CHECKING:
    from lof.codecs import Codec

SIDE = 256
"""Side of the photograph that is timed, in pixels."""
KEPT = 24 * 3600
"""Seconds after which a measurement is made again: the machine may have been busy."""


@dataclass(frozen=True)
class Cost:
    """Seconds per megapixel on one machine, with one codec and one number of threads.

    Attributes:
        fixed: reading apart, all that every image needs: plain encoding, decoding, measuring.
        evaluation: one gradient evaluation: forward and backward through the synthesis.
        step: one step on the rate between two evaluations.
    """

    fixed: float
    evaluation: float
    step: float

    def seconds(self, profile: Profile, pixels: int) -> float:
        """Estimate for one image; a search that stops early needs less."""
        evaluations = self.evaluation * profile.evaluations
        steps = self.step * sum(stage.rate_steps for stage in profile.stage)
        return (self.fixed + evaluations + steps) * pixels / 1e6


def measured_cost(codec: Codec, threads: int | None = None, cache: Path | None = None) -> Cost:
    """The cost of searches with ``codec`` here, from the cache or measured (some seconds).

    Args:
        threads: CPU threads that a worker will have; those of this process if ``None``.
        cache: folder of what was measured before; the user's cache folder if ``None``.
    """
    path = (cache or platformdirs.user_cache_path("lof")) / f"cost-{_key(codec, threads)}.json"
    try:
        if time.time() - path.stat().st_mtime > KEPT:
            path.unlink()
        return Cost(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        pass
    with _threads(threads):
        cost = _measure(codec)
    with suppress(OutputError):  # without a home to write to, it is measured again next time
        write_atomically(path, json.dumps(asdict(cost)).encode())
    return cost


def _measure(codec: Codec) -> Cost:
    _seconds(codec, evaluations=1, steps=1)  # the first run compiles and allocates
    short = _seconds(codec, evaluations=2, steps=1)
    long = _seconds(codec, evaluations=10, steps=1)
    dense = _seconds(codec, evaluations=10, steps=5)
    both = max(long - short, 1e-9) / 8
    step = min(
        max(dense - long, 1e-9) / 40, both / 2
    )  # whatever a busy machine makes of it, it is the smaller part
    megapixels = SIDE * SIDE / 1e6
    return Cost(
        fixed=max(short - 3 * both, 0.0) / megapixels,
        evaluation=(both - step) / megapixels,
        step=step / megapixels,
    )


def _seconds(codec: Codec, evaluations: int, steps: int) -> float:
    """Seconds of one search, the shorter of two runs."""
    from lof.api import optimize

    stage = MeanFieldStage(kind="mean-field", evaluations=evaluations, steps=steps)
    profile = Profile(name="calibration", stage=(stage,))
    pixels = read_picture(SAMPLES[0].name, content(SAMPLES[0])).pixels[:SIDE, :SIDE]
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        optimize(pixels, codec=codec, profile=profile)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _key(codec: Codec, threads: int | None) -> str:
    import torch

    from lof import __version__

    device = torch.cuda.get_device_name(codec.device) if codec.device.type == "cuda" else platform.processor()
    content = [
        __version__,
        torch.__version__,
        platform.node(),
        device,
        threads or torch.get_num_threads(),
        codec.fingerprint.hex(),
        str(codec.precision),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
