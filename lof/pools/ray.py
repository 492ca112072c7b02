"""The workers of a Ray cluster: one actor each, every item a task with a name of its own.

Actors, not Ray Data: each item's progress, worker and death have to be known one by one. ``map_batches`` tells
of neither, restarts whole blocks, and costs more per item (with one-row blocks 32…77 ms on two cores, where an
actor's call costs 3).

A call streams: first what the work reports, then its outcome. One call per worker is in flight, so that a
worker or node that dies costs what it had in hand and nothing else.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from lof.pools.cluster import LOCAL, Share, connected, require_ray, share_out
from lof.pools.queue import Queue, Task

_PATIENCE = 5.0  # seconds for killed workers to be gone
_POLL = 5.0  # seconds between looks at whether there are still nodes for workers that wait for one
_numbers = itertools.count(1)


class RayCluster:
    """A :class:`lof.pools.Pool` of actors.

    Args:
        address: ``local`` starts Ray on this machine and ends it after the run, ``auto`` finds one that runs
            here, else ``HOST:PORT`` of a head node. A process that is connected already stays so.
        workers: ``None``: as many as the cluster has room for.
        num_gpus: of each worker, fractions too; ``None``: one where the cluster has any.
        threads: of PyTorch in each worker, and cores that it takes; ``None``: its share of the cores, or one
            where ``workers`` is open too.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: the address is none that a driver can use.
        WorkerError: nobody answers there.
    """

    def __init__(
        self,
        address: str = LOCAL,
        workers: int | None = None,
        num_gpus: float | None = None,
        threads: int | None = None,
    ) -> None:
        require_ray(address)
        self.address, self.workers, self.num_gpus, self.threads = address, workers, num_gpus, threads

    def run(self, items: Iterable[Item], work: Work[Item, Tool, Outcome_co], on_event: OnEvent) -> None:
        """See :meth:`lof.pools.Pool.run`.

        Raises:
            UsageError: no node is large enough for one worker.
        """
        waiting = Queue(items, work)
        if not waiting:
            return
        with connected(self.address, self.workers, self.threads) as ray:
            share = share_out(ray, self.workers, self.threads, self.num_gpus)
            team = _Team(ray, waiting, share, on_event)
            try:
                team.run()
            finally:
                team.stop()


class LofWorker:
    """Body of an actor; its name stands in the dashboard."""

    def __init__(
        self, work: Work[Any, Any, Any], threads: int, folder: str, environment: dict[str, str]
    ) -> None:
        # Names are relative to the driver's folder, where this node has it.
        with contextlib.suppress(OSError):
            os.chdir(folder)
        os.environ.update(environment)
        self.work, self.threads, self.tool = work, threads, None
        # One thread for all items: PyTorch keeps a pool of its own for each thread that calls it.
        self.thread = ThreadPoolExecutor(1)

    def open(self) -> str:
        """Open the tool; the worker's name."""
        import ray

        self.thread.submit(self._open).result()
        return f"{ray.util.get_node_ip_address()} process {os.getpid()}"

    def do(self, item: Any) -> Iterator[tuple[bool, Any]]:
        """``(False, message)`` for all that the work reports, then ``(True, outcome)``."""
        told: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
        doing = self.thread.submit(self.work.do, self.tool, item, lambda message: told.put((False, message)))
        doing.add_done_callback(lambda _: told.put((True, None)))
        while True:
            ended, message = told.get()
            yield (True, doing.result()) if ended else (False, message)
            if ended:
                return

    def _open(self) -> None:
        with threads_limited(self.threads):
            self.tool = self.work.open()


@dataclass(eq=False)
class _Worker:
    """``pending`` is what the driver waits for: the start, or the stream of the task in hand."""

    actor: Any
    pending: Any
    name: str = ""
    task: Task | None = None

    @property
    def ready(self) -> bool:
        return bool(self.name)


class _Team:
    def __init__(self, ray: Any, waiting: Queue, share: Share, on_event: OnEvent) -> None:
        self.ray, self.queue, self.share, self.on_event = ray, waiting, share, on_event
        self.work = ray.put(waiting.work)
        self.actor = ray.remote(LofWorker)
        self.workers: list[_Worker] = []
        self.lost = self.failed_starts = 0

    def run(self) -> None:
        while True:
            busy = sum(worker.task is not None for worker in self.workers)
            wanted = min(self.share.workers, busy + self.queue.count_up_to(self.share.workers))
            if not wanted:
                return
            for _ in range(wanted - len(self.workers)):
                self._hire()
            pending = {worker.pending: worker for worker in self.workers}
            ready, _ = self.ray.wait(list(pending), num_returns=1, timeout=_POLL)
            for reference in ready:
                self._listen(pending[reference])
            if not ready and not any(worker.ready for worker in self.workers):
                share_out(self.ray, self.share.workers, self.share.threads, self.share.num_gpus)

    def stop(self) -> None:
        """End all workers and wait until those at work are gone; what they had in hand is lost."""
        for worker in self.workers:
            self.ray.kill(worker.actor)
        for worker in self.workers:
            if worker.task is not None:
                with contextlib.suppress(self.ray.exceptions.RayError):
                    self.ray.get(worker.actor.open.remote(), timeout=_PATIENCE)
                self.queue.work.clean_up(worker.task.item)
        self.workers.clear()

    def _hire(self) -> None:
        share = self.share
        environment = {name: text for name, text in os.environ.items() if name.startswith("LOF_")}
        actor = self.actor.options(
            name=f"lof worker {os.getpid()}-{next(_numbers)}",
            num_cpus=share.threads,
            num_gpus=share.num_gpus,
            scheduling_strategy="SPREAD",
            max_restarts=0,
        ).remote(self.work, share.threads, os.getcwd(), environment)
        self.workers.append(_Worker(actor, actor.open.options(name="load the codec").remote()))
        self._count()

    def _listen(self, worker: _Worker) -> None:
        task = worker.task
        try:
            if task is None:
                worker.name = self.ray.get(worker.pending)
            else:
                ended, message = self.ray.get(next(worker.pending))
        except self.ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if task is None and isinstance(cause, LofError):
                raise cause from error
            self._bury(worker, _how_it_ended(error))
            return
        if task is None:
            self.failed_starts = 0
            self._count()
            if not self._hand_over(worker):
                self._dismiss(worker)
        elif ended:
            self.on_event(Ended(task.item, message, task.attempt))
            call = worker.pending
            if not self._hand_over(worker):
                # Its outcome is here, the call itself has yet to end: killed now, the dashboard would call it failed.
                self.ray.wait([call.completed()], timeout=_PATIENCE)
                self._dismiss(worker)
        else:
            self.on_event(Told(task.item, message))

    def _hand_over(self, worker: _Worker) -> bool:
        worker.task = self.queue.take()
        if worker.task is None:
            return False
        item = worker.task.item
        label = self.queue.work.label(item)
        worker.pending = worker.actor.do.options(num_returns="streaming", name=label).remote(item)
        self.on_event(Began(item, worker.name, worker.task.attempt))
        return True

    def _dismiss(self, worker: _Worker) -> None:
        self.ray.kill(worker.actor)
        self.workers.remove(worker)
        self._count()

    def _bury(self, worker: _Worker, how: str) -> None:
        self.lost += 1
        self._dismiss(worker)  # kills where the driver has only lost sight of it
        if worker.task is None:
            self.failed_starts += 1
            if self.failed_starts >= FAILED_STARTS:
                raise WorkerError(f"a Ray worker died while it started ({how}); look at the cluster's logs")
            return
        self.queue.work.clean_up(worker.task.item)
        ended = self.queue.give_back(worker.task, f"its Ray worker died ({how})")
        if ended is not None:
            self.on_event(ended)

    def _count(self) -> None:
        ready = sum(worker.ready for worker in self.workers)
        self.on_event(Staff(len(self.workers) - ready, ready, self.lost))


def _how_it_ended(error: BaseException) -> str:
    """The one sentence that matters of the many that Ray has; for people, nothing is decided by it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return text.rpartition("exit detail: ")[2].partition(". ")[0].rstrip(".")[:200]
