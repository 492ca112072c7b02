"""What a study reports while it runs, in the process that called it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lof.profiles import Profile
from lof.study.measure import Figures


@dataclass(frozen=True)
class Opened:
    """The study is open, with ``finished`` of ``limit`` trials. ``storage`` is its URL without the password."""

    finished: int
    limit: int
    storage: str


@dataclass(frozen=True)
class Started:
    """A trial is being measured."""

    number: int
    profile: Profile


@dataclass(frozen=True)
class Advanced:
    """A trial has measured one more batch at one more rate point; ``gain`` is the mean so far."""

    number: int
    step: int
    steps: int
    gain: float


@dataclass(frozen=True)
class Finished:
    """A trial is finished: ``figures`` is ``None`` for one that was stopped after ``steps`` at ``gain``.

    ``reason`` is set for one that failed, perhaps before its first step.
    """

    number: int
    figures: Figures | None
    steps: int
    gain: float | None
    is_best: bool = False
    reason: str | None = None


Event = Opened | Started | Advanced | Finished
OnEvent = Callable[[Event], None]
