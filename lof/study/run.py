"""Runs a study in this process; several processes with the same storage share it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lof.profiles import Profile
from lof.study.events import Began, Joined, OnEvent, Stepped
from lof.study.measure import Bench, read_images
from lof.study.schema import Study
from lof.study.shared import SharedStudy
from lof.study.storage import hide_password, open_storage, storage_errors

if TYPE_CHECKING:
    from optuna.trial import Trial


@dataclass(frozen=True)
class Summary:
    """What a study came to: trials ``finished`` by all processes, ``running`` in others, of ``limit``."""

    finished: int
    running: int
    limit: int
    best: list[int]


def run_study(
    study: Study,
    *,
    trials: int | None = None,
    timeout: float | None = None,
    images: Sequence[str] = (),
    device: str = "auto",
    on_event: OnEvent = lambda event: None,
) -> Summary:
    """Run trials until the study has enough of them.

    Killed at any moment, the same call continues: finished trials stay, what was in hand is tried again. A
    second process with the same call joins in.

    Args:
        trials: finished trials, of all processes and calls together; the study's own number if ``None``.
        timeout: seconds after which no new trial begins.
        images: take the place of the study's.
        device: as for :func:`lof.load_codec`.
        on_event: called in this process and thread.

    Raises:
        StudyError: the storage cannot be used, or holds a study of that name with other settings.
        LofError: images or codecs cannot be had, or a search cannot run.
    """
    started = time.monotonic()
    limit = study.trials if trials is None else trials
    bench = Bench(study, read_images(study, images), device)
    url = study.storage or "sqlite:///study.db"
    storage = open_storage(url)
    with storage_errors(url):
        shared = SharedStudy(study, storage, bench.identity())
        on_event(Joined(shared.finished(), limit, hide_password(url), shared.retired))
        while timeout is None or time.monotonic() - started < timeout:
            asked = shared.ask(limit)
            if asked is None:
                break
            _measure(shared, bench, *asked, on_event)
        return summarise(shared, limit)


def summarise(shared: SharedStudy, limit: int) -> Summary:
    """Where a study stands."""
    best = sorted(trial.number for trial in shared.best())
    return Summary(shared.finished(), shared.running(), limit, best)


def _measure(shared: SharedStudy, bench: Bench, trial: Trial, profile: Profile, on_event: OnEvent) -> None:
    number = trial.number

    def on_step(step: int, gain: float) -> bool:
        on_event(Stepped(number, step, bench.steps, gain))
        return step < bench.steps and shared.should_stop(trial, profile, step, gain)

    on_event(Began(number, profile))
    try:
        with shared.alive(number):
            measurement = bench.measure(profile, on_step)
    except BaseException:  # Ctrl-C too: the point is not lost
        shared.retry(number)
        raise
    on_event(shared.tell(trial, measurement))
