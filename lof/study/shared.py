"""One Optuna study that several processes work on, and that survives each of them."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from lof.errors import StudyError
from lof.profiles import Profile
from lof.study.events import Ended
from lof.study.measure import Measurement
from lof.study.schema import Study
from lof.study.space import profile_at, suggest

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial

BEAT_SECONDS = 30.0
STALE_SECONDS = 300.0
"""After so long without a sign of life a trial of another machine counts as abandoned."""
RETRIES = 3

SETTINGS, IDENTITY, OWNER, BEAT, RUNNING, FIGURES, REASON, PROFILE = (
    "settings",
    "identity",
    "owner",
    "beat",
    "running",
    "figures",
    "reason",
    "profile",
)
"""Keys of the user attributes that lof keeps in the study and its trials."""


class SharedStudy:
    """A study in its storage.

    Attributes:
        optuna: the study itself.
        retired: numbers of trials that dead processes had left running; they are tried again.
    """

    def __init__(
        self, study: Study, storage: optuna.storages.BaseStorage, identity: Mapping[str, Any]
    ) -> None:
        self.study, self.storage = study, storage
        self.optuna = _create_or_load(study, storage, identity)
        self.retired: list[int] = []
        self.retire_abandoned()

    def finished(self) -> int:
        """Trials that are complete or were stopped early."""
        return sum(_is_finished(trial) for trial in self.optuna.get_trials(deepcopy=False))

    def running(self) -> int:
        """Trials that some process has in hand."""
        return sum(trial.state.name == "RUNNING" for trial in self.optuna.get_trials(deepcopy=False))

    def best(self) -> list[FrozenTrial]:
        """The best trial, or those on the Pareto front."""
        return best_trials(self.optuna)

    def ask(self, limit: int) -> tuple[Trial, Profile] | None:
        """The next trial, or ``None`` once ``limit`` trials are finished or in hand."""
        self.retire_abandoned()
        if self.finished() + self.running() >= limit:
            return None
        trial = self.optuna.ask()
        profile = self.claim(trial)
        if self._is_surplus(trial, limit):
            self.fail(trial.number, "more trials than wanted: other processes had begun the last ones")
            return None
        return trial, profile

    def claim(self, trial: Trial) -> Profile:
        """Say that this process works on a trial; returns the profile that it stands for."""
        trial.set_user_attr(OWNER, _owner())
        profile = profile_at(
            suggest(trial, self.study.space),
            self.study.space,
            self.study.profile,
            f"{self.study.name}-{trial.number}",
        )
        trial.set_user_attr(PROFILE, profile.model_dump(mode="json"))
        return profile

    def should_stop(self, trial: Trial, profile: Profile, step: int, gain: float) -> bool:
        """Report a running gain; whether the pruner has seen enough."""
        from optuna.exceptions import UpdateFinishedTrialError

        if len(self.study.objectives) == 1:
            try:
                trial.report(gain, step)
            except UpdateFinishedTrialError:
                return True
            return bool(trial.should_prune())
        return self.study.pruner.kind != "none" and self._is_dominated(profile, step, gain)

    def tell(self, trial: Trial, measurement: Measurement) -> Ended:
        """Finish a trial."""
        from optuna.exceptions import UpdateFinishedTrialError

        number, figures, running = trial.number, measurement.figures, measurement.running
        try:
            trial.set_user_attr(RUNNING, running)
            trial.set_user_attr(FIGURES, None if figures is None else vars(figures))
        except UpdateFinishedTrialError:  # taken for abandoned: a sleeping laptop, a clock that jumped
            return Ended(number, None, len(running), running[-1], reason="another process has taken it over")
        if figures is None:
            self._tell(number, "PRUNED")
            return Ended(number, None, len(running), running[-1])
        values = [figures.value(objective) for objective in self.study.objectives]
        if None in values:
            reason = "no BD-rate: the curve of an image does not rise"
            self.fail(number, reason)
            return Ended(number, figures, len(running), running[-1], reason=reason)
        self._tell(number, "COMPLETE", values)
        is_best = number in {best.number for best in self.best()}
        return Ended(number, figures, len(running), running[-1], is_best=is_best)

    def fail(self, number: int, reason: str) -> None:
        """Give a trial up."""
        trial = self._trial(number)
        if trial is not None and not trial.state.is_finished():
            self.storage.set_trial_user_attr(trial._trial_id, REASON, reason)
            self._tell(number, "FAIL")

    def retry(self, number: int) -> None:
        """Give a trial up and have it tried again, at most ``RETRIES`` times."""
        from optuna.exceptions import ExperimentalWarning
        from optuna.storages import RetryHeartbeatStaleTrialCallback

        trial = self._trial(number)
        if trial is not None and self._tell(number, "FAIL"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # part of Optuna since 2.8
                RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)(self.optuna, trial)

    def retire_abandoned(self) -> None:
        """Give up the trials whose process is gone, and have them tried again."""
        for trial in self.optuna.get_trials(deepcopy=False):
            if trial.state.name == "RUNNING" and is_abandoned(trial):
                self.retry(trial.number)
                self.retired.append(trial.number)

    @contextmanager
    def alive(self, number: int) -> Iterator[None]:
        """Leave signs of life for a trial while it is measured."""
        trial, done = self._trial(number), threading.Event()

        def beat() -> None:
            while not done.wait(BEAT_SECONDS):
                try:
                    self.storage.set_trial_user_attr(trial._trial_id, BEAT, time.time())
                except Exception:  # the storage is away for the moment, or the trial was taken from us
                    continue

        thread = threading.Thread(target=beat, name=f"alive-{number}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _is_surplus(self, trial: Trial, limit: int) -> bool:
        # Processes that ask at the same moment both see room for one more; the later number gives way.
        others = self.optuna.get_trials(deepcopy=False)
        before = sum(
            _is_finished(other) or (other.state.name == "RUNNING" and other.number < trial.number)
            for other in others
        )
        return before >= limit

    def _is_dominated(self, profile: Profile, step: int, gain: float) -> bool:
        done = [t for t in self.optuna.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
        if len(done) < self.study.pruner.startup or step < self.study.pruner.warmup:
            return False
        budget = profile.evaluations
        return any(
            t.user_attrs[FIGURES]["evaluations"] <= budget and t.user_attrs[RUNNING][step - 1] < gain
            for t in done
        )

    def _trial(self, number: int) -> Any:
        return next((t for t in self.optuna.get_trials(deepcopy=False) if t.number == number), None)

    def _tell(self, number: int, state: str, values: list[Any] | None = None) -> bool:
        """False where another process had taken the trial for abandoned."""
        from optuna.trial import TrialState

        try:
            self.optuna.tell(number, values, state=TrialState[state])
        except ValueError:
            if not self._trial(number).state.is_finished():
                raise
            return False
        return True


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best complete trial (the first of equals), or the whole Pareto front by its second value; maybe none."""
    found: list[FrozenTrial] = study.best_trials
    if len(study.directions) == 1:
        return found[:1]
    return sorted(found, key=lambda trial: trial.values[1])


def load_shared(storage: optuna.storages.BaseStorage, name: str | None) -> tuple[Study, optuna.Study]:
    """A study as it stands in a storage; the only one there if ``name`` is ``None``.

    Raises:
        StudyError: there is none, or it is not lof's.
    """
    import optuna

    names = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
    if name is None and len(names) != 1:
        held = f"it holds {', '.join(names)}" if names else "it holds none"
        raise StudyError(f"which study? {held}; choose one with --name")
    if name is not None and name not in names:
        raise StudyError(f"study {name!r}: not in the storage; it holds {', '.join(names) or 'none'}")
    found = optuna.load_study(study_name=name or names[0], storage=storage)
    if SETTINGS not in found.user_attrs:
        raise StudyError(f"study {found.study_name!r}: not made by lof; choose another with --name")
    return Study.model_validate(found.user_attrs[SETTINGS]), found


def _create_or_load(
    study: Study, storage: optuna.storages.BaseStorage, identity: Mapping[str, Any]
) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    plain = json.loads(json.dumps(identity))
    settings = study.model_dump(mode="json", exclude={"storage"})
    try:
        found = optuna.create_study(
            storage=storage, study_name=study.name, directions=["minimize"] * len(study.objectives)
        )
        is_new = True
    except optuna.exceptions.DuplicatedStudyError:
        found = optuna.load_study(study_name=study.name, storage=storage)
        is_new = not _wait_for_settings(found)
    if not is_new and found.user_attrs[IDENTITY] != plain:
        _refuse_change(study.name, found.user_attrs[IDENTITY], plain)
    for point in study.points:
        found.enqueue_trial(point, skip_if_exists=True)
    if is_new:  # the settings last: whoever joins waits for them, and then finds the points
        found.set_user_attr(IDENTITY, plain)
        found.set_user_attr(SETTINGS, settings)
    found.sampler, found.pruner = _sampler(study, found, is_new), _pruner(study, plain)
    return found


def _wait_for_settings(found: optuna.Study) -> bool:
    """Whether whoever made the study has said what it is: it does so in the next moment, or died."""
    for _ in range(50):
        if SETTINGS in found.user_attrs:
            return True
        time.sleep(0.1)
    return False


def _refuse_change(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    old, new = _flat(before), _flat(now)
    changed = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    said = [f"{key} {_short(old.get(key))} → {_short(new.get(key))}" for key in changed[:3]]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    raise StudyError(
        f"study {name}: its trials were measured with other settings ({', '.join(said)}{more}); "
        "give the changed study another name"
    )


def _sampler(study: Study, found: optuna.Study, is_new: bool) -> optuna.samplers.BaseSampler:
    from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

    settings = study.sampler
    # Two processes with one seed would draw the same points; the first of a study keeps it.
    seed = (
        settings.seed
        if is_new
        else settings.seed + (os.getpid() << 12) + len(found.get_trials(deepcopy=False))
    )
    seed %= 2**32
    match settings.kind:
        case "tpe":
            return TPESampler(
                seed=seed, multivariate=settings.multivariate, n_startup_trials=settings.startup
            )
        case "nsga2":
            return NSGAIISampler(seed=seed, population_size=max(2, settings.startup))
    return RandomSampler(seed=seed)


def _pruner(study: Study, identity: Mapping[str, Any]) -> optuna.pruners.BasePruner:
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    settings = study.pruner
    steps = -(-len(identity["images"]) // study.batch) * len(study.qualities)
    match settings.kind:
        case "median":
            return MedianPruner(n_startup_trials=settings.startup, n_warmup_steps=settings.warmup)
        case "hyperband":
            least = min(max(1, settings.warmup), steps)
            return HyperbandPruner(min_resource=least, max_resource=steps)
    return NopPruner()


def _owner() -> dict[str, Any]:
    process = psutil.Process()
    return {"host": _host(), "pid": process.pid, "since": process.create_time(), "began": time.time()}


def _host() -> str:
    """Tells machines apart, and containers on one machine, whose process ids are their own."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{os.readlink(namespace) if namespace.exists() else ''}"


def is_abandoned(trial: FrozenTrial) -> bool:
    """Whether the process that had a running trial in hand is gone."""
    owner = trial.user_attrs.get(OWNER)
    if owner is None:
        begun = trial.datetime_start
        return begun is not None and (datetime.now() - begun).total_seconds() > STALE_SECONDS
    if owner["host"] == _host():
        try:
            process = psutil.Process(owner["pid"])
            gone: bool = process.status() == psutil.STATUS_ZOMBIE or process.create_time() != owner["since"]
            return gone
        except psutil.NoSuchProcess:
            return True
    return bool(time.time() - trial.user_attrs.get(BEAT, owner["began"]) > STALE_SECONDS)


def _is_finished(trial: FrozenTrial) -> bool:
    return trial.state.name in ("COMPLETE", "PRUNED")


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if not isinstance(value, dict | list):
        return {key: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for part, item in items for k, v in _flat(item, f"{key}.{part}".lstrip(".")).items()}


def _short(value: Any) -> str:
    return "none" if value is None else str(value)[:24]
