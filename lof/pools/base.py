"""What every pool keeps to: the work it is given, the events it reports."""

from __future__ import annotations

import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

ATTEMPTS = 2
"""How many workers may die with an item in hand before it is set aside."""
FAILED_STARTS = 3
"""How many workers in a row may die while they start before the run is given up."""

Item = TypeVar("Item")
Tool = TypeVar("Tool")
Outcome_co = TypeVar("Outcome_co", covariant=True)


class Work(Protocol[Item, Tool, Outcome_co]):
    """What is done to every item. The work, the items, what is reported and the outcomes travel pickled.

    Inherit from this class: what is not abstract has a default.
    """

    @abstractmethod
    def open(self) -> Tool:
        """What a worker needs for all its items (a loaded codec); called once per worker, in the worker.

        A :class:`lof.errors.LofError` raised here ends the whole run.
        """

    @abstractmethod
    def do(self, tool: Tool, item: Item, report: Callable[[Any], None]) -> Outcome_co:
        """Work on one item, in the worker. A failure is an outcome: this method does not raise.

        Only a ``ConnectionError`` of ``report`` must pass: nobody listens any more.
        """

    @abstractmethod
    def lost(self, item: Item, reason: str) -> Outcome_co:
        """The outcome of an item that killed its workers :data:`ATTEMPTS` times; called by the driver.

        ``reason`` reads like ``its worker process was killed (SIGKILL), 2 times``.
        """

    def clean_up(self, item: Item) -> None:
        """Remove what a dead worker left half-written of an item; called by the driver."""
        return None

    def split(self, item: Item) -> Sequence[Item]:
        """What is tried in place of an item that a worker died with: its parts, or the item itself."""
        return [item]

    def label(self, item: Item) -> str:
        """One line that names the item in a dashboard."""
        return str(item)


@dataclass(frozen=True)
class Started:
    """A worker has begun with the item. ``attempt`` is 2 after a first worker died with it.

    ``worker`` names the worker and ends in its process id: ``process 123``, ``10.0.0.7 process 123``.
    """

    item: Any
    worker: str
    attempt: int


@dataclass(frozen=True)
class Advanced:
    """What the work reported about the item while it works on it."""

    item: Any
    message: Any


@dataclass(frozen=True)
class Finished:
    """The item is done. Each item has exactly one such event, or one for each part it was split into."""

    item: Any
    outcome: Any
    attempt: int = 1


@dataclass(frozen=True)
class Workers:
    """How many workers start, how many are ready (idle or at work), how many have died so far."""

    starting: int
    ready: int
    lost: int


Event = Started | Advanced | Finished | Workers
OnEvent = Callable[[Event], None]


@contextmanager
def threads_limited(threads: int) -> Iterator[None]:
    """Around :meth:`Work.open` in a worker: PyTorch uses so many threads, whenever it is imported."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    _limit_torch(threads)
    yield
    _limit_torch(threads)


def _limit_torch(threads: int) -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


class Pool(Protocol):
    """Workers that share the items."""

    def run(self, items: Iterable[Item], work: Work[Item, Tool, Outcome_co], on_event: OnEvent) -> None:
        """Do the work to every item; returns when all have ended.

        Items are pulled lazily, a few per worker at most are in flight. A worker that dies costs only what it
        had in hand: that is tried once more, by another worker, and set aside when that dies too. Whatever
        is raised (Ctrl-C too), no worker stays behind.

        Args:
            on_event: called in the process and thread that called ``run``; what it raises ends the run.

        Raises:
            WorkerError: workers cannot start.
            LofError: of :meth:`Work.open`.
        """


class ThisProcess:
    """A :class:`Pool` without workers: one item after the other in this process, with its threads."""

    def run(self, items: Iterable[Item], work: Work[Item, Tool, Outcome_co], on_event: OnEvent) -> None:
        """Do the items in their order; nothing is opened where there are none."""
        tool: Tool | None = None
        worker = f"process {os.getpid()}"
        for item in items:
            if tool is None:
                tool = work.open()
            on_event(Started(item, worker, attempt=1))
            outcome = work.do(tool, item, lambda message, i=item: on_event(Advanced(i, message)))  # type: ignore[misc]
            on_event(Finished(item, outcome))
