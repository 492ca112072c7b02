"""What a job tells while it runs. Events arrive in the process that called :func:`lof.jobs.run_job`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lof.files.inputs import Source

if TYPE_CHECKING:
    from lof.search import Progress

Record = dict[str, Any]
"""``Result.record()`` and what :mod:`lof.report.records` lists beside it."""


@dataclass(frozen=True)
class Skipped:
    """Done before and unchanged; all of these come before the first :class:`Started`."""

    source: Source
    record: Record


@dataclass(frozen=True)
class Started:
    """A worker has the image in hand. ``attempt`` is 2 after a first worker died with it.

    ``worker`` ends in its process id, see :class:`lof.pools.Began`.
    """

    source: Source
    worker: str
    attempt: int


@dataclass(frozen=True)
class Advanced:
    """How far the search is, a few times per second at most."""

    source: Source
    progress: Progress


@dataclass(frozen=True)
class Finished:
    """The stream is on disk and in the manifest."""

    source: Source
    record: Record


@dataclass(frozen=True)
class Failed:
    """Set aside; the record's ``error`` is one line."""

    source: Source
    record: Record


@dataclass(frozen=True)
class Workers:
    """How many workers start, how many are ready (idle or at work), how many have died so far."""

    starting: int
    ready: int
    lost: int


Event = Skipped | Started | Advanced | Finished | Failed | Workers
OnEvent = Callable[[Event], None]
