"""How a job scales: what ``pipelines.scaling`` measures. One function per figure, each with real jobs."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lof.files.atomic import write_atomically
from lof.files.inputs import Source, find
from lof.jobs.events import Event, Finished, Started
from lof.jobs.runner import run_job
from lof.jobs.settings import JobSettings
from lof.pictures.picture import Picture
from lof.pictures.writing import png_bytes
from lof.pools import Pool, ThisProcess, make_pool
from lof.profiles import parse_profile
from lof.report import write_reports

TRIVIAL = JobSettings(
    "tiny", parse_profile({"name": "trivial", "stage": [{"kind": "relax", "evaluations": 1}]}), device="cpu"
)
"""Next to no work, so that what is left is overhead."""


class Clock:
    """Takes a job's events; times the work without the start of the workers."""

    def __init__(self) -> None:
        self.begun: float | None = None
        self.ended, self.count = 0.0, 0

    def __call__(self, event: Event) -> None:
        now = time.perf_counter()
        if isinstance(event, Started) and self.begun is None:
            self.begun = now
        elif isinstance(event, Finished):
            self.ended, self.count = now, self.count + 1

    @property
    def seconds(self) -> float:
        """From the first image begun to the last one ended."""
        return self.ended - (self.begun or 0.0)


def tiny_images(folder: Path, count: int, side: int = 32) -> list[Source]:
    """``count`` smooth PNGs of ``side``×``side`` pixels, all different."""
    generator = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(generator.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        pixels = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))
        write_atomically(folder / f"{number:06}.png", png_bytes(Picture(pixels)))
    return find([str(folder)]).sources


def images_per_minute(
    workers: int, sources: Sequence[Source], out: Path, settings: JobSettings, *, ray: str | None = None
) -> float:
    """With one-thread workers, into a new folder."""
    clock = Clock()
    run_job(sources, out, settings, pool=make_pool(workers, threads=1, ray=ray), on_event=clock)
    return 60 * clock.count / clock.seconds


def images_per_minute_apart(jobs: int, sources: Sequence[Source], out: Path, settings: JobSettings) -> float:
    """The same work as ``jobs`` jobs of one worker that know nothing of each other, timed as theirs are:
    from the first image begun to the last one ended."""
    clocks = [Clock() for _ in range(jobs)]

    def run(number: int) -> None:
        pool = make_pool(1, threads=1)
        run_job(sources[number::jobs], out / str(number), settings, pool=pool, on_event=clocks[number])

    with ThreadPoolExecutor(jobs) as executor:
        for _ in executor.map(run, range(jobs)):
            pass
    begun, ended = min(clock.begun or 0.0 for clock in clocks), max(clock.ended for clock in clocks)
    return 60 * sum(clock.count for clock in clocks) / (ended - begun)


def seconds_per_image(sources: Sequence[Source], out: Path, pool: Pool) -> float:
    """Of :data:`TRIVIAL` work, into a new folder; in this process with one thread."""
    threads = torch.get_num_threads()
    clock = Clock()
    if isinstance(pool, ThisProcess):
        torch.set_num_threads(1)
    try:
        run_job(sources, out, TRIVIAL, pool=pool, on_event=clock)
    finally:
        torch.set_num_threads(threads)
    return clock.seconds / clock.count


def peak_memory_of_driver(sources: Sequence[Source], out: Path, pool: Pool) -> int:
    """Peak resident bytes of this process after a job of :data:`TRIVIAL` work with its reports.

    The peak is the process's own since it started: call it in a fresh one.
    """
    summary = run_job(sources, out, TRIVIAL, pool=pool)
    write_reports(summary.records, out, title="scaling", crops=lambda record: None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
