"""A child process that reads spoilt files within limits of time and memory, and says which lines of lof it came by."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any

import psutil

import lof
from lof.errors import LofError
from pipelines.fuzz_spoil import spoilt

Read = Callable[[bytes, Path], object]
Spoil = Callable[[Random, bytes], bytes]
Line = tuple[str, int]

SECONDS, BYTES = 10.0, 10**9
"""Limits for one case: processor time, and memory beyond what the child had before its first case."""
_IDLE = 12
"""How many times longer a case may take by the clock: the machine may be busy, or the reader wait for ever."""
_KEPT = 2 * 10**8
"""Memory that cases may leave behind until the child is replaced, in bytes."""
_PATIENCE = 600.0
"""Seconds by the clock until a child must have started."""
_STARTING = -1
"""Stands for the number of a case before the first."""
_HERE = str(Path(lof.__file__).parent) + os.sep


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Attributes:
        read: reads a file's content, in an empty folder; a :class:`lof.errors.LofError` is a proper answer.
        seeds: good files, by name.
        spoil: makes another file of a good one; what is generic (:func:`pipelines.fuzz_spoil.spoilt`) is done to
            all kinds.
    """

    read: Read
    seeds: Callable[[], Mapping[str, bytes]]
    spoil: Spoil | None = None


@dataclass(frozen=True)
class Answer:
    """What a reader made of a file.

    Attributes:
        data: the file.
        found: the answer's kind and its words, in a line.
        bad: whether it is a find.
        seconds: processor time.
        used: the most memory beyond that of the child before its first case, in bytes.
        lines: lines of lof that this child had not come by before.
    """

    data: bytes
    found: str
    bad: bool
    seconds: float = 0.0
    used: int = 0
    lines: frozenset[Line] = frozenset()

    @property
    def kind(self) -> str:
        """The answer without its numbers and names, which differ from file to file."""
        return re.sub(r"[0-9a-f]{6,}|\d+|b?'.*?'", "#", self.found)[:200]


@dataclass(frozen=True)
class Batch:
    """What came of some cases.

    Attributes:
        cases: how many were read.
        answers: those that came by new lines, or that are bad.
        longest: processor time of the slowest, in seconds.
        most: memory of the largest, in bytes.
        left: memory that the child holds now, beyond what it had before its first case, in bytes.
    """

    cases: int
    answers: tuple[Answer, ...]
    longest: float = 0.0
    most: int = 0
    left: int = 0


class Reader:
    """A child that makes cases of seeds and reads them; it is replaced when it has died or grown.

    Children are forked from a server that has imported PyTorch once, so that a new one costs little.

    Args:
        target: its functions must be importable.
        pool: what cases are made of; grows by the files that this reader comes to know.
        seed: a case depends on it, its number and the pool.
    """

    _fresh: bool

    def __init__(self, target: Target, pool: Sequence[bytes] = (), seed: str = "") -> None:
        self.pool = list(pool)
        self._target, self._seed = target, seed
        self._folder = tempfile.TemporaryDirectory()
        os.environ |= {"LOF_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([target.read.__module__])
        self._start()

    def answer(self, data: bytes) -> Answer:
        """What becomes of a file."""
        batch = self._ask(data)
        return batch.answers[0]

    def work(self, first: int, seconds: float) -> Batch:
        """The cases from a number on, for about so long.

        Args:
            seconds: processor time.
        """
        batch = self._ask((first, seconds))
        self.pool.extend(answer.data for answer in batch.answers if not answer.bad)
        return batch

    def close(self) -> None:
        """End the child."""
        self._child.kill()
        self._child.join()
        self._here.close()
        self._folder.cleanup()

    def _ask(self, order: bytes | tuple[int, float]) -> Batch:
        batch = self._wait(order)
        if batch.most > BYTES and not self._fresh:
            # What earlier cases have left behind is not this one's fault.
            large = next(answer for answer in batch.answers if answer.used > BYTES)
            self._restart()
            again = self._wait(large.data)
            others = tuple(answer for answer in batch.answers if answer is not large)
            most = max(again.most, *(answer.used for answer in others), 0)
            batch = Batch(batch.cases, others + again.answers, max(batch.longest, again.longest), most, BYTES)
        self._fresh = False
        if batch.left > _KEPT:
            self._restart()
        return batch

    def _wait(self, order: bytes | tuple[int, float]) -> Batch:
        self._here.send(order)
        case, before, end = None, 0.0, 0.0
        while not self._here.poll(0.5):
            if (now := self._at()[0]) != case:
                patience = _PATIENCE if now == _STARTING else _IDLE * SECONDS
                case, before, end = now, self._busy(), time.monotonic() + patience
            busy = self._busy() - before if case != _STARTING else 0.0
            if busy > SECONDS or time.monotonic() > end:
                return self._lost(order, f"more than {SECONDS:.0f} s", max(busy, SECONDS))
        try:
            batch = self._here.recv()
        except EOFError:
            self._child.join()
            code = self._child.exitcode or 0
            cause = signal.Signals(-code).name if code < 0 else code
            return self._lost(order, f"the process died ({cause})", 0.0)
        assert isinstance(batch, Batch)
        return batch

    def _lost(self, order: bytes | tuple[int, float], found: str, seconds: float) -> Batch:
        """What is known of a batch whose last case has cost the child."""
        case, data = self._at()
        answer = Answer(data, found, True, seconds)
        self._restart()
        first = order[0] if isinstance(order, tuple) else case
        return Batch(case - first + 1, (answer,), seconds)

    def _at(self) -> tuple[int, bytes]:
        """The number of the case in hand, and its data."""
        content = Path(self._folder.name, "case").read_bytes()
        number, size = struct.unpack_from("<qQ", content)
        return number, content[16 : 16 + size]

    def _busy(self) -> float:
        try:
            times = self._process.cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def _restart(self) -> None:
        self._child.kill()
        self._child.join()
        self._here.close()
        self._start()

    def _start(self) -> None:
        self._here, there = self._context.Pipe()
        place = Path(self._folder.name)
        (place / "case").write_bytes(struct.pack("<qQ", _STARTING, 0))
        work = Worker(self._target.read, self._target.spoil, self.pool, self._seed, place)
        self._child = self._context.Process(target=work.serve, args=(there,), daemon=True)
        self._child.start()
        there.close()
        self._process = psutil.Process(self._child.pid)
        self._fresh = True


class Worker:
    """What the child does."""

    def __init__(self, read: Read, spoil: Spoil | None, pool: list[bytes], seed: str, place: Path) -> None:
        self._reads, self._spoil, self._pool, self._seed, self._place = read, spoil, pool, seed, place

    def serve(self, pipe: Connection) -> None:
        """Read files and batches as they are ordered, until the pipe ends."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        size = psutil.Process().memory_info().vms + 4 * BYTES
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        self._lines = _Lines()
        self._folder = self._place / "files"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        self._memory = _Memory()
        self._base = self._memory.now()
        self._case = os.open(self._place / "case", os.O_WRONLY)
        while True:
            try:
                order = pipe.recv()
            except EOFError:
                return
            pipe.send(self._one(order) if isinstance(order, bytes) else self._batch(*order))

    def _one(self, data: bytes) -> Batch:
        answer = self._read(data, 0)
        return Batch(1, (answer,), answer.seconds, answer.used, self._memory.now() - self._base)

    def _batch(self, first: int, seconds: float) -> Batch:
        answers, number, longest, most, left = list[Answer](), first, 0.0, 0, 0
        end = time.process_time() + seconds
        while time.process_time() < end and left < _KEPT:
            answer = self._read(self._made(Random(f"{self._seed} {number}")), number)
            number += 1
            longest, most = max(longest, answer.seconds), max(most, answer.used)
            if answer.bad or answer.lines:
                answers.append(answer)
            if answer.lines and not answer.bad:
                self._pool.append(answer.data)
            left = self._memory.now() - self._base if answer.used > _KEPT else 0
            if most > BYTES:
                break
        return Batch(number - first, tuple(answers), longest, most, self._memory.now() - self._base)

    def _made(self, rng: Random) -> bytes:
        # Half of them from the newest: what was found last has been tried least.
        newest = self._pool[-max(8, len(self._pool) // 8) :]
        data = rng.choice(newest if rng.random() < 0.5 else self._pool)
        if self._spoil is not None and rng.random() < 0.7:
            with contextlib.suppress(Exception):  # an earlier case may have left nothing of its kind
                return self._spoil(rng, data)
        return spoilt(rng, data, rng.choice(self._pool))

    def _read(self, data: bytes, number: int) -> Answer:
        os.pwrite(self._case, struct.pack("<qQ", number, len(data)) + data, 0)
        self._memory.forget_peak()
        started = time.process_time()
        sys.settrace(self._lines.enter)
        found, bad = _answer(self._reads, data, self._folder)
        sys.settrace(None)
        seconds = time.process_time() - started
        _empty(self._folder)
        used = self._memory.peak() - self._base
        if seconds > SECONDS:
            found, bad = f"more than {SECONDS:.0f} s", True
        if used > BYTES:
            found, bad = f"more than {BYTES / 1e9:g} GB of memory", True
        return Answer(data, found, bad, seconds, used, self._lines.new())


def _answer(read: Read, data: bytes, folder: Path) -> tuple[str, bool]:
    try:
        return f"read: {read(data, folder)}", False
    except LofError as error:
        return f"{type(error).__name__}: {error}", "\n" in str(error)
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {error}", True


def _empty(folder: Path) -> None:
    for name in os.listdir(folder):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


class _Lines:
    """The lines of lof that were run: what a file reaches that none before it has reached."""

    def __init__(self) -> None:
        self._seen: set[tuple[CodeType, int]] = set()
        self._new: set[tuple[CodeType, int]] = set()

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._step if frame.f_code.co_filename.startswith(_HERE) else None

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        line = (frame.f_code, frame.f_lineno)
        if line not in self._seen:
            self._seen.add(line)
            self._new.add(line)
        return self._step

    def new(self) -> frozenset[Line]:
        """Those since the last call."""
        found = frozenset((code.co_filename.removeprefix(_HERE), number) for code, number in self._new)
        self._new.clear()
        return found


class _Memory:
    """The memory of this process, in bytes."""

    def __init__(self) -> None:
        self._status = self._refs = -1
        if sys.platform == "linux":
            self._status = os.open("/proc/self/status", os.O_RDONLY)
            self._refs = os.open("/proc/self/clear_refs", os.O_WRONLY)

    def now(self) -> int:
        return self._read(b"VmRSS:")

    def peak(self) -> int:
        """The most since :meth:`forget_peak`; where that cannot be, since the start."""
        return self._read(b"VmHWM:")

    def forget_peak(self) -> None:
        if self._refs >= 0:
            os.write(self._refs, b"5")

    def _read(self, key: bytes) -> int:
        if self._status < 0:
            now = psutil.Process().memory_info().rss
            return now if key == b"VmRSS:" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _, _, rest = os.pread(self._status, 4096, 0).partition(key)
        return 1024 * int(rest.split(maxsplit=1)[0])
