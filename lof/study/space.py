"""From a point of a study's space to the profile that it stands for, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from lof.errors import ProfileError, StudyError
from lof.profiles import Profile, parse_profile
from lof.study.schema import Range, Study, Value

if TYPE_CHECKING:
    from optuna.trial import Trial

    from lof.codecs import Codec

Point = dict[str, Value]
"""Values by parameter name."""
_RATES = ".learning_rate_of"
_NEAR = 1e-8
"""How near to a multiple of the step a value must be for Optuna to take it for one, in steps."""


def profile_at(
    point: Mapping[str, Value], space: Sequence[Range], base: Profile, name: str, summary: str = ""
) -> Profile:
    """The base profile with the values of ``point``, set in the order of ``space``.

    A stage that is left with no evaluations is left out.

    Raises:
        StudyError: the base profile has no such key.
        ProfileError: the result does not fit the schema of profiles.
    """
    content = base.model_dump(mode="json")
    for entry in space:
        if entry.name in point:
            _set(content, entry, point[entry.name])
    content["stage"] = [stage for stage in content["stage"] if stage["evaluations"] != 0]
    return parse_profile(content | {"name": name, "summary": summary}, name)


def point_of(profile: Profile, space: Sequence[Range]) -> Point:
    """Where a profile stands in the space.

    Raises:
        StudyError: the profile lacks a key of the space.
    """
    content = profile.model_dump(mode="json")
    point: Point = {}
    for entry in space:
        if entry.split is None:
            point[entry.name] = _get(content, entry.name)
        else:
            first, second = (_number(content, path) for path in entry.split)
            if not first + second:
                raise StudyError(
                    f"{entry.name}: is 0 in all, of which there is no share; give a number there"
                )
            point[entry.name] = first / (first + second)
    return point


def suggest(trial: Trial, space: Sequence[Range]) -> Point:
    """Ask a trial for a point."""
    values: Point = {}
    for entry in space:
        if entry.choices is not None:
            chosen: Any = trial.suggest_categorical(entry.name, entry.choices)
            values[entry.name] = chosen
        elif _is_integer(entry):
            step = int(entry.step or 1)
            low, high = int(entry.low or 0), int(_last(entry))
            values[entry.name] = trial.suggest_int(entry.name, low, high, step=step, log=entry.log)
        else:
            step_ = None if entry.step is None else float(entry.step)
            low_, high_ = float(entry.low or 0), _last(entry)
            values[entry.name] = trial.suggest_float(entry.name, low_, high_, step=step_, log=entry.log)
    return values


def check_space(space: Sequence[Range], base: Profile) -> None:
    """Refuse a space with points that are no profiles, as far as its ends show it.

    Raises:
        StudyError: a key does not exist in the base profile, or an end of a range is not allowed there.
    """
    for entry in space:
        for end in entry.ends:
            try:
                profile_at({entry.name: end}, [entry], base, "space")
            except ProfileError as error:
                problem = str(error).removeprefix("space: ")
                raise StudyError(f"space: {entry.name} = {end}: {problem}") from error


def typed_space(space: Sequence[Range], base: Profile) -> tuple[Range, ...]:
    """A checked space whose ranges are of whole numbers where the schema of profiles wants these, and only there.

    Raises:
        StudyError: the step of a range of whole numbers is none.
    """
    return tuple(_typed(entry, base) for entry in space)


def check_latents(study: Study, codec: Codec) -> None:
    """Refuse a parameter that changes nothing: the learning rate of a latent tensor that the codec does not have.

    Raises:
        StudyError: there is one.
    """
    for entry in study.space:
        table, _, latent = entry.name.rpartition(".")
        if entry.path is not None and table.endswith(_RATES) and latent not in codec.latents:
            why = f"codec {codec.name} has no latent {latent!r}; it has {', '.join(codec.latents)}"
            raise StudyError(f"study {study.name}: space: {entry.name}: {why}")


def enqueued_points(
    entries: Sequence[str | dict[str, Value]],
    space: Sequence[Range],
    base: Profile,
    load: Callable[[str], Profile],
) -> list[Point]:
    """The whole points that are tried first.

    Raises:
        StudyError: an entry names no parameter of the space, is no point of it, has other stages, or is no profile.
        ProfileError: there is no such profile.
    """
    points = []
    for number, entry in enumerate(entries):
        where = f"enqueue[{number}]"
        if isinstance(entry, str):
            profile = base if entry == "base" else load(entry)
            point = point_of(profile, space)
            if profile_at(point, space, base, "same").digest != profile.digest:
                raise StudyError(f"{where}: {entry} differs from base outside of the space; add what differs")
        else:
            unknown = sorted(set(entry) - {range_.name for range_ in space})
            if unknown:
                known = ", ".join(range_.name for range_ in space)
                raise StudyError(f"{where}: {unknown[0]} is not in the space; it has {known}")
            point = point_of(base, space) | entry
        for range_ in space:
            _require_inside(point[range_.name], range_, where)
        try:
            profile_at(point, space, base, "point")
        except ProfileError as error:
            raise StudyError(f"{where}: {str(error).removeprefix('point: ')}") from error
        points.append(point)
    return points


def _require_inside(value: Value, entry: Range, where: str) -> None:
    if entry.choices is not None:
        inside, allowed = value in entry.choices, ", ".join(map(str, entry.choices))
    else:
        inside = isinstance(value, int | float) and entry.low <= value <= entry.high  # type: ignore[operator]
        allowed = f"{entry.low}…{entry.high}"
    if not inside:
        raise StudyError(f"{where}: {entry.name} = {value} is outside of {allowed}; widen the space")
    if entry.step is not None:
        low, last = float(entry.low or 0), _last(entry)
        steps = (float(value) - low) / entry.step
        if abs(steps - round(steps)) >= _NEAR or float(value) > last:
            tried = f"{low:.10g}, {low + entry.step:.10g} … {last:.10g}"
            raise StudyError(
                f"{where}: {entry.name} = {value} is not among {tried}; change low or step, or leave step out"
            )


def _typed(entry: Range, base: Profile) -> Range:
    if entry.choices is not None or entry.split is not None or entry.high is None:
        return entry
    # At its high end, where evaluations are above 0, so that no stage is left out.
    at_end = profile_at({entry.name: entry.high}, [entry], base, "space")
    kind = int if isinstance(point_of(at_end, [entry])[entry.name], int) else float
    if kind is int and (entry.step or 1) % 1:
        raise StudyError(f"space: {entry.name}: step must be a whole number")
    numbers = {"low": entry.low, "high": entry.high, "step": entry.step}
    return entry.model_copy(update={key: None if n is None else kind(n) for key, n in numbers.items()})


def _last(entry: Range) -> float:
    """The highest value of a range: with a step, which need not reach ``high``, as Optuna computes it."""
    low, high, step = (Decimal(str(number or 0)) for number in (entry.low, entry.high, entry.step))
    return float(low + (high - low) // step * step if step else high)


def _is_integer(entry: Range) -> bool:
    numbers = [n for n in (entry.low, entry.high, entry.step) if n is not None]
    return entry.split is None and all(isinstance(number, int) for number in numbers)


def _set(content: dict[str, Any], entry: Range, value: Value) -> None:
    if entry.split is None:
        _put(content, entry.name, value)
        return
    first, second = entry.split
    total = _number(content, first) + _number(content, second)
    share = round(float(value) * total)
    _put(content, first, share)
    _put(content, second, total - share)


def _get(content: dict[str, Any], path: str) -> Any:
    holder, key = _holder(content, path)
    try:
        found = holder[key]
    except (KeyError, IndexError, TypeError):
        raise StudyError(f"{path}: not in the profile; {_known(holder)}") from None
    if isinstance(found, dict | list):
        raise StudyError(f"{path}: holds no single value; {_known(found)}")
    return found


def _number(content: dict[str, Any], path: str) -> float:
    found = _get(content, path)
    if not isinstance(found, int | float):
        raise StudyError(f"{path}: has no number in the profile, which a split needs; give it one there")
    return found


def _put(content: dict[str, Any], path: str, value: Value) -> None:
    holder, key = _holder(content, path)
    # Learning rates by latent are the one table that takes new keys.
    if not path.rpartition(".")[0].endswith(_RATES):
        _get(content, path)
    holder[key] = value


def _holder(content: dict[str, Any], path: str) -> tuple[Any, Any]:
    """The table or list that holds the last key of a path, and that key."""
    parts = path.split(".")
    holder: Any = content
    for part in parts[:-1]:
        try:
            holder = holder[_key(holder, part)]
        except (KeyError, IndexError, TypeError):
            raise StudyError(f"{path}: {part!r} is not in the profile; {_known(holder)}") from None
    if not isinstance(holder, dict | list):
        raise StudyError(f"{path}: not in the profile; {parts[-2]} holds one value")
    return holder, _key(holder, parts[-1])


def _key(holder: Any, part: str) -> str | int:
    return int(part) if isinstance(holder, list) and part.isdecimal() else part


def _known(holder: Any) -> str:
    if isinstance(holder, list):
        return f"it has 0 to {len(holder) - 1} there"
    if isinstance(holder, dict):
        return f"it has {', '.join(holder)} there"
    return "there is one value only"
