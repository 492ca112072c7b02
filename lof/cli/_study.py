"""What studies show: a line per trial, a live line while one is measured, tables of what was found."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from rich.table import Table
from rich.text import Text

from lof.cli._consoles import make_console
from lof.cli.live import Display
from lof.report import figures
from lof.study import Advanced, Best, Event, Finished, Opened, Started, Status, Study

_MOST = 10


class StudyDisplay(Display):
    """Takes the events of a study."""

    def __init__(self, study: Study, *, json: bool) -> None:
        super().__init__(json=json)
        self.study, self.console.quiet = study, json

    def __call__(self, event: Event) -> None:
        match event:
            case Opened(finished, limit, storage):
                name = self.study.name
                self.console.print(f"study {name} in {storage}: {finished} of {limit} trials are finished")
            case Started(number):
                self.active[number] = "", None
            case Advanced(number, step, steps, gain):
                self.active[number] = "", SimpleNamespace(evaluations=step, budget=steps, gain=[gain])
            case Finished():
                self.active.pop(event.number, None)
                self._finished(event)

    def name(self, item: int) -> str:
        return f"trial {item}"

    def finish(self, status: Status, limit: int) -> None:
        """Say where the study stands."""
        line = f"{status.finished} of {limit} trials are finished"
        if status.best:
            trials = "best: trial" if len(status.best) == 1 else "Pareto front: trials"
            line += f"; {trials} {', '.join(map(str, status.best[:_MOST]))}"
            line += " …" if len(status.best) > _MOST else ""
        self.console.print(f"\n{line}")
        if status.running:
            self.console.print(
                f"{status.running} more in other processes; if one has ended, run this again in two minutes"
            )

    def _finished(self, event: Finished) -> None:
        if self.json:
            found = None if event.figures is None else vars(event.figures)
            record = vars(event) | {"figures": found}
            print(json_format.dumps(record), flush=True)
            return
        head = f"trial {event.number:>3}  "
        if event.reason is not None:
            self.console.print(Text(f"{head}failed: {event.reason}", style="red"))
        elif event.figures is None:
            gain = figures.percent(event.gain or 0.0)
            steps = f"{event.steps} step{'s' * (event.steps != 1)}"
            self.console.print(Text(f"{head}stopped after {steps} at cost {gain}", style="dim"))
        else:
            one = event.figures
            cells = [f"cost {figures.percent(one.cost)}"]
            if one.bd_rate is not None:
                cells.append(f"BD-rate {figures.percent(one.bd_rate)}")
            cells += [f"{one.evaluations:.0f} evaluations", figures.duration(one.seconds)]
            front = "best" if len(self.study.objectives) == 1 else "Pareto"
            mark = f"  ← {front}" if event.is_best else ""
            self.console.print(Text(head + "  ".join(cells) + mark, style="bold" if event.is_best else ""))


def print_best(best: Sequence[Best], files: Sequence[Path]) -> None:
    """The profiles that were written, as a table, and the plots."""
    console = make_console()
    console.print(_table(best, [str(file) for file in files[: len(best)]]))
    console.print()
    for file in files[len(best) :]:
        console.print(Text(str(file), style="dim"), soft_wrap=True)


def print_status_json(status: Status, best: Sequence[Best]) -> None:
    """Counts, failures with their reasons, and the figures of the best trials, as one JSON object."""
    counts = {key: value for key, value in vars(status).items() if key not in ("study", "best")}
    found = [{"trial": one.trial, **vars(one.figures)} for one in best]
    print(json_format.dumps({"study": status.study.name, **counts, "best": found}))


def print_status(status: Status, best: Sequence[Best]) -> None:
    """Counts by state, what is wrong, and the best so far."""
    console = make_console()
    study = status.study
    console.print(
        f"study {study.name}: {status.complete} complete, {status.stopped} stopped early, {status.running} running, "
        f"{status.waiting} waiting, {status.interrupted} interrupted, {len(status.failed)} failed",
        soft_wrap=True,
    )
    for number, reason in status.failed[-_MOST:]:
        console.print(
            Text(f"trial {number} failed: {figures.printable(reason)}", style="red"), soft_wrap=True
        )
    if best:
        console.print()
        console.print(_table(best, None))


def _table(best: Sequence[Best], files: Sequence[str] | None) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("trial", "cost", "BD-rate", "evaluations", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    if files is not None:
        table.add_column("profile", overflow="fold")
    for index, one in enumerate(best):
        found = one.figures
        cells = [
            str(one.trial),
            figures.percent(found.cost),
            figures.ABSENT if found.bd_rate is None else figures.percent(found.bd_rate),
            f"{found.evaluations:.0f}",
            f"{found.seconds:.2f}",
        ]
        table.add_row(*cells, *([] if files is None else [Text(files[index])]))
    return table
