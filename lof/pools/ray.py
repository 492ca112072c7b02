"""The workers of a Ray cluster: one actor each, every item a task with a name of its own.

Actors, not Ray Data: each item's progress, worker and death have to be known one by one. ``map_batches`` reports
neither, restarts whole blocks, and costs more per item (with one-row blocks 32…77 ms on two cores, where an
actor's call costs 3).

A call streams: first what the work reports, then its outcome. One call per worker is in flight, so that a
worker or node that dies costs what it had in hand and nothing else.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lof.errors import LofError
from lof.pools.base import Item, OnEvent, Outcome_co, Tool, Work, threads_limited
from lof.pools.cluster import LOCAL, Share, connected, require_ray, share_out
from lof.pools.team import Crew, Died, Say, Team, Worker

_PATIENCE = 60.0  # seconds for killed workers to be gone; Ray itself waits 5 before it forces one that hangs
_GLANCE = 0.02  # seconds between looks at a process that ends
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
        items = iter(items)
        first = list(itertools.islice(items, 1))
        if not first:
            return
        with connected(self.address, self.workers, self.threads) as ray:
            share = share_out(ray, self.workers, self.threads, self.num_gpus)
            Team(_Crew(ray, work, share), itertools.chain(first, items), work, on_event).run()


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

    def open(self) -> tuple[str, str, int]:
        """Open the tool; the worker's name, its node and its process."""
        import ray

        self.thread.submit(self._open).result()
        node, process = ray.get_runtime_context().get_node_id(), os.getpid()
        return f"{ray.util.get_node_ip_address()} process {process}", node, process

    def do(self, item: Any) -> Iterator[tuple[Say, Any]]:
        """All that the work reports, then its outcome."""
        said: queue.SimpleQueue[tuple[Say, Any]] = queue.SimpleQueue()
        doing = self.thread.submit(
            self.work.do, self.tool, item, lambda message: said.put((Say.ADVANCED, message))
        )
        doing.add_done_callback(lambda _: said.put((Say.FINISHED, None)))
        while (next_said := said.get())[0] is Say.ADVANCED:
            yield next_said
        yield Say.FINISHED, doing.result()

    def _open(self) -> None:
        with threads_limited(self.threads):
            self.tool = self.work.open()


def until_gone(process: int, seconds: float) -> None:
    """Wait until a process of this machine has ended, for some seconds at most."""
    end = time.monotonic() + seconds
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.kill(process, 0)
            time.sleep(_GLANCE)


class _Actor(Worker):
    """``pending`` is what the driver waits for: the start, or the stream of the task in hand."""

    node, process = "", 0

    def __init__(self, ray: Any, actor: Any) -> None:
        self.ray, self.actor = ray, actor
        self.pending = actor.open.options(name="load the codec").remote()

    def receive(self) -> tuple[Say, Any]:
        try:
            if self.task is None:
                name, self.node, self.process = self.ray.get(self.pending)
                return Say.READY, name
            say, content = self.ray.get(next(self.pending))
            return say, content
        except self.ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if self.task is None and isinstance(cause, LofError):
                raise cause from error
            raise Died(f"died ({_how_it_ended(error)})") from error

    def begin(self, item: Any, label: str) -> None:
        name = label.encode(
            "utf-8", "backslashreplace"
        ).decode()  # Ray's names are UTF-8, file names need not be
        self.pending = self.actor.do.options(num_returns="streaming", name=name).remote(item)

    def dismiss(self) -> None:
        # The last outcome is here, its call has yet to end: killed now, the dashboard would call it failed.
        if hasattr(self.pending, "completed"):
            self.ray.wait([self.pending.completed()], timeout=_PATIENCE)
        self.kill()

    def kill(self) -> None:
        self.ray.kill(self.actor)

    def wait(self) -> None:
        """Ray calls an actor dead a little before its process is, which may still write: its node is asked."""
        if self.task is None:
            return
        where = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(self.node, soft=False)
        asked = self.ray.remote(until_gone).options(num_cpus=0, max_retries=0, scheduling_strategy=where)
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.get(asked.remote(self.process, _PATIENCE), timeout=2 * _PATIENCE)


class _Crew(Crew):
    noun, remedy = "Ray worker", "look at the cluster's logs"

    def __init__(self, ray: Any, work: Work[Any, Any, Any], share: Share) -> None:
        self.ray, self.share, self.size = ray, share, share.workers
        self.work = ray.put(work)
        self.actor = ray.remote(LofWorker)

    def start(self) -> _Actor:
        environment = {name: text for name, text in os.environ.items() if name.startswith("LOF_")}
        options = self.actor.options(
            name=f"lof worker {os.getpid()}-{next(_numbers)}",
            num_cpus=self.share.threads,
            num_gpus=self.share.num_gpus,
            scheduling_strategy="SPREAD",
            max_restarts=0,
        )
        return _Actor(self.ray, options.remote(self.work, self.share.threads, os.getcwd(), environment))

    def listen(self, workers: list[_Actor]) -> Iterable[Worker]:
        pending = {worker.pending: worker for worker in workers}
        ready, _ = self.ray.wait(list(pending), num_returns=1, timeout=_POLL)
        if not ready and not any(worker.name for worker in workers):
            share_out(self.ray, self.share.workers, self.share.threads, self.share.num_gpus)
        return [pending[reference] for reference in ready]


def _how_it_ended(error: BaseException) -> str:
    """The one sentence that matters of the many that Ray has; for people, nothing is decided by it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return text.rpartition("exit detail: ")[2].partition(". ")[0].rstrip(".")[:200]
