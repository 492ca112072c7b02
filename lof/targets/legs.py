"""Parts of a profile: a search that stops half-way, looks where it is, and goes on with another λ."""

from __future__ import annotations

from typing import Any, Literal

from lof.profiles import MeanFieldStage, Profile, Ramp, RelaxStage, Schedule
from lof.search.schedules import value_at


def leg(profile: Profile, begin: float, end: float) -> Profile:
    """What a profile does from one share of its first stage to another, and after it if that is the end.

    A stage without a schedule is divided by its evaluations alone. A codec's own search begins anew in each leg.
    """
    first, *others = profile.stage
    count = max(1, round(first.evaluations * (end - begin)))
    changes: dict[str, Any] = {"evaluations": count}
    if isinstance(first, MeanFieldStage | RelaxStage):
        changes["decay"] = _cut(first.decay, begin, end)
    if isinstance(first, RelaxStage):
        changes["temperature"] = _cut(first.temperature, begin, end)
    if isinstance(first, MeanFieldStage):
        ramp, length = first.variance, end - begin
        changes |= {
            "variance": Ramp(
                start=value_at(ramp, begin),
                end=value_at(ramp, end),
                reached=min(max((ramp.reached - begin) / length, 0.01), 1.0),
            ),
            "side": _cut(first.side, begin, end),
            "side_until": min(max((first.side_until - begin) / length, 1e-3), 1.0),
            "fraction": 1.0 if begin else first.fraction,
        }
    rest = others if end == 1 else []
    return profile.model_copy(update={"stage": (first.model_copy(update=changes), *rest)})


def _cut(schedule: Schedule, begin: float, end: float) -> Schedule:
    shape: Literal["exponential", "linear"] = "exponential" if schedule.shape == "exponential" else "linear"
    return Schedule(start=value_at(schedule, begin), end=value_at(schedule, end), shape=shape)
