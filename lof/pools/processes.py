"""Several items at once, each in a process of its own.

Every worker has one pipe to the process that runs the pool: items go down, messages and outcomes come up.
A worker that dies closes its pipe; only the item it had in hand is lost, and is tried once more.
(``concurrent.futures`` gives up the whole pool when one of its processes is killed. Pebble does not, but it has
no word of which worker holds an item nor a way for it to report progress, so both would stand beside it.)

On Linux workers are forked from a server that has imported PyTorch once for all of them, elsewhere they are spawned.
Each opens its tool once. Bytes depend on the number of threads, see :func:`threads_per_worker`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any

from lof.errors import LofError
from lof.pools.base import Item, OnEvent, Outcome_co, Tool, Work, threads_limited
from lof.pools.team import Crew, Died, Say, Team, Worker

_PATIENCE = 10.0  # seconds that a worker has to leave when told to
_PRELOADED = ["lof.api", "lof.codecs.network"]  # what takes workers seconds to import; uses no GPU
if sys.platform == "linux":
    _CONTEXT = multiprocessing.get_context("forkserver")
else:
    _CONTEXT = multiprocessing.get_context("spawn")


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
    """A :class:`lof.pools.Pool` of up to ``jobs`` processes on this machine, none of which is a copy of this one.

    A script that uses it needs the ``if __name__ == "__main__"`` guard.

    Args:
        threads: of PyTorch in each worker; ``None``: see :func:`threads_per_worker`.
    """

    def __init__(self, jobs: int, threads: int | None = None) -> None:
        self.jobs, self.threads = jobs, threads

    def run(self, items: Iterable[Item], work: Work[Item, Tool, Outcome_co], on_event: OnEvent) -> None:
        """See :meth:`lof.pools.Pool.run`."""
        items = iter(items)
        first = list(islice(items, self.jobs))
        if first:
            threads = self.threads or threads_per_worker(
                self.jobs
            )  # also where there are fewer items than jobs
            Team(_Crew(work, len(first), threads), chain(first, items), work, on_event).run()


class _Process(Worker):
    def __init__(self, work: Work[Any, Any, Any], threads: int) -> None:
        self.pipe, there = _CONTEXT.Pipe()
        # The server has kept the environment in which it was started.
        arguments = (there, work, threads, dict(os.environ))
        self.process = _CONTEXT.Process(target=_work, args=arguments, daemon=True, name="lof worker")
        try:
            self._start()
        except BaseException:
            self.pipe.close()
            raise
        finally:
            there.close()  # or the pipe would stay open when the worker dies

    def _start(self) -> None:
        if sys.platform == "linux":
            _CONTEXT.set_forkserver_preload(_PRELOADED)
            with _interrupts_ignored():
                forkserver.ensure_running()
            self.process.start()  # which waits for the imports of the server, and can be interrupted
        else:
            with _interrupts_ignored():
                self.process.start()

    def receive(self) -> tuple[Say, Any]:
        try:
            say, content = self.pipe.recv()
        except (EOFError, OSError):
            self.wait()
            raise Died(_how_it_ended(self.process.exitcode)) from None
        if isinstance(content, LofError):
            raise content
        return say, content

    def begin(self, item: Any, label: str) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send(item)

    def dismiss(self) -> None:
        self.begin(None, "")
        self.wait()

    def kill(self) -> None:
        self.process.terminate()

    def wait(self) -> None:
        """A file being written is finished or removed; a process that takes too long is ended by force."""
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


class _Crew(Crew):
    noun, remedy = "worker process", "use fewer --jobs"

    def __init__(self, work: Work[Any, Any, Any], size: int, threads: int) -> None:
        self.work, self.size, self.threads = work, size, threads

    def start(self) -> _Process:
        return _Process(self.work, self.threads)

    def listen(self, workers: list[_Process]) -> Iterable[Worker]:
        ready = wait([worker.pipe for worker in workers])
        return [worker for worker in workers if worker.pipe in ready]


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


def _work(pipe: Connection, work: Work[Any, Any, Any], threads: int, environment: Mapping[str, str]) -> None:
    """Body of a worker process."""
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As an exception, so that a file being written is cleaned up on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        try:
            with threads_limited(threads):
                tool = work.open()
        except LofError as error:
            pipe.send((Say.READY, error))
            return
        pipe.send((Say.READY, f"process {os.getpid()}"))
        while (item := pipe.recv()) is not None:
            outcome = work.do(tool, item, lambda message: pipe.send((Say.ADVANCED, message)))
            pipe.send((Say.FINISHED, outcome))
    except (EOFError, ConnectionError):
        return  # the process that runs the pool is gone
