"""What a job reports while it runs, to the process that called :func:`lof.jobs.run_job`.

The events of :mod:`lof.pools`, one for each image: the item is its :class:`Source`, the message of
:class:`Advanced` a :class:`lof.search.Progress`, the outcome of :class:`Finished` its :data:`Record`, whose
``state`` is ``done`` or ``failed``. :class:`Skipped` and :class:`Surveyed` are a job's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lof import pools
from lof.files.inputs import Source
from lof.pools import Advanced, Finished, Started, Workers

__all__ = ["Advanced", "Event", "Finished", "OnEvent", "Record", "Skipped", "Started", "Surveyed", "Workers"]

Record = dict[str, Any]
"""``Result.record()`` and what :mod:`lof.report.records` lists beside it."""


@dataclass(frozen=True)
class Skipped:
    """Done before and unchanged; all of these come before the first :class:`Started`."""

    item: Source
    outcome: Record


@dataclass(frozen=True)
class Surveyed:
    """So many of all images have been encoded plainly, to share out a size among them; before the first search."""

    done: int
    images: int


Event = Skipped | Surveyed | pools.Event
OnEvent = Callable[[Event], None]
