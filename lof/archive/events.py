"""What an archive job reports while it runs, in the process and thread that called it, and what it came to.

:class:`lof.pools.Started` and :class:`lof.pools.Advanced`, whose item is the path of an entry, and these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lof.archive.schema import Row
from lof.pools import Advanced, Finished, Started
from lof.pools import Event as PoolEvent


@dataclass(frozen=True)
class Unchanged:
    """Files that are in the archive already, and the sum of their sizes in bytes."""

    files: int
    size: int


@dataclass(frozen=True)
class Surveyed:
    """So many images have been encoded plainly, to share out a size among them; before the first search."""

    done: int


@dataclass(frozen=True)
class Settled:
    """On disk and in the manifest; ``row.error`` tells what went wrong, if anything did."""

    row: Row


@dataclass(frozen=True)
class Checked:
    """Looked at and whole (verify), restored (restore), or not: ``error`` is empty or tells."""

    path: str
    error: str = ""


Event = Unchanged | Surveyed | Started | Advanced | Settled | Checked
OnEvent = Callable[[Event], None]


def listener(on_event: OnEvent, on_end: Callable[[Any, Any], None]) -> Callable[[PoolEvent], None]:
    """What a pool may tell its events to: progress goes on, item and outcome go to ``on_end``."""

    def listen(event: PoolEvent) -> None:
        match event:
            case Started(item, worker, attempt):
                on_event(Started(item.path, worker, attempt))
            case Advanced(item, progress):
                on_event(Advanced(item.path, progress))
            case Finished(item, outcome):
                on_end(item, outcome)

    return listen


@dataclass
class Outcome:
    """What a call came to. ``errors`` has path and what went wrong, of files and of whole sources."""

    seconds: float = 0.0
    errors: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 if anything went wrong, else 0."""
        return 1 if self.errors else 0
