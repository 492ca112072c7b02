"""A study as it stands in its database: study format 1.

The database is Optuna's, with its trials, their parameters, values and states. What lof adds stands in user
attributes, as JSON, so that any of Optuna's tools opens the same database.

Of the study:

- ``lof_study_format``: 1. A later lof that stores a study differently writes a larger number; this one refuses
  what is larger than it knows. New keys of the settings need no new number: what is absent has its default.
- ``settings``: the study's TOML with all defaults and the base profile written out, without ``images``,
  ``weights`` and ``storage``, which are places.
- ``weights``: fingerprints of the codec's weights by quality, 16 hexadecimal digits each.
- ``images``: digests of the pixels by name, 16 hexadecimal digits each.

The format comes last, after the points that are tried first: the making of a study without it was interrupted, and the
next call goes on with it.

Of a trial:

- ``profile``: the whole profile that it stands for, if its point is one.
- ``running``: the mean change of cost after each step.
- ``figures``: ``cost``, ``bd_rate``, ``evaluations`` and ``seconds``, of a complete trial.
- ``reason``: why it failed. A failed trial without one was interrupted and has been handed out again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lof.errors import StudyError
from lof.profiles import describe_validation
from lof.study.schema import Study
from lof.study.space import check_latents

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from lof.study.measure import Bench

VERSION = 1
FORMAT, SETTINGS, WEIGHTS, IMAGES = "lof_study_format", "settings", "weights", "images"
PROFILE, RUNNING, FIGURES, REASON = "profile", "running", "figures", "reason"

_PLACES = {"images", "weights", "storage"}
_DECIDING = {"codec", "metric", "qualities", "batch", "seed", "objectives"}


def create_or_load(study: Study, storage: BaseStorage, bench: Bench) -> optuna.Study:
    """The study in its storage, made and its first points queued if it is not there.

    Raises:
        StudyError: the storage holds a study of that name whose trials were measured otherwise, or a new study has a
            parameter that changes nothing.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if study.name not in optuna.get_all_study_names(storage):  # others go on as they began
        check_latents(study, bench.codecs[0])
    measured_with = {
        WEIGHTS: {f"{codec.quality:.10g}": codec.fingerprint.hex()[:16] for codec in bench.codecs},
        IMAGES: {image.name: image.digest[:16] for batch in bench.images for image in batch},
    }
    try:
        found = optuna.create_study(
            storage=storage, study_name=study.name, directions=["minimize"] * len(study.objectives)
        )
    except optuna.exceptions.DuplicatedStudyError:
        found = _wait_until_made(study.name, storage)
        stored, unfinished = found.user_attrs, _is_unfinished(found)
        if unfinished and SETTINGS not in stored:
            before, now = len(found.directions), len(study.objectives)
            _refuse_change(study.name, {"objectives": before}, {"objectives": now})
        else:
            _refuse_change(
                study.name,
                _deciding(_settings_in(found) if unfinished else _read(found))
                | {key: stored[key] for key in measured_with},
                _deciding(study) | measured_with,
            )
        if not unfinished:
            return found
    # The settings before the first point, or other points could come to those of a killed call. The format last:
    # other processes wait for it, and then find the rest.
    settings = study.model_dump(mode="json", exclude=_PLACES)
    for key, value in (measured_with | {SETTINGS: settings}).items():
        found.set_user_attr(key, value)
    for point in study.points:
        found.enqueue_trial(point, skip_if_exists=True)
    found.set_user_attr(FORMAT, VERSION)
    return found


def load_stored(storage: BaseStorage, name: str | None = None) -> tuple[Study, optuna.Study]:
    """A study as it stands in a storage; the only one there if ``name`` is ``None``.

    Raises:
        StudyError: there is none, it is not lof's, or a later version of lof has made it.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names = optuna.get_all_study_names(storage)
    if name is None and len(names) != 1:
        held = f"it holds {', '.join(names)}" if names else "it holds none"
        raise StudyError(f"which study? {held}; choose one with --name")
    if name is not None and name not in names:
        raise StudyError(f"study {name!r}: not in the storage; it holds {', '.join(names) or 'none'}")
    found = optuna.load_study(study_name=name or names[0], storage=storage)
    return _read(found), found


def finished(trials: list[FrozenTrial], *, or_running: bool = False) -> int:
    """How many trials are complete, stopped early or failed; with ``or_running`` those in hand as well."""
    states = ("COMPLETE", "PRUNED", *(["RUNNING"] if or_running else []))
    return sum(trial.state.name in states or REASON in trial.user_attrs for trial in trials)


def best_trials(found: optuna.Study) -> list[FrozenTrial]:
    """The best complete trial (the first of equals), or the whole Pareto front by its second value; maybe none."""
    front: list[FrozenTrial] = found.best_trials
    if len(found.directions) == 1:
        return front[:1]
    return sorted(front, key=lambda trial: trial.values[1])


def sampler_of(study: Study, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler for a study; ``seed`` is added to the study's own, so that no two workers draw the same."""
    from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

    settings = study.sampler
    seed = (settings.seed + seed) % 2**32
    match settings.kind:
        case "tpe":
            return TPESampler(
                seed=seed, multivariate=settings.multivariate, n_startup_trials=settings.startup
            )
        case "nsga2":
            return NSGAIISampler(seed=seed, population_size=max(2, settings.startup))
    return RandomSampler(seed=seed)


def pruner_of(study: Study, steps: int) -> optuna.pruners.BasePruner:
    """Optuna's pruner for a study whose trials have so many steps."""
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    settings = study.pruner
    match settings.kind:
        case "median":
            return MedianPruner(n_startup_trials=settings.startup, n_warmup_steps=settings.warmup)
        case "hyperband":
            return HyperbandPruner(min_resource=min(max(1, settings.warmup), steps), max_resource=steps)
    return NopPruner()


def _read(found: optuna.Study) -> Study:
    name, version = found.study_name, found.user_attrs.get(FORMAT)
    if version is None and _is_unfinished(found):
        raise StudyError(
            f"study {name}: is still being made, or that was interrupted; `lof study run` goes on"
        )
    if version is None:
        raise StudyError(f"study {name}: not made by lof; choose another with --name")
    if version > VERSION:
        raise StudyError(
            f"study {name}: has study format {version}, this lof reads up to {VERSION}; install a newer lof"
        )
    return _settings_in(found)


def _settings_in(found: optuna.Study) -> Study:
    settings = found.user_attrs.get(SETTINGS)
    try:
        return Study.model_validate(settings)
    except ValidationError as error:
        why = "no settings" if settings is None else describe_validation(error, settings)
        raise StudyError(
            f"study {found.study_name}: what it holds is damaged ({why}); start another study"
        ) from error


def _is_unfinished(found: optuna.Study) -> bool:
    """Whether its making was interrupted: it holds nothing but what lof puts there before the format."""
    return (
        found.user_attrs.keys() <= {WEIGHTS, IMAGES, SETTINGS}
        and {direction.name for direction in found.directions} == {"MINIMIZE"}
        and all(trial.state.name == "WAITING" for trial in found.get_trials(deepcopy=False))
    )


def _wait_until_made(name: str, storage: BaseStorage) -> optuna.Study:
    """Whoever makes a study says what it is in the next moment."""
    import optuna

    found = optuna.load_study(study_name=name, storage=storage)
    for _ in range(50):
        if FORMAT in found.user_attrs:
            break
        time.sleep(0.1)
    return found


def _deciding(study: Study) -> dict[str, Any]:
    """What decides the figures of a trial besides its point, weights and images; every default written out."""
    base = study.profile.model_dump(mode="json", exclude={"name", "summary"})
    space = {entry.name: entry.model_dump(mode="json") for entry in study.space}
    return study.model_dump(mode="json", include=_DECIDING) | {"base": base, "space": space}


def _refuse_change(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    old, new = _flat(before), _flat(now)
    changed = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    if not changed:
        return
    said = [f"{key} {_short(old.get(key))} → {_short(new.get(key))}" for key in changed[:3]]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    raise StudyError(
        f"study {name}: its trials were measured with other settings ({', '.join(said)}{more}); "
        "give the changed study another name"
    )


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if not isinstance(value, dict | list):
        return {key: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for part, item in items for k, v in _flat(item, f"{key}.{part}".lstrip(".")).items()}


def _short(value: Any) -> str:
    return "none" if value is None else str(value)[:24]
