"""What is foreseen of searches for a target."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Habit:
    """What is foreseen of searches, for gaps of a size or of a quality.

    Attributes:
        gain: gap of the plain encoding by whose search, at the codec's own λ, the target lies.
        stiff: how the gap moves with log λ from one leg to the next, by the leg that goes on.
        near: gap that trades close; above it they cost more quality than another search. 0 where files on both sides of
            the target are looked for.
        most: legs.
    """

    gain: float
    stiff: tuple[float, ...]
    near: float
    most: int


HABITS = {
    ("legs", True): Habit(0.07, (0.3, 0.2, 0.1, 0.1), 0.0, 5),
    ("legs", False): Habit(0.02, (-0.3, -0.25, -0.15, -0.15), 0.0, 5),
    ("own", True): Habit(0.43, (0.42,) * 4, 0.03, 4),
    ("own", False): Habit(0.0, (-0.65,) * 4, 0.03, 4),
}
"""Measured on CID22's validation set. A codec's own search begins anew each time, and λ moves it farther."""
