"""What a job shows while it runs and when it ends. Progress goes to stderr, results to stdout."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lof.files.inputs import Found, Source
from lof.files.storage import Location
from lof.jobs import Advanced, Event, Finished, Skipped, Started, Summary, Workers
from lof.jobs.events import Record
from lof.report import figures
from lof.report.records import to_json

if TYPE_CHECKING:
    from lof.search import Progress

_NAME, _MOST_NOTES = 28, 20
_WORKER, _WIDE = 30, 110  # columns of a worker's name, shown where there is room for it
_OTHER_LINES = 4  # of a terminal: the job's, the workers', one about hidden images, the cursor's


class Display(AbstractContextManager["Display"]):
    """Takes a job's events. This one shows failures only."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Finished) and event.outcome["state"] == "failed":
            self.console.print(f"[bold red]failed[/] {escape(figures.printable(event.outcome['error']))}")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class JsonLines(Display):
    """One line of JSON on stdout for every image, whatever became of it."""

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, Finished | Skipped):
            print(to_json(event.outcome), flush=True)


class PlainLines(Display):
    """One line per image, for log files."""

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, Finished) and event.outcome["state"] == "done":
            self.console.print(escape(_line(event.outcome)))


class LiveLines(Display):
    """One line per image in work, one about the whole job, and with several workers one about them; they vanish
    when the job ends."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self.total, self.failed = total, 0
        self.gains: list[float] = []
        self.active: dict[Source, Progress | None] = {}
        self.worker: dict[Source, str] = {}
        self.workers = Workers(0, 0, 0)
        self.started = time.monotonic()
        self.live = Live(
            console=self.console, get_renderable=self._render, refresh_per_second=5, transient=True
        )

    def __enter__(self) -> LiveLines:
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        match event:
            case Skipped():
                self.total -= 1
                self.started = time.monotonic()
            case Started(source, worker):
                self.active[source] = None
                self.worker[source] = worker
            case Advanced(source, progress):
                self.active[source] = progress
            case Workers():
                self.workers = event
            case Finished(source, record):
                if record["state"] == "done":
                    self.gains.append(record["rate_change"])
                else:
                    self.failed += 1
                self._forget(source)

    def _forget(self, source: Source) -> None:
        self.active.pop(source, None)
        self.worker.pop(source, None)

    def _render(self) -> RenderableType:
        wide = self.console.width >= _WIDE
        grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
        grid.add_column(width=_NAME, no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True, min_width=8)
        grid.add_column(justify="right", no_wrap=True, width=8)
        if wide:
            grid.add_column(no_wrap=True, width=_WORKER, style="dim")
        active = list(self.active.items())
        shown = active[: max(1, self.console.height - _OTHER_LINES)]
        for source, progress in shown:
            worker = [Text(self.worker.get(source, ""))] if wide else []
            name = Text(figures.shorten(figures.printable(source.relative.as_posix()), _NAME))
            if progress is None:
                grid.add_row(
                    name, ProgressBar(total=None, pulse=True), Text("starts", style="dim"), "", *worker
                )
            else:
                grid.add_row(
                    name,
                    ProgressBar(total=progress.budget, completed=progress.evaluations),
                    f"{progress.evaluations}/{progress.budget}",
                    Text(figures.percent(min(progress.gain)), style="green"),
                    *worker,
                )
        lines = [self._overall(), self._staff(len(active) - len(shown))]
        texts = [Text(line, no_wrap=True, overflow="ellipsis") for line in lines if line]
        return Group(grid, *texts)

    def _staff(self, hidden: int) -> str:
        """What the workers do; nothing where this process does the work."""
        at_work, workers = len(set(self.worker.values())), self.workers
        counts = {
            "at work": at_work,
            "idle": workers.ready - at_work,
            "starting": workers.starting,
            "died": workers.lost,
        }
        parts = [f"{count} {state}" for state, count in counts.items() if count > 0]
        more = f" · {hidden} more images in work" if hidden else ""
        return f"workers: {', '.join(parts)}{more}" if workers != Workers(0, 0, 0) and parts else ""

    def _overall(self) -> str:
        finished = len(self.gains) + self.failed
        parts = [f"{finished} of {self.total} images"]
        if not finished and not self.active:
            parts.append("loading the codec")
        elapsed = time.monotonic() - self.started
        if self.gains:
            parts.append(f"{60 * len(self.gains) / elapsed:.1f} per minute")
            parts.append(f"mean {figures.percent(sum(self.gains) / len(self.gains))}")
        begun = sum(p.evaluations / p.budget for p in list(self.active.values()) if p is not None)
        worked = len(self.gains) + begun
        if worked > 0 and elapsed > 2:
            left = (self.total - finished - begun) * elapsed / worked
            parts.append(f"about {figures.duration(max(0.0, left))} left")
        return " · ".join(parts)


def choose(total: int, *, json: bool) -> Display:
    """The display that fits where stderr goes; with ``json``, the one for programs."""
    if json:
        return JsonLines()
    return LiveLines(total) if sys.stderr.isatty() else PlainLines()


def show_ignored(found: Found) -> None:
    """Say which files of the folders are no images by their suffix."""
    if found.ignored:
        kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in found.ignored.items())
        Display().console.print(f"[dim]other files left out: {escape(figures.printable(kinds))}[/]")


def show_summary(summary: Summary, reports: Sequence[Location]) -> None:
    """The table, what was done to the pictures on the way, and where the reports are."""
    from lof.report.table import summary_table

    console = Console(highlight=False)
    console.print(summary_table(summary.records))
    _show_notes(console, summary.records)
    parts = [f"{summary.done} done"]
    if summary.skipped:
        parts.append(f"{summary.skipped} done before and unchanged")
    if summary.failed:
        parts.append(f"[red]{summary.failed} failed[/]")
    console.print(f"\n{', '.join(parts)}; {figures.duration(summary.seconds)} in all")
    for report in reports:
        if report.suffix == ".html":
            console.print(f"report: {escape(str(report))}", soft_wrap=True)


def _show_notes(console: Console, records: Sequence[Record]) -> None:
    sources: dict[str, list[str]] = defaultdict(list)
    for record in records:
        for note in record.get("notes", ()):
            sources[note].append(record["source"])
    if not sources:
        return
    console.print("\nNotes")
    for note, names in list(sources.items())[:_MOST_NOTES]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        console.print(escape(f"  {note}: {figures.printable(names[0])}{more}"), soft_wrap=True)
    if len(sources) > _MOST_NOTES:
        console.print(f"  {len(sources) - _MOST_NOTES} other notes; the reports have all")


def _line(record: Record) -> str:
    before, after = record["baseline"]["bpp"], record["optimised"]["bpp"]
    parts = [
        f"{figures.bits_per_pixel(before)}→{figures.bits_per_pixel(after)} bpp",
        f"{figures.percent(record['rate_change'])} at equal quality"
        if record["kept"] == "search"
        else "plain encoding kept",
        f"{record['evaluations']} evaluations",
        figures.duration(record["seconds"]),
        *record["notes"],
    ]
    return figures.printable(f"{record['source']}: {', '.join(parts)}")
