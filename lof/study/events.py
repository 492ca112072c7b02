"""What a study tells while it runs, in the process that called it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lof.profiles import Profile
from lof.study.measure import Figures


@dataclass(frozen=True)
class Joined:
    """The study is open: ``finished`` trials are there already, ``retired`` were
    left behind by dead processes and are tried again. ``storage`` is its URL without the password.
    """

    finished: int
    limit: int
    storage: str
    retired: list[int]


@dataclass(frozen=True)
class Began:
    """A trial is being measured."""

    number: int
    profile: Profile


@dataclass(frozen=True)
class Stepped:
    """A trial has measured one more image at one more rate point; ``gain`` is the mean so far."""

    number: int
    step: int
    steps: int
    gain: float


@dataclass(frozen=True)
class Ended:
    """A trial is finished: ``figures`` is ``None`` for one that was stopped after ``steps`` at ``gain``.

    ``reason`` is set for one that failed.
    """

    number: int
    figures: Figures | None
    steps: int
    gain: float | None
    is_best: bool = False
    reason: str | None = None


Event = Joined | Began | Stepped | Ended
OnEvent = Callable[[Event], None]
