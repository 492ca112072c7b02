"""Several items at once, each in a process of its own.

Every worker has one pipe to the process that runs the pool: items go down, messages and outcomes come up.
A worker that dies closes its pipe; only the item it had in hand is lost, and is tried once more.
(``concurrent.futures`` gives up the whole pool when one of its processes is killed.)

Workers are spawned and open their tool once. Bytes depend on the number of threads, see
:func:`threads_per_worker`.
"""

from __future__ import annotations

import contextlib
import enum
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from lof.errors import LofError, WorkerError
from lof.pools.base import (
    FAILED_STARTS,
    Began,
    Ended,
    Item,
    OnEvent,
    Outcome_co,
    Staff,
    Told,
    Tool,
    Work,
    threads_limited,
)
from lof.pools.queue import Queue, Task

_PATIENCE = 10.0  # seconds that a worker has to leave when told to


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_per_worker(jobs: int) -> int:
    """The cores of this process shared out among ``jobs`` workers, at least 1 each.

    PyTorch sums in another order with another number of threads. Searches with other ``jobs`` therefore end
    in streams that are as good but differ in some bytes; with the same number of threads the bytes are equal.
    """
    return max(1, cores() // jobs)


class Processes:
    """A :class:`lof.pools.Pool` of up to ``jobs`` spawned processes on this machine.

    A script that uses it needs the ``if __name__ == "__main__"`` guard.

    Args:
        threads: of PyTorch in each worker; ``None``: see :func:`threads_per_worker`.
    """

    def __init__(self, jobs: int, threads: int | None = None) -> None:
        self.jobs, self.threads = jobs, threads

    def run(self, items: Iterable[Item], work: Work[Item, Tool, Outcome_co], on_event: OnEvent) -> None:
        """See :meth:`lof.pools.Pool.run`."""
        queue = Queue(items, work)
        team = _Team(queue, self.jobs, self.threads, on_event)
        try:
            team.run()
        finally:
            team.stop()


class _Kind(enum.Enum):
    READY, TOLD, ENDED, FAILED = range(4)


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: Task | None = None
    ready: bool = False


class _Team:
    def __init__(self, queue: Queue, jobs: int, threads: int | None, on_event: OnEvent) -> None:
        self.queue, self.on_event = queue, on_event
        self.size = queue.count_up_to(jobs)
        self.threads = threads or threads_per_worker(max(1, self.size))
        self.workers: dict[Connection, _Worker] = {}
        self.lost = self.failed_starts = 0

    def run(self) -> None:
        while True:
            busy = sum(worker.task is not None for worker in self.workers.values())
            wanted = min(self.size, busy + self.queue.count_up_to(self.size))
            if not wanted:
                return
            for _ in range(wanted - len(self.workers)):
                self._hire()
            for pipe in wait(list(self.workers)):
                worker = self.workers[pipe]  # type: ignore[index]
                try:
                    kind, content = worker.pipe.recv()
                except (EOFError, OSError):
                    self._bury(worker)
                else:
                    self._listen(worker, kind, content)

    def stop(self) -> None:
        """End all workers; an item in hand is lost, a file being written is finished or removed."""
        for worker in self.workers.values():
            worker.process.terminate()
        for worker in self.workers.values():
            _wait_for(worker.process)
            if worker.task is not None:
                self.queue.work.clean_up(worker.task.item)
        self.workers.clear()

    def _listen(self, worker: _Worker, kind: _Kind, content: Any) -> None:
        match kind, worker.task:
            case _Kind.FAILED, _:
                raise content
            case _Kind.READY, _:
                worker.ready = True
                self.failed_starts = 0
                self._count()
                self._hand_over(worker)
            case _Kind.TOLD, Task(item):
                self.on_event(Told(item, content))
            case _Kind.ENDED, Task(item, attempt):
                self.on_event(Ended(item, content, attempt))
                self._hand_over(worker)

    def _hire(self) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(
            target=_work, args=(there, self.queue.work, self.threads), daemon=True, name="lof worker"
        )
        with _interrupts_ignored():
            process.start()
        there.close()  # or the pipe would stay open when the worker dies
        self.workers[here] = _Worker(process, here)
        self._count()

    def _hand_over(self, worker: _Worker) -> None:
        worker.task = self.queue.take()
        if worker.task is None:
            self._dismiss(worker)
            return
        self.on_event(Began(worker.task.item, f"process {worker.process.pid}", worker.task.attempt))
        with contextlib.suppress(OSError):  # it has died; the next `recv` will say so
            worker.pipe.send(worker.task.item)

    def _dismiss(self, worker: _Worker) -> None:
        with contextlib.suppress(OSError):
            worker.pipe.send(None)
        _wait_for(worker.process)
        self._forget(worker)

    def _bury(self, worker: _Worker) -> None:
        _wait_for(worker.process)
        self.lost += 1
        self._forget(worker)
        how = _how_it_ended(worker.process.exitcode)
        if worker.task is None:
            self.failed_starts += 1
            if self.failed_starts >= FAILED_STARTS:
                raise WorkerError(f"a worker process {how} while it started; use fewer --jobs")
            return
        self.queue.work.clean_up(worker.task.item)
        ended = self.queue.give_back(worker.task, f"its worker process {how}")
        if ended is not None:
            self.on_event(ended)

    def _forget(self, worker: _Worker) -> None:
        del self.workers[worker.pipe]
        worker.pipe.close()
        self._count()

    def _count(self) -> None:
        ready = sum(worker.ready for worker in self.workers.values())
        self.on_event(Staff(len(self.workers) - ready, ready, self.lost))


def _wait_for(process: BaseProcess) -> None:
    """Until a process that should end has ended, by force where it takes too long."""
    process.join(_PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed ({signal.Signals(-code).name})"
    return f"ended with exit code {code}"


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    # Ctrl-C reaches the whole process group. Workers inherit that it is ignored, from their first moment on,
    # and are ended by the process that runs the pool.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(pipe: Connection, work: Work[Any, Any, Any], threads: int) -> None:
    """Body of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As an exception, so that a file being written is cleaned up on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        try:
            with threads_limited(threads):
                tool = work.open()
        except LofError as error:
            pipe.send((_Kind.FAILED, error))
            return
        pipe.send((_Kind.READY, None))
        while (item := pipe.recv()) is not None:
            pipe.send((_Kind.ENDED, work.do(tool, item, lambda message: pipe.send((_Kind.TOLD, message)))))
    except (EOFError, ConnectionError):
        return  # the process that runs the pool is gone
