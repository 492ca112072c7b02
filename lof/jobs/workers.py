"""Several images at once, each in a process of its own.

Every worker has one pipe to the process that runs the job: sources go down, progress and records come up.
A worker that dies closes its pipe; only the image it had in hand is lost, and is tried once more.
(``concurrent.futures`` gives up the whole pool when one of its processes is killed.)

Workers are spawned, so the settings, the sources, the progress and the records travel pickled, and codecs
are loaded once per worker. Bytes depend on the number of threads, see :func:`threads_per_worker`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lof.errors import LofError, WorkerError
from lof.inputs import Source, output_path
from lof.jobs.crops import crop_path
from lof.jobs.events import Advanced, OnEvent, Started
from lof.jobs.leftovers import remove_leftovers
from lof.jobs.settings import JobSettings
from lof.jobs.work import failed_record, optimise_file, outcome

ATTEMPTS = 2
_PATIENCE = 10.0  # seconds that a worker has to leave when told to
_READY = "ready"


def threads_per_worker(jobs: int) -> int:
    """The cores of this process shared out among ``jobs`` workers, at least 1 each.

    PyTorch sums in another order with another number of threads. Searches with other ``jobs`` therefore end
    in streams that are as good but differ in some bytes; with the same number of threads the bytes are equal.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    source: Source | None = None
    ready: bool = False


def work_in_processes(
    sources: Sequence[Source], out: Path, settings: JobSettings, jobs: int, on_event: OnEvent
) -> None:
    """Do the sources with ``jobs`` workers; ``on_event`` is called in this process and thread.

    Raises:
        WorkerError: a worker could not start.
        LofError: a worker could not load the codec.
    """
    team = _Team(sources, out, settings, jobs, on_event)
    try:
        team.run()
    finally:
        team.stop()


class _Team:
    def __init__(
        self, sources: Sequence[Source], out: Path, settings: JobSettings, jobs: int, on_event: OnEvent
    ) -> None:
        self.waiting = deque(sources)
        self.size = min(jobs, len(sources))
        self.out, self.settings, self.on_event = out, settings, on_event
        self.deaths: Counter[Source] = Counter()
        self.workers: dict[Connection, _Worker] = {}

    def run(self) -> None:
        while self.waiting or self.workers:
            while self.waiting and len(self.workers) < self.size:
                self._hand_over(self._hire())
            for pipe in wait(list(self.workers)):
                worker = self.workers[pipe]  # type: ignore[index]
                try:
                    message = worker.pipe.recv()
                except (EOFError, OSError):
                    self._bury(worker)
                else:
                    self._listen(worker, message)

    def stop(self) -> None:
        """End all workers; an image in hand is lost, a file being written is finished or removed."""
        for worker in self.workers.values():
            worker.process.terminate()
        for worker in self.workers.values():
            worker.process.join(_PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            self._clean_up(worker)
        self.workers.clear()

    def _listen(self, worker: _Worker, message: Any) -> None:
        assert worker.source is not None
        if isinstance(message, LofError):
            raise message
        if message == _READY:
            worker.ready = True
        elif isinstance(message, dict):
            if message["state"] == "done" and self.deaths[worker.source]:
                message["notes"].append("done at the second attempt, its first worker process died")
            self.on_event(outcome(worker.source, message))
            self._hand_over(worker)
        else:
            self.on_event(Advanced(worker.source, message))

    def _hire(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(
            target=_work, args=(there, self.out, self.settings, threads_per_worker(self.size)), daemon=True
        )
        with _interrupts_ignored():
            process.start()
        there.close()  # or the pipe would stay open when the worker dies
        worker = self.workers[here] = _Worker(process, here)
        return worker

    def _hand_over(self, worker: _Worker) -> None:
        worker.source = self.waiting.popleft() if self.waiting else None
        if worker.source is None:
            self._dismiss(worker)
            return
        assert worker.process.pid is not None
        self.on_event(Started(worker.source, worker.process.pid, self.deaths[worker.source] + 1))
        with contextlib.suppress(OSError):  # it has died; the next `recv` will say so
            worker.pipe.send(worker.source)

    def _dismiss(self, worker: _Worker) -> None:
        with contextlib.suppress(OSError):
            worker.pipe.send(None)
        worker.process.join(_PATIENCE)
        del self.workers[worker.pipe]
        worker.pipe.close()

    def _bury(self, worker: _Worker) -> None:
        worker.process.join(_PATIENCE)
        del self.workers[worker.pipe]
        worker.pipe.close()
        self._clean_up(worker)
        how = _how_it_ended(worker.process.exitcode)
        source = worker.source
        assert source is not None
        if not worker.ready:
            raise WorkerError(f"a worker process {how} while it started; use fewer --jobs")
        self.deaths[source] += 1
        if self.deaths[source] < ATTEMPTS:
            self.waiting.appendleft(source)
            return
        error = (
            f"{source.path}: its worker process {how}, {ATTEMPTS} times; "
            "if memory is short, scale the image down or use fewer --jobs"
        )
        self.on_event(outcome(source, failed_record(source, error)))

    def _clean_up(self, worker: _Worker) -> None:
        if worker.source is not None:
            output = output_path(worker.source, self.out, self.settings.suffix)
            remove_leftovers([output, crop_path(self.out, worker.source.relative)])


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed ({signal.Signals(-code).name})"
    return f"ended with exit code {code}"


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    # Ctrl-C reaches the whole process group. Workers inherit that it is ignored, from their first moment on,
    # and are ended by the process that runs the job.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(pipe: Connection, out: Path, settings: JobSettings, threads: int) -> None:
    """Body of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As an exception, so that a file being written is cleaned up on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    import torch

    torch.set_num_threads(threads)
    try:
        try:
            codec = settings.load()
        except LofError as error:
            pipe.send(error)
            return
        pipe.send(_READY)
        while (source := pipe.recv()) is not None:
            pipe.send(optimise_file(source, out, settings, codec, pipe.send))
    except (EOFError, ConnectionError):
        return  # the process that runs the job is gone
