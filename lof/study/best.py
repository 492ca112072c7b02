"""What a study found, as profiles that ``--profile`` takes, with plots beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lof.errors import StudyError
from lof.files.atomic import write_atomically
from lof.profiles import Profile, parse_profile
from lof.profiles.toml import profile_toml
from lof.report.figures import percent
from lof.study.measure import Figures
from lof.study.plots import plots
from lof.study.schema import Study
from lof.study.stored import FIGURES, IMAGES, PROFILE, best_trials, load_stored

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage


@dataclass(frozen=True)
class Best:
    """A profile that a study found, with the trial's figures; ``profile.summary`` says them in words."""

    study: str
    trial: int
    profile: Profile
    figures: Figures


def best_profiles(storage: BaseStorage, name: str | None = None) -> list[Best]:
    """The best trial of a study, or its Pareto front by rising effort.

    Args:
        name: of the study; the only one in the storage if ``None``.

    Raises:
        StudyError: there is no such study, or no trial of it is complete.
    """
    return _best(*load_stored(storage, name))


def write_best(storage: BaseStorage, out: Path, name: str | None = None) -> tuple[list[Best], list[Path]]:
    """Write :func:`best_profiles` as TOML files, and plots of the study as PNG files.

    Returns:
        What was found, and its files in the same order; the plots' files after them.

    Raises:
        StudyError: as for :func:`best_profiles`.
        OutputError: ``out`` cannot be written.
    """
    study, found = load_stored(storage, name)
    best = _best(study, found)
    files = {f"{one.profile.name}.toml": (profile_toml(one.profile) + "\n").encode() for one in best}
    files |= plots(study, found)
    for file, data in files.items():
        write_atomically(out / file, data)
    return best, [out / file for file in files]


def _best(study: Study, found: optuna.Study) -> list[Best]:
    trials = best_trials(found)
    if not trials:
        raise StudyError(f"study {study.name}: no trial is complete yet; run it first")
    images = len(found.user_attrs[IMAGES])
    several = len(study.objectives) > 1
    best = []
    for number, trial in enumerate(trials, start=1):
        figures = Figures(**trial.user_attrs[FIGURES])
        content = trial.user_attrs[PROFILE] | {
            "name": f"{study.name}-{number}" if several else study.name,
            "summary": _summary(study, figures, images, trial.number),
        }
        best.append(Best(study.name, trial.number, parse_profile(content), figures))
    return best


def _summary(study: Study, figures: Figures, images: int, trial: int) -> str:
    """For example ``BD-rate −14.2 %, cost −13.1 % of the plain encoding: 8 images, mean-scale-96 …``."""
    gain = f"cost {percent(figures.cost)}"
    if figures.bd_rate is not None:
        gain = f"BD-rate {percent(figures.bd_rate)}, {gain}"
    size = study.crops.size
    crops = f"{images} images" if size is None else f"{images} crops of {size}×{size}"
    qualities = ", ".join(f"{quality:.10g}" for quality in study.qualities)
    return f"{gain} on {crops}, {study.codec} quality {qualities}; study {study.name}, trial {trial}"
