"""Values that change over a stage."""

from __future__ import annotations

import math

from lof.profiles import Ramp, Schedule


def value_at(schedule: Schedule | Ramp, progress: float) -> float:
    """The scheduled value at ``progress``, the share of the stage that is done (0…1)."""
    if isinstance(schedule, Ramp):
        return schedule.start + (schedule.end - schedule.start) * min(1.0, progress / schedule.reached)
    moved = min(1.0, max(0.0, (progress - schedule.hold) / (1 - schedule.hold)))
    match schedule.shape:
        case "linear":
            return schedule.start + (schedule.end - schedule.start) * moved
        case "cosine":
            return schedule.end + (schedule.start - schedule.end) * 0.5 * (1 + math.cos(math.pi * moved))
        case "exponential":
            return float(schedule.start * (schedule.end / schedule.start) ** moved)
    raise ValueError(f"unknown schedule shape {schedule.shape!r}")
