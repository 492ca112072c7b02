"""What an archive job tells while it runs, in the process and thread that called it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lof.archive.manifest import Row

if TYPE_CHECKING:
    from lof.search import Progress


@dataclass(frozen=True)
class Unchanged:
    """Files that are in the archive already, and the sum of their sizes in bytes."""

    files: int
    size: int


@dataclass(frozen=True)
class Began:
    """A worker has the file in hand. ``attempt`` is 2 after a first worker died with it."""

    path: str
    worker: str
    attempt: int


@dataclass(frozen=True)
class Advanced:
    """How far the search is, a few times per second at most."""

    path: str
    progress: Progress


@dataclass(frozen=True)
class Settled:
    """On disk and in the manifest; ``row.error`` tells what went wrong, if anything did."""

    row: Row


@dataclass(frozen=True)
class Checked:
    """Looked at and whole (verify), restored (restore), or not: ``error`` is empty or tells."""

    path: str
    error: str = ""


Event = Unchanged | Began | Advanced | Settled | Checked
OnEvent = Callable[[Event], None]
