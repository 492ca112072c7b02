"""A team of workers: who gets which item, and what happens when one dies.

How a worker is started and spoken to is a :class:`Crew`'s: :mod:`lof.pools.processes`, :mod:`lof.pools.ray`.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

from lof.errors import WorkerError, one_line
from lof.pools.base import ATTEMPTS, FAILED_STARTS, Advanced, Finished, OnEvent, Started, Work, Workers


class Say(enum.Enum):
    """What a worker says: it is ready (its name), it reports (the message), it has finished (the outcome)."""

    READY, ADVANCED, FINISHED = range(3)


class Died(Exception):
    """A worker is gone; the text continues ``its worker process …``."""


class Task(NamedTuple):
    """An item and which attempt at it this is."""

    item: Any
    attempt: int = 1


class Worker(ABC):
    """One started worker."""

    name = ""
    task: Task | None = None

    @abstractmethod
    def receive(self) -> tuple[Say, Any]:
        """The next thing that it says; raises :class:`Died`, or the error of :meth:`lof.pools.Work.open`."""

    @abstractmethod
    def begin(self, item: Any, label: str) -> None:
        """Hand it an item. Where it has died meanwhile, :meth:`receive` says so."""

    @abstractmethod
    def dismiss(self) -> None:
        """End it when it is idle."""

    @abstractmethod
    def kill(self) -> None:
        """End it whatever it does; returns at once."""

    @abstractmethod
    def wait(self) -> None:
        """Until it is gone, after :meth:`kill`."""


class Crew(ABC):
    """A way to start up to ``size`` workers; ``noun`` and ``remedy`` are for errors."""

    size: int
    noun: str
    remedy: str

    @abstractmethod
    def start(self) -> Worker:
        """One more worker, which loads what it needs and then says that it is ready."""

    @abstractmethod
    def listen(self, workers: list[Any]) -> Iterable[Worker]:
        """Wait, and return those that have something to say."""


class Team:
    """Workers that share the items, until all have ended."""

    def __init__(
        self, crew: Crew, items: Iterable[Any], work: Work[Any, Any, Any], on_event: OnEvent
    ) -> None:
        self.crew, self.work, self.on_event = crew, work, on_event
        self.items = iter(items)
        self.waiting: deque[Task] = deque()
        self.workers: list[Worker] = []
        self.lost = self.failed_starts = 0

    def run(self) -> None:
        """See :meth:`lof.pools.Pool.run`."""
        try:
            while wanted := self._wanted():
                for _ in range(wanted - len(self.workers)):
                    self.workers.append(self._started())
                    self._count()
                for worker in self.crew.listen(self.workers):
                    self._listen(worker)
        finally:
            self._stop()

    def _started(self) -> Worker:
        try:
            return self.crew.start()
        except OSError as error:
            raise WorkerError(
                f"a {self.crew.noun} cannot start ({one_line(error)}); {self.crew.remedy}"
            ) from error

    def _wanted(self) -> int:
        """Workers that there is work for; items are pulled only as far as it takes to know."""
        size = self.crew.size
        self.waiting.extend(map(Task, islice(self.items, max(0, size - len(self.waiting)))))
        return min(size, len(self.waiting) + sum(worker.task is not None for worker in self.workers))

    def _listen(self, worker: Worker) -> None:
        try:
            say, content = worker.receive()
        except Died as death:
            self._bury(worker, str(death))
            return
        task = worker.task
        if task is None:
            worker.name = content
            self.failed_starts = 0
            self._count()
        elif say is Say.ADVANCED:
            self.on_event(Advanced(task.item, content))
            return
        else:
            self.on_event(Finished(task.item, content, task.attempt))
        self._hand_over(worker)

    def _hand_over(self, worker: Worker) -> None:
        self.waiting.extend(map(Task, islice(self.items, 0 if self.waiting else 1)))
        worker.task = self.waiting.popleft() if self.waiting else None
        if worker.task is None:
            worker.dismiss()
            self._forget(worker)
            return
        item, attempt = worker.task
        self.on_event(Started(item, worker.name, attempt))
        worker.begin(item, self.work.label(item))

    def _bury(self, worker: Worker, how: str) -> None:
        worker.kill()  # where it is alive and only out of reach
        self.lost += 1
        self._forget(worker)
        if worker.task is None:
            self.failed_starts += 1
            if self.failed_starts >= FAILED_STARTS:
                raise WorkerError(f"a {self.crew.noun} {how} while it started; {self.crew.remedy}")
            return
        item, attempt = worker.task
        self.work.clean_up(item)
        parts = self.work.split(item)
        if len(parts) > 1 or attempt < ATTEMPTS:
            self.waiting.extendleft(Task(part, attempt + 1) for part in reversed(parts))
        else:
            outcome = self.work.lost(item, f"its {self.crew.noun} {how}, {attempt} times")
            self.on_event(Finished(item, outcome, attempt))

    def _forget(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self._count()

    def _count(self) -> None:
        ready = sum(bool(worker.name) for worker in self.workers)
        self.on_event(Workers(len(self.workers) - ready, ready, self.lost))

    def _stop(self) -> None:
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            worker.wait()
            if worker.task is not None:
                self.work.clean_up(worker.task.item)
        self.workers.clear()
