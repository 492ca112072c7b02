"""What an archive job reports while it runs, in the process and thread that called it.

:class:`lof.pools.Started` and :class:`lof.pools.Advanced`, whose item is the path of an entry, and these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lof.archive.manifest import Row
from lof.pools import Advanced, Started


@dataclass(frozen=True)
class Unchanged:
    """Files that are in the archive already, and the sum of their sizes in bytes."""

    files: int
    size: int


@dataclass(frozen=True)
class Settled:
    """On disk and in the manifest; ``row.error`` tells what went wrong, if anything did."""

    row: Row


@dataclass(frozen=True)
class Checked:
    """Looked at and whole (verify), restored (restore), or not: ``error`` is empty or tells."""

    path: str
    error: str = ""


Event = Unchanged | Started | Advanced | Settled | Checked
OnEvent = Callable[[Event], None]
