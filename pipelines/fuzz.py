"""Feed spoilt files to every reader of lof, for as long as you like, and keep those that it answers badly.

A reader may return, or raise one of lof's errors. Another exception, a crash, more than 10 seconds of work or more
than 1 GB of memory is a find.

python -m pipelines.fuzz run CORPUS --minutes 10 --seed 3
python -m pipelines.fuzz replay CORPUS/finds/*
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import psutil
import typer

from lof.errors import LofError, UsageError

Read = Callable[[bytes, Path], object]
Spoil = Callable[[random.Random, bytes], bytes]

NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    15,
    16,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
)

SECONDS, BYTES = 10.0, 10**9
"""Limits for one case: processor time, and memory beyond what the child had before its first case."""
_IDLE = 12
"""How many times longer a case may take by the clock: the machine may be busy, or the reader wait for ever."""

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Attributes:
        read: reads a file's content, in an empty folder; a :class:`lof.errors.LofError` is a proper answer.
        seeds: good files, by name.
        spoil: makes another file of a good one; what is generic (:func:`spoilt`) is done to all kinds.
    """

    read: Read
    seeds: Callable[[], Mapping[str, bytes]]
    spoil: Spoil | None = None


def spoilt(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """``data`` with one to four changes: bits, bytes, numbers, cut, doubled, left out, joined with ``other``."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        size = len(changed)
        # Headers are short and matter most.
        at = rng.randrange(min(size, rng.choice((64, 1024, 2**30))) + 1)
        end = min(size, at + rng.choice((1, 2, 4, 8, 64, 1024)))
        match rng.randrange(8):
            case 0 | 1 if at < size:
                changed[at] ^= 1 << rng.randrange(8)
            case 2 if at < size:
                changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 3:
                width = rng.choice((2, 4, 8))
                number = rng.choice(NUMBERS) & (1 << 8 * width) - 1
                changed[at : at + width] = number.to_bytes(width, rng.choice(("big", "little")))
            case 4:
                del changed[at:]
            case 5:
                del changed[at:end]
            case 6:
                changed[at:at] = changed[at:end] * rng.choice((1, 2, 100))
            case _:
                cut = rng.randrange(len(other) + 1)
                changed[at:end] = other[cut : cut + rng.choice((end - at, 64, 2**20))]
    return bytes(changed)


class Reader:
    """A child process that reads cases; it is replaced when it has died or grown.

    Args:
        target: its functions must be importable.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def answer(self, data: bytes) -> tuple[str, bool]:
        """What the reader made of a file: the kind of its answer in a line, and whether that is a find."""
        self._here.send_bytes(data)
        end = time.monotonic() + _IDLE * SECONDS
        before = self._busy()
        while not self._here.poll(0.5):
            if self._busy() - before > SECONDS or time.monotonic() > end:
                self.close()
                self._start()
                return f"more than {SECONDS:.0f} s", True
        try:
            found, bad, used = self._here.recv()
        except EOFError:
            self._child.join()
            code = self._child.exitcode or 0
            self._start()
            return f"the process died ({signal.Signals(-code).name if code < 0 else code})", True
        if used - self._used > BYTES:
            self.close()
            self._start()
            return f"more than {BYTES / 1e9:g} GB of memory", True
        return found, bad

    def close(self) -> None:
        """End the child."""
        self._child.kill()
        self._child.join()
        self._here.close()

    def _busy(self) -> float:
        try:
            times = self._process.cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def _start(self) -> None:
        self._here, there = self._context.Pipe()
        self._child = self._context.Process(target=_serve, args=(there, self._target.read), daemon=True)
        self._child.start()
        there.close()
        self._process = psutil.Process(self._child.pid)
        self._used: int = self._here.recv()


def _serve(pipe: Connection, read: Read) -> None:
    os.environ |= {"LOF_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    size = psutil.Process().memory_info().vms + 4 * BYTES
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    # Its peak so far may be its parent's.
    pipe.send(psutil.Process().memory_info().rss)
    while True:
        try:
            data = pipe.recv_bytes()
        except EOFError:
            return
        bad = False
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = f"read: {read(data, Path(folder))}"
            except LofError as error:
                found, bad = f"{type(error).__name__}: {error}", "\n" in str(error)
            except BaseException as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                found, bad = (
                    f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {error}",
                    True,
                )
        pipe.send((found, bad, _peak()))


def _peak() -> int:
    """The most memory that this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage says on Linux may be of the process that started this one
        return 1024 * int(next(line.split()[1] for line in status.open() if line.startswith("VmHWM")))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@dataclass
class Tally:
    """What a run came to."""

    cases: Counter[str] = field(default_factory=Counter)
    finds: list[tuple[Path, str]] = field(default_factory=list)


def fuzz(
    corpus: Path, targets: Mapping[str, Target], *, seconds: float, seed: int = 0, cases: int | None = None
) -> Tally:
    """Spoil files and have them read, one target after the other, until the time is over.

    A file whose kind of answer is new joins the seeds in ``corpus/seeds``. Finds lie in ``corpus/finds``, one for each
    kind of answer, named by target and content.

    Args:
        cases: how many at most.
    """
    tally, end = Tally(), time.monotonic() + seconds
    pools = {name: _seeds(corpus / "seeds" / name, target) for name, target in targets.items()}
    known: set[tuple[str, str]] = set()
    spent = dict.fromkeys(targets, 0.0)
    readers = {name: Reader(target) for name, target in targets.items()}
    try:
        while time.monotonic() < end and (cases is None or tally.cases.total() < cases):
            name = min(targets, key=lambda name: spent[name])  # to each its share of the time
            rng = random.Random(f"{seed} {name} {tally.cases[name]}")
            tally.cases[name] += 1
            data = _case(rng, targets[name], pools[name])
            started = time.monotonic()
            answer, bad = readers[name].answer(data)
            spent[name] += time.monotonic() - started
            kind = (name, re.sub(r"[0-9a-f]{6,}|\d+|b?'.*?'", "#", answer)[:200])
            if kind in known:
                continue
            known.add(kind)
            digest = hashlib.sha256(data).hexdigest()[:12]
            place = corpus / ("finds" if bad else f"seeds/{name}") / f"{name}-{digest}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            if bad:
                tally.finds.append((place, answer))
                print(f"{place}: {answer}", flush=True)
            else:
                pools[name].append(data)
    finally:
        for reader in readers.values():
            reader.close()
    return tally


def replay(finds: Sequence[Path], targets: Mapping[str, Target]) -> list[tuple[Path, str, bool]]:
    """Read kept files again: each with its answer, and whether that is still a find.

    Raises:
        UsageError: a name does not begin with that of a target.
    """
    answers = []
    for path in finds:
        name = path.name.rpartition("-")[0]
        if name not in targets:
            raise UsageError(f"{path}: its name must begin with one of {', '.join(targets)}, and a hyphen")
        reader = Reader(targets[name])
        answers.append((path, *reader.answer(path.read_bytes())))
        reader.close()
    return answers


def _seeds(folder: Path, target: Target) -> list[bytes]:
    own = [path.read_bytes() for path in sorted(folder.glob("*"))] if folder.is_dir() else []
    return [*(data for _, data in sorted(target.seeds().items())), *own]


def _case(rng: random.Random, target: Target, pool: list[bytes]) -> bytes:
    data = rng.choice(pool)
    if target.spoil is not None and rng.random() < 0.7:
        return target.spoil(rng, data)
    return spoilt(rng, data, rng.choice(pool))


@app.command()
def run(
    corpus: Annotated[Path, typer.Argument(help="Folder of seeds and finds; made if it is not there.")],
    minutes: Annotated[float, typer.Option(min=0)] = 10,
    seed: int = 0,
    only: Annotated[str | None, typer.Option(help="Kinds of files, between commas; all if absent.")] = None,
) -> None:
    """Look for files that are answered badly; exit code 1 if there are any."""
    from pipelines.fuzz_targets import TARGETS

    names = list(TARGETS) if only is None else only.split(",")
    if not set(names) <= set(TARGETS):
        raise UsageError(f"--only {only}: choose from {', '.join(TARGETS)}")
    tally = fuzz(corpus, {name: TARGETS[name] for name in names}, seconds=60 * minutes, seed=seed)
    counts = ", ".join(f"{count} {name}" for name, count in tally.cases.items())
    print(f"{tally.cases.total()} cases ({counts}), {len(tally.finds)} finds")
    raise typer.Exit(1 if tally.finds else 0)


@app.command(name="replay")
def replay_command(finds: Annotated[list[Path], typer.Argument(help="Files that a run kept.")]) -> None:
    """Read kept files again; exit code 1 if one is still answered badly."""
    from pipelines.fuzz_targets import TARGETS

    answers = replay(finds, TARGETS)
    for path, answer, bad in answers:
        print(f"{'BAD' if bad else 'ok '} {path}: {answer}")
    raise typer.Exit(1 if any(bad for _, _, bad in answers) else 0)


if __name__ == "__main__":
    from pipelines.command import run as run_command

    run_command(app)
