"""What the tests of studies share: one stage, one parameter, and what a storage holds."""

from __future__ import annotations

from typing import Any

from lof.study import open_storage
from lof.study.schema import Study
from lof.study.stored import load_stored

BASE = {"kind": "mean-field", "evaluations": 3, "learning_rate": 0.2, "steps": 1}
HOPELESS = {"stage.0.learning_rate": 10.0}
RATE = {"path": "stage.0.learning_rate", "low": 0.05, "high": 10.0, "log": True}


def trials_of(study: Study) -> list[Any]:
    assert study.storage is not None
    return load_stored(open_storage(study.storage), None)[1].get_trials()


def finished(trials: list[Any]) -> dict[int, Any]:
    return {t.number: (t.params, t.values) for t in trials if t.state.name in ("COMPLETE", "PRUNED")}
