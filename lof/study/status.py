"""Where a study stands, from its storage alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lof.study.schema import Study
from lof.study.stored import REASON, best_trials, load_stored

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Status:
    """Trials of a study by what became of them.

    Attributes:
        best: number of the best trial, or those of the Pareto front.
        running: in hand now, or left behind by a process that ended within the last two minutes.
        interrupted: handed out again, under a new number.
        failed: number and reason of each.
    """

    study: Study
    best: list[int]
    complete: int
    stopped: int
    waiting: int
    running: int
    interrupted: int
    failed: list[tuple[int, str]]

    @property
    def finished(self) -> int:
        """Those that count: complete, stopped early or failed."""
        return self.complete + self.stopped + len(self.failed)


def study_status(storage: BaseStorage, name: str | None = None) -> Status:
    """Where a study stands.

    Args:
        name: of the study; the only one in the storage if ``None``.

    Raises:
        StudyError: there is no such study.
    """
    return status_of(*load_stored(storage, name))


def status_of(study: Study, found: optuna.Study) -> Status:
    """Where an open study stands."""
    by_state: dict[str, list[FrozenTrial]] = {}
    for trial in found.get_trials(deepcopy=False):
        by_state.setdefault(trial.state.name, []).append(trial)
    ended = by_state.get("FAIL", [])
    failed = [(trial.number, trial.user_attrs[REASON]) for trial in ended if REASON in trial.user_attrs]
    complete, stopped, waiting, running = (
        len(by_state.get(state, [])) for state in ("COMPLETE", "PRUNED", "WAITING", "RUNNING")
    )
    return Status(
        study=study,
        best=sorted(trial.number for trial in best_trials(found)),
        complete=complete,
        stopped=stopped,
        waiting=waiting,
        running=running,
        interrupted=len(ended) - len(failed),
        failed=failed,
    )
