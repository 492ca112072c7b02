"""The same study with its trials on the workers of a Ray cluster, through Ray Tune and its ``OptunaSearch``.

Only the driver touches the storage; workers get the images with their first trial and keep them and the codecs
in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from lof.errors import LofError, StudyError
from lof.pools.cluster import connected, require_ray
from lof.profiles import Profile, parse_profile
from lof.study.events import Began, Ended, Joined, OnEvent, Stepped
from lof.study.measure import Bench, Figures, Measurement, read_images
from lof.study.run import Summary, summarise
from lof.study.schema import Study
from lof.study.shared import SharedStudy
from lof.study.storage import hide_password, open_storage, storage_errors

if TYPE_CHECKING:
    from optuna.trial import Trial

GAIN, STEP, RUNNING, FIGURES, PROBLEM = "gain", "step", "running", "figures", "problem"
_MOST_FAILURES = 5  # in a row, before the run is given up


def run_study_on_ray(
    study: Study,
    address: str = "local",
    *,
    workers: int = 2,
    threads: int = 1,
    num_gpus: float = 0,
    trials: int | None = None,
    timeout: float | None = None,
    images: Sequence[str] = (),
    device: str = "auto",
    on_event: OnEvent = lambda event: None,
) -> Summary:
    """:func:`lof.study.run_study` with ``workers`` trials at a time.

    Args:
        address: ``local``, ``auto`` or ``HOST:PORT``, see :func:`lof.pools.cluster.connected`.
        threads: of PyTorch in each worker, and cores that it takes.
        num_gpus: of each worker; 0.5 shares one between two.
        timeout: seconds after which nothing runs any more; what was in hand is tried again by the next call.

    Raises:
        UsageError: Ray is not installed, or the address is none.
        WorkerError: no Ray answers there.
        StudyError: as for :func:`lof.study.run_study`, and if a trial fails on every worker.
        LofError: images or codecs cannot be had, or a search cannot run.
    """
    require_ray(address)
    limit = study.trials if trials is None else trials
    batches = read_images(study, images)
    # The driver measures nothing; its bench says what the trials will be measured with.
    bench = Bench(study, batches, "cpu")
    url = study.storage or "sqlite:///study.db"
    storage = open_storage(url)
    with storage_errors(url):
        shared = SharedStudy(study, storage, bench.identity())
        on_event(Joined(shared.finished(), limit, hide_password(url), shared.retired))
        if shared.finished() + shared.running() < limit:
            with _quiet(), connected(address, workers, threads) as ray:
                payload = ray.put((study, batches, device, threads))
                keeper = Keeper(shared, limit, bench.steps, on_event)
                from lof.study.tuning import tune_study

                resources = {"CPU": threads, "GPU": num_gpus}
                try:
                    tune_study(keeper, partial(_trial, payload=[payload]), workers, resources, timeout)
                finally:
                    keeper.give_back()
                if keeper.problem is not None:
                    raise keeper.problem
        return summarise(shared, limit)


class Keeper:
    """What the driver does with the workers' results, whatever Tune calls it from."""

    def __init__(self, shared: SharedStudy, limit: int, steps: int, on_event: OnEvent) -> None:
        self.shared, self.limit, self.steps, self.on_event = shared, limit, steps, on_event
        self.trials: dict[str, tuple[Trial, Profile]] = {}
        self.running: dict[str, list[float]] = {}
        self.stopped: set[str] = set()
        self.failures = 0  # in a row
        self.problem: LofError | None = None

    @property
    def is_over(self) -> bool:
        """Whether no more trials are wanted."""
        self.shared.retire_abandoned()
        return self.problem is not None or self.shared.finished() + self.shared.running() >= self.limit

    def begin(self, key: str, trial: Trial, profile: Profile) -> None:
        """A trial has been handed out."""
        self.trials[key] = trial, profile
        self.on_event(Began(trial.number, profile))

    def step(self, key: str, result: dict[str, Any]) -> bool:
        """Take what a worker reported; whether the trial is to stop."""
        if STEP not in result:
            return False
        trial, profile = self.trials[key]
        step, gain = result[STEP], result[GAIN]
        self.running.setdefault(key, []).append(gain)
        self.on_event(Stepped(trial.number, step, self.steps, gain))
        stop = step < self.steps and self.shared.should_stop(trial, profile, step, gain)
        if stop:
            self.stopped.add(key)
        return stop

    def end(self, key: str, last: dict[str, Any]) -> None:
        """Finish a trial with the last that its worker reported."""
        trial, _ = self.trials.pop(key)
        if FIGURES in last:
            self.failures = 0
            measurement = Measurement(Figures(*last[FIGURES]), last[RUNNING])
            self.on_event(self.shared.tell(trial, measurement))
        elif key in self.stopped:
            self.on_event(self.shared.tell(trial, Measurement(None, self.running[key])))
        else:
            reason = last.get(PROBLEM) or "its worker died, or the time was over"
            self.shared.retry(trial.number)
            self.on_event(Ended(trial.number, None, 0, None, reason=reason))
            self.failures += 1
            if PROBLEM in last or self.failures == _MOST_FAILURES:
                self.problem = StudyError(f"trial {trial.number}: {reason}; correct that, then run it again")

    def give_back(self) -> None:
        """What is still in hand when a run ends is tried again by the next."""
        for trial, _ in self.trials.values():
            self.shared.retry(trial.number)
        self.trials.clear()


_bench: tuple[Any, Bench] | None = None


def _trial(config: dict[str, Any], payload: list[Any]) -> None:
    """Runs in a worker. ``payload`` holds a reference: the images travel once."""
    from ray import tune

    global _bench  # noqa: PLW0603  # the process of a worker serves one study, trial after trial
    (reference,) = payload
    try:
        if _bench is None or _bench[0] != reference:
            import ray
            import torch

            study, images, device, threads = ray.get(reference)
            torch.set_num_threads(threads)
            _bench = reference, Bench(study, images, device)

        def on_step(step: int, gain: float) -> bool:
            tune.report({STEP: step, GAIN: gain})
            return False

        measurement = _bench[1].measure(parse_profile(config["profile"]), on_step)
    except LofError as error:
        tune.report({PROBLEM: str(error)})
        return
    # A list, since Tune flattens tables.
    tune.report({FIGURES: [*vars(measurement.figures).values()], RUNNING: measurement.running})


@contextmanager
def _quiet() -> Iterator[None]:
    """Tune writes no logs of its own, and says nothing about what the study says itself."""
    settings = {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_WARN_THRESHOLD_S": "60",
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
    }
    before = {key: os.environ.get(key) for key in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
