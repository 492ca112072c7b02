"""Runs a study with the workers of a pool; several commands with the same storage share it.

Each item of the pool is one trial of ``Study.optimize``, measured by a worker that asks the storage for it. So a trial
whose worker is gone is noticed, by Optuna's heartbeats, by whatever worker asks next, and is handed out again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lof import pools
from lof.errors import LofError, ProfileError, StudyError, WorkerError, require
from lof.pictures.batches import Image
from lof.profiles import Profile
from lof.study.events import Advanced, Finished, OnEvent, Opened, Started
from lof.study.measure import Bench, Figures, read_images
from lof.study.schema import Range, Study
from lof.study.space import profile_at, suggest
from lof.study.status import Status, status_of
from lof.study.storage import hide_password, open_storage, storage_errors
from lof.study.stored import (
    FIGURES,
    PROFILE,
    REASON,
    RUNNING,
    best_trials,
    create_or_load,
    finished,
    load_stored,
    pruner_of,
    sampler_of,
)

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial


def run_study(
    study: Study,
    *,
    pool: pools.Pool | None = None,
    trials: int | None = None,
    timeout: float | None = None,
    images: Sequence[str] = (),
    device: str = "auto",
    on_event: OnEvent = lambda event: None,
) -> Status:
    """Run trials until the study has enough of them.

    Killed at any moment, the same call continues: finished trials stay, what was in hand is tried again once
    its process has been silent for two minutes. A second process with the same call joins in.

    Args:
        pool: whose workers measure a trial each, see :func:`lof.pools.make_pool`; this process if ``None``.
            Workers open the study's storage themselves: on several machines that is a database server.
        trials: finished trials, of all processes and calls together; the study's own number if ``None``.
        timeout: seconds after which no new trial begins.
        images: take the place of the study's.
        device: as for :func:`lof.load_codec`.
        on_event: called in this process and thread.

    Returns:
        Where the study stands.

    Raises:
        MissingExtraError: Optuna is not installed.
        StudyError: the storage cannot be used, or holds a study of that name with other settings; or not one
            trial has succeeded.
        LofError: images or codecs cannot be had, or a search cannot run.
    """
    require("optuna", "study", "a study")
    until = None if timeout is None else time.time() + timeout
    limit = study.trials if trials is None else trials
    batches = read_images(study, images)
    # This process may measure nothing; its bench says what the trials will be measured with.
    bench = Bench(study, batches, "cpu")
    storage = open_storage(study.url)
    with storage_errors(study.url):
        found = create_or_load(study, storage, bench)
        before = found.get_trials(deepcopy=False)
        on_event(Opened(finished(before), limit, hide_password(study.url)))
        wanted = limit - finished(before, or_running=True)
        # Numbers that no other process has: they seed the samplers. Those of a new study are always the same.
        first = 0 if all(trial.state.name == "WAITING" for trial in before) else os.getpid() << 12
        work = Trials(study, batches, device, limit, until)
        workers = pool or pools.make_pool()
        while wanted > 0:
            workers.run(range(first, first + wanted), work, lambda event: _pass_on(event, on_event))
            # SQLite may let two workers finish one trial, each of which took it for its own.
            left = (
                0 if work.is_late() else limit - finished(found.get_trials(deepcopy=False), or_running=True)
            )
            first, wanted = first + wanted, left if left < wanted else 0
        status = status_of(study, found)
    if status.failed and not status.complete + status.stopped:
        raise StudyError(f"study {study.name}: every trial failed; the last: {status.failed[-1][1]}")
    return status


@dataclass
class Measurer:
    """What a worker needs for all its trials; ``overtaken`` where its last one was taken from it."""

    bench: Bench
    found: optuna.Study
    space: tuple[Range, ...]
    has_sampler: bool = False
    overtaken: bool = False


class _FailedError(Exception):
    """A trial that counts as failed, for the reason in its attributes."""


@dataclass(frozen=True)
class Trials(pools.Work[int, Measurer, LofError | None]):
    """One trial per item. What ends the run is the outcome of an item.

    Attributes:
        limit: finished trials in the study after which none begins.
        until: the time, in seconds since 1970, after which none begins.
    """

    study: Study
    images: list[list[Image]]
    device: str
    limit: int
    until: float | None

    def open(self) -> Measurer:
        """Load the codecs, open the storage."""
        bench = Bench(self.study, self.images, self.device)
        storage = open_storage(self.study.url, create=False)
        with storage_errors(self.study.url):
            # Earlier versions of lof tried whole numbers where low and high are; a study goes on as it began.
            begun, found = load_stored(storage, self.study.name)
        found.pruner = pruner_of(self.study, bench.steps)
        return Measurer(bench, found, begun.space)

    def do(self, tool: Measurer, item: int, report: Callable[[Any], None]) -> LofError | None:
        """Measure the next trial, if one is still wanted."""
        found = tool.found
        if not tool.has_sampler:
            found.sampler, tool.has_sampler = sampler_of(self.study, item), True
        try:
            with storage_errors(self.study.url):
                while self._is_wanted(found) and not self._next(tool, report):
                    pass
        except LofError as error:
            return error
        return None

    def is_late(self) -> bool:
        """Whether no trial may begin any more."""
        return self.until is not None and time.time() >= self.until

    def _is_wanted(self, found: optuna.Study) -> bool:
        if self.is_late():
            return False
        return finished(found.get_trials(deepcopy=False), or_running=True) < self.limit

    def _next(self, tool: Measurer, report: Callable[[Any], None]) -> bool:
        """Measure a trial; whether it has stayed this worker's."""
        tool.overtaken = False
        try:
            tool.found.optimize(
                lambda trial: self._measure(tool, trial, report),
                n_trials=1,
                catch=_FailedError,
                callbacks=[lambda _, trial: report(_finished(tool.found, trial))],
            )
        except ValueError as error:
            # SQLite may hand a trial out to two workers at once; to the second one it is finished already.
            if not tool.overtaken and not str(error).startswith("Cannot tell"):
                raise
            return False
        return not tool.overtaken

    def lost(self, item: int, reason: str) -> LofError:
        """A trial that ends its workers ends the run."""
        return WorkerError(f"study {self.study.name}: a trial cannot be measured ({reason})")

    def label(self, item: int) -> str:
        """The study's name; the trial has no number yet."""
        return f"a trial of {self.study.name}"

    def _measure(self, tool: Measurer, trial: Trial, report: Callable[[Any], None]) -> tuple[float, ...]:
        from optuna import TrialPruned
        from optuna.exceptions import UpdateFinishedTrialError

        number, study, bench = trial.number, self.study, tool.bench
        name, point = f"{study.name}-{number}", suggest(trial, tool.space)

        def on_step(step: int, gain: float) -> bool:
            report(Advanced(number, step, bench.steps, gain))
            return step < bench.steps and self._should_stop(tool.found, trial, profile, step, gain)

        try:
            try:
                profile = profile_at(point, tool.space, study.profile, name)
            except ProfileError as error:  # its values are allowed one by one, but not together
                trial.set_user_attr(REASON, str(error).removeprefix(f"{name}: "))
                raise _FailedError from error
            trial.set_user_attr(PROFILE, profile.model_dump(mode="json"))
            report(Started(number, profile))
            measurement = bench.measure(profile, on_step)
            trial.set_user_attr(RUNNING, measurement.running)
            if measurement.figures is None:
                raise TrialPruned
            trial.set_user_attr(FIGURES, vars(measurement.figures))
            values = [measurement.figures.value(objective) for objective in study.objectives]
            if None in values:
                trial.set_user_attr(REASON, f"{measurement.flat}: no BD-rate: its curve does not rise")
                raise _FailedError
        except UpdateFinishedTrialError as error:  # another has it too, or took it for abandoned
            tool.overtaken = True
            report(Finished(number, None, 0, None, reason="another process has taken it over"))
            raise TrialPruned from error
        except (LofError, KeyboardInterrupt):
            tool.found.enqueue_trial(trial.params)  # the point is not lost
            raise
        return tuple(value for value in values if value is not None)

    def _should_stop(
        self, found: optuna.Study, trial: Trial, profile: Profile, step: int, gain: float
    ) -> bool:
        pruner = self.study.pruner
        if len(self.study.objectives) == 1:
            trial.report(gain, step)
            return bool(trial.should_prune())
        done = [t for t in found.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
        if pruner.kind == "none" or len(done) < pruner.startup or step < pruner.warmup:
            return False
        # Optuna's pruners know one objective only: behind a finished trial with no more evaluations, it is hopeless.
        return any(
            t.user_attrs[FIGURES]["evaluations"] <= profile.evaluations
            and t.user_attrs[RUNNING][step - 1] < gain
            for t in done
        )


def _finished(found: optuna.Study, trial: FrozenTrial) -> Finished:
    held = trial.user_attrs
    figures = Figures(**held[FIGURES]) if trial.state.name == "COMPLETE" else None
    is_best = figures is not None and trial.number in {best.number for best in best_trials(found)}
    running = held.get(RUNNING, [])
    gain = running[-1] if running else None
    return Finished(trial.number, figures, len(running), gain, is_best, held.get(REASON))


def _pass_on(event: pools.Event, on_event: OnEvent) -> None:
    match event:
        case pools.Advanced():
            on_event(event.message)
        case pools.Finished() if event.outcome is not None:
            raise event.outcome
