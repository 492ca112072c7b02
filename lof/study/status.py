"""Where a study stands, from its storage alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lof.study.schema import Study
from lof.study.shared import OWNER, REASON, is_abandoned, load_shared

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Status:
    """Trials of a study by what became of them; a failed one with its reason, a running one with its worker.

    ``interrupted`` ones were handed out again under a new number. ``abandoned`` are marked as running, but
    their process is gone: the next run tries them again.
    """

    study: Study
    complete: int
    stopped: int
    waiting: int
    running: list[tuple[int, str]]
    abandoned: list[int]
    interrupted: list[int]
    failed: list[tuple[int, str]]


def study_status(storage: BaseStorage, name: str | None = None) -> Status:
    """Where a study stands.

    Args:
        name: of the study; the only one in the storage if ``None``.

    Raises:
        StudyError: there is no such study.
    """
    study, found = load_shared(storage, name)
    by_state: dict[str, list[FrozenTrial]] = {}
    for trial in found.get_trials(deepcopy=False):
        by_state.setdefault(trial.state.name, []).append(trial)
    running = by_state.get("RUNNING", [])
    return Status(
        study=study,
        complete=len(by_state.get("COMPLETE", [])),
        stopped=len(by_state.get("PRUNED", [])),
        waiting=len(by_state.get("WAITING", [])),
        running=[(trial.number, _worker(trial)) for trial in running if not is_abandoned(trial)],
        abandoned=[trial.number for trial in running if is_abandoned(trial)],
        interrupted=[t.number for t in by_state.get("FAIL", []) if REASON not in t.user_attrs],
        failed=[(t.number, t.user_attrs[REASON]) for t in by_state.get("FAIL", []) if REASON in t.user_attrs],
    )


def _worker(trial: FrozenTrial) -> str:
    owner = trial.user_attrs.get(OWNER)
    return (
        "a process that has just begun"
        if owner is None
        else f"{owner['host'].partition('/')[0]}, process {owner['pid']}"
    )
