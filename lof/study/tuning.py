"""A study as Ray Tune sees it: its searcher and its scheduler. Imports Ray.

``OptunaSearch`` takes an existing storage and study as it is, but counts trials that a scheduler stopped as
complete at their last value, reports no running gain beside a second objective, and says nothing of why a
trial failed; the subclass here leaves all that to the study's keeper.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune import TuneError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from lof.errors import StudyError
from lof.profiles import parse_profile

if TYPE_CHECKING:
    from lof.study.distributed import Keeper

_RESTARTS = 2  # of a trial whose worker died


def tune_study(
    keeper: Keeper, trainable: Any, workers: int, resources: dict[str, float], timeout: float | None
) -> None:
    """Run trials until the keeper has enough of them, or ``timeout`` seconds are over."""
    name = keeper.shared.study.name
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=Search(keeper),
                scheduler=Scheduler(keeper),
                num_samples=-1,
                max_concurrent_trials=workers,
                time_budget_s=timeout,
                reuse_actors=True,
                trial_name_creator=_name_of,
                trial_dirname_creator=_name_of,
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=folder,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=_RESTARTS),
            ),
        )
        try:
            tuner.fit()
        except TuneError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise StudyError(f"study {name}: Ray Tune failed ({lines[-1][:300]})") from error


class Search(OptunaSearch):  # type: ignore[misc]
    """``OptunaSearch`` on a study that is there already, which the keeper tells what came of each trial."""

    def __init__(self, keeper: Keeper) -> None:
        study = keeper.shared.study
        super().__init__(
            lambda trial: {"profile": keeper.shared.claim(trial).model_dump(mode="json")},
            metric=list(study.objectives),
            mode=["min"] * len(study.objectives),
            study_name=study.name,
            storage=keeper.shared.storage,
        )
        self._ot_study: Any = keeper.shared.optuna  # with this study's sampler and pruner
        self._keeper: Keeper | None = keeper

    def suggest(self, trial_id: str) -> Any:
        """The next trial: its profile, and its number in the study."""
        if self._keeper is None or self._keeper.is_over:
            return Searcher.FINISHED
        found: Any = super().suggest(trial_id)
        trial = self._ot_trials[trial_id]
        self._keeper.begin(trial_id, trial, parse_profile(found["profile"]))
        return {"profile": found["profile"], "name": f"{self._study_name}-{trial.number}"}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The scheduler, which sees every result first, has taken it."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Hand the last result to the keeper."""
        if self._keeper is not None:
            self._keeper.end(trial_id, result or {})

    def save(self, checkpoint_path: str) -> None:
        """The storage holds everything that is worth keeping."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its own settings down, this object among them; nothing ever reads them.
        return {}


class Scheduler(FIFOScheduler):  # type: ignore[misc]
    """Stops what the study's pruner has seen enough of."""

    def __init__(self, keeper: Keeper) -> None:
        super().__init__()
        self._keeper: Keeper | None = keeper

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ask the keeper."""
        over = self._keeper is not None and self._keeper.step(trial.trial_id, result)
        return str(TrialScheduler.STOP if over else TrialScheduler.CONTINUE)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _name_of(trial: Any) -> str:
    return str(trial.config["name"])
