"""What the tests of jobs share: pictures, quick and slow searches, looks at what was made, a killer of workers."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import lof
from lof.files.inputs import Source, find
from lof.jobs import Advanced, Event, JobSettings, Started, run_job
from lof.profiles import Profile, parse_profile


def profile(evaluations: int) -> Profile:
    return parse_profile({"name": "short", "stage": [{"kind": "relax", "evaluations": evaluations}]})


QUICK = JobSettings("lapped-tiny", profile(2))
SLOW = JobSettings("lapped-tiny", profile(50))  # long enough for a kill in its middle


def save(path: Path, seed: int = 0, size: tuple[int, int] = (96, 80), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def streams(out: Path) -> dict[str, str]:
    return {name: digest for name, digest in hashes(out).items() if name.endswith(".lof")}


def temporaries(folder: Path) -> list[Path]:
    return list(folder.rglob(".*.tmp"))


def run(folder: Path, settings: JobSettings = QUICK, **options: Any) -> tuple[lof.jobs.Summary, list[Event]]:
    events: list[Event] = []
    sources = find([str(folder / "in")]).sources
    summary = run_job(sources, folder / "out", settings, on_event=events.append, **options)
    return summary, events


def started(events: Sequence[Event]) -> list[str]:
    return [str(event.item.relative) for event in events if isinstance(event, Started)]


class Killer:
    """Kills the worker that has ``victim`` in hand, in the middle of its search, up to ``most`` times."""

    def __init__(self, victim: str, most: int) -> None:
        self.victim, self.most = victim, most
        self.pids: dict[Source, int] = {}
        self.events: list[Event] = []
        self.killed: list[int] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Started):
            self.pids[event.item] = int(event.worker.split()[-1])
        elif isinstance(event, Advanced) and str(event.item.relative) == self.victim:
            pid = self.pids[event.item]
            if len(self.killed) < self.most and pid not in self.killed:
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)
