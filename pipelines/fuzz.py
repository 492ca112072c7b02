"""Feed spoilt files to every reader of lof, for as long as you like, and keep those that it answers badly.

A reader may return, or raise one of lof's errors. Another exception, a crash, more than 10 seconds of work or more
than 1 GB of memory is a find. A file that reaches lines of lof that none before it has reached is spoilt further.

python -m pipelines.fuzz run CORPUS --minutes 10 --seed 3
python -m pipelines.fuzz replay CORPUS/finds/*
python -m pipelines.fuzz distil CORPUS
"""

from __future__ import annotations

import hashlib
import io
import json
import signal
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lof.errors import OutputError, UsageError
from lof.files.atomic import write_atomically
from pipelines.fuzz_reader import Answer, Line, Reader, Target

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

_BATCH = 0.5
"""Processor time of a reader before another kind of file has its turn, in seconds."""
KEPT = Path(__file__).parents[1] / "tests" / "fixtures" / "fuzz.zip"
"""What `distil` has kept: files that runs begin with, and that a test reads again."""
_SAVED = 30.0
"""Seconds between two states on disk: what a run loses at most that is killed."""


@dataclass
class Tally:
    """What has come of one kind of file, over all runs.

    Attributes:
        cases: how many files were read.
        seconds: what they took by the clock, spoiling included.
        longest: processor time of the slowest, in seconds.
        most: memory of the largest, in bytes.
        finds: names of the files kept, each with the kind of its answer.
    """

    cases: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    most: int = 0
    finds: dict[str, str] = field(default_factory=dict)


class Run:
    """One kind of file in a folder of seeds and finds.

    Args:
        tally: of earlier runs with that folder.
    """

    def __init__(self, corpus: Path, name: str, target: Target, seed: int, tally: Tally) -> None:
        self.name, self.tally, self.spent = name, tally, 0.0
        self._finds, self._seeds = corpus / "finds", corpus / "seeds" / name
        tally.finds = {find: kind for find, kind in tally.finds.items() if (self._finds / find).is_file()}
        self._known, self._lines = set(tally.finds.values()), set[Line]()
        own = [path.read_bytes() for path in sorted(self._seeds.glob("*"))]
        pool = [*(data for _, data in sorted(target.seeds().items())), *kept(name), *own]
        self._reader = Reader(target, pool, f"{seed} {name}")
        for data in pool:  # so that what they reach is not new
            self._lines |= self._reader.answer(data).lines

    def step(self) -> None:
        """Some cases. What is new of them is kept."""
        started = time.monotonic()
        batch = self._reader.work(self.tally.cases, _BATCH)
        self.tally.cases += batch.cases
        self.tally.longest = max(self.tally.longest, batch.longest)
        self.tally.most = max(self.tally.most, batch.most)
        for answer in batch.answers:
            self._keep(answer)
        self.spent += (took := time.monotonic() - started)
        self.tally.seconds += took

    def close(self) -> None:
        """End the reader."""
        self._reader.close()

    def _keep(self, answer: Answer) -> None:
        reached = answer.lines - self._lines
        self._lines |= reached
        if answer.kind in self._known if answer.bad else not reached:
            return
        name = f"{self.name}-{hashlib.sha256(answer.data).hexdigest()[:12]}"
        write_atomically((self._finds if answer.bad else self._seeds) / name, answer.data)
        if answer.bad:
            self._known.add(answer.kind)
            self.tally.finds[name] = answer.kind
            print(f"{self._finds / name}: {answer.found}", flush=True)


def fuzz(
    corpus: Path, targets: Mapping[str, Target], *, seconds: float, seed: int = 0, cases: int | None = None
) -> dict[str, Tally]:
    """Spoil files and have them read, each target for its share of the time.

    A file that reaches a new line of lof joins the seeds in ``corpus/seeds``. Finds
    lie in ``corpus/finds``, one for each kind of answer, named by target and content. ``corpus/state.json`` has what
    earlier runs with that folder and seed came to; the cases go on from there. Ctrl-C ends a run as the time does.

    Args:
        cases: how many in this run; a few more may be read.

    Raises:
        OutputError: the state belongs to another seed, or is damaged.
    """
    state = corpus / "state.json"
    tallies = _load(state, seed)
    runs: list[Run] = []
    try:
        for name, target in targets.items():
            runs.append(Run(corpus, name, target, seed, tallies.setdefault(name, Tally())))
        end, saved, done = time.monotonic() + seconds, time.monotonic(), 0
        while time.monotonic() < end and (cases is None or done < cases):
            run = min(runs, key=lambda run: run.spent)
            done -= run.tally.cases
            run.step()
            done += run.tally.cases
            if time.monotonic() > saved + _SAVED:
                _save(state, seed, tallies)
                saved = time.monotonic()
    except KeyboardInterrupt:
        pass
    finally:
        for run in runs:
            run.close()
        _save(state, seed, tallies)
    return tallies


def _load(path: Path, seed: int) -> dict[str, Tally]:
    if not path.is_file():
        return {}
    try:
        state = json.loads(path.read_text())
        tallies = {name: Tally(**tally) for name, tally in state["kinds"].items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise OutputError(f"{path}: damaged; delete it to count from 0") from error
    if state["seed"] != seed:
        raise OutputError(f"{path}: of --seed {state['seed']}; give that one, or another folder")
    return tallies


def _save(path: Path, seed: int, tallies: Mapping[str, Tally]) -> None:
    state = {"seed": seed, "kinds": {name: asdict(tally) for name, tally in tallies.items()}}
    write_atomically(path, json.dumps(state, indent=1).encode())


def replay(finds: Sequence[Path], targets: Mapping[str, Target]) -> list[tuple[Path, Answer]]:
    """Read kept files again: each with its answer.

    Raises:
        UsageError: a name does not begin with that of a target.
    """
    answers = []
    for path in finds:
        name = path.name.rpartition("-")[0]
        if name not in targets:
            raise UsageError(f"{path}: its name must begin with one of {', '.join(targets)}, and a hyphen")
        reader = Reader(targets[name])
        answers.append((path, reader.answer(path.read_bytes())))
        reader.close()
    return answers


def kept(name: str) -> list[bytes]:
    """Files of one kind that :data:`KEPT` holds."""
    if not KEPT.is_file():
        return []
    with zipfile.ZipFile(KEPT) as packed:
        return [packed.read(file) for file in sorted(packed.namelist()) if file.split("/")[0] == name]


def distil(corpus: Path, targets: Mapping[str, Target], most: int) -> dict[str, bytes]:
    """The smallest files of a corpus and of :data:`KEPT` that together reach all that these reach, by their names.

    Args:
        most: bytes of a file; larger ones are left out.
    """
    chosen: dict[str, bytes] = {}
    for name, target in targets.items():
        reader, lines = Reader(target), set[Line]()
        for data in target.seeds().values():
            lines |= reader.answer(data).lines
        found = {path.read_bytes() for path in (corpus / "seeds" / name).glob("*")} | set(kept(name))
        for data in sorted(found, key=lambda data: (len(data), data)):
            if len(data) > most:
                break
            answer = reader.answer(data)
            if not answer.bad and answer.lines - lines:
                lines |= answer.lines
                chosen[f"{name}/{hashlib.sha256(data).hexdigest()[:12]}"] = data
        reader.close()
    return chosen


def show(tallies: Mapping[str, Tally]) -> None:
    """A table with a line for each kind of file."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("kind", "cases", "finds", "cases/s", "longest, s", "most memory, MB"):
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for name, tally in tallies.items():
        rate = tally.cases / max(tally.seconds, 1e-9)
        row = (f"{tally.cases:,}", str(len(tally.finds)), f"{rate:.0f}", f"{tally.longest:.2f}")
        table.add_row(name, *row, f"{tally.most / 1e6:.0f}")
    total = sum(tally.cases for tally in tallies.values())
    table.add_row("all", f"{total:,}", str(sum(len(tally.finds) for tally in tallies.values())))
    Console(highlight=False).print(table)


@app.command()
def run(
    corpus: Annotated[Path, typer.Argument(help="Folder of seeds and finds; made if it is not there.")],
    minutes: Annotated[float, typer.Option(min=0)] = 10,
    seed: int = 0,
    only: Annotated[str | None, typer.Option(help="Kinds of files, between commas; all if absent.")] = None,
) -> None:
    """Look for files that are answered badly, after those of earlier runs with CORPUS; exit code 1 if there are any."""
    from pipelines.fuzz_targets import TARGETS

    names = list(TARGETS) if only is None else only.split(",")
    if not set(names) <= set(TARGETS):
        raise UsageError(f"--only {only}: choose from {', '.join(TARGETS)}")
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs ignore the first
        signal.signal(number, signal.default_int_handler)
    tallies = fuzz(corpus, {name: TARGETS[name] for name in names}, seconds=60 * minutes, seed=seed)
    show(tallies)
    raise typer.Exit(1 if any(tally.finds for tally in tallies.values()) else 0)


@app.command(name="replay")
def replay_command(finds: Annotated[list[Path], typer.Argument(help="Files that a run kept.")]) -> None:
    """Read kept files again; exit code 1 if one is still answered badly."""
    from pipelines.fuzz_targets import TARGETS

    answers = replay(finds, TARGETS)
    for path, answer in answers:
        print(f"{'BAD' if answer.bad else 'ok '} {path}: {answer.found}")
    raise typer.Exit(1 if any(answer.bad for _, answer in answers) else 0)


@app.command(name="distil")
def distil_command(
    corpus: Annotated[Path, typer.Argument(help="Folder of seeds and finds.")],
    most: Annotated[int, typer.Option(min=1, help="Bytes of a file that is kept.")] = 20_000,
) -> None:
    """Keep the smallest files that reach all that CORPUS reaches, in tests/fixtures/fuzz.zip."""
    from pipelines.fuzz_targets import TARGETS

    chosen = distil(corpus, TARGETS, most)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as packed:
        for name, data in sorted(chosen.items()):
            packed.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_LZMA)  # without today's date
    write_atomically(KEPT, buffer.getvalue())
    print(f"{KEPT}: {len(chosen)} files, {len(buffer.getvalue()):,} bytes")


if __name__ == "__main__":
    from pipelines.command import run as run_command

    run_command(app)
