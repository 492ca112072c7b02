"""What archive commands show: progress on stderr while they run, results on stdout when they end."""

from __future__ import annotations

import json as json_format
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lof.archive import (
    Checked,
    Event,
    Improved,
    Manifest,
    Restored,
    Row,
    Settled,
    Summary,
    Unchanged,
    Verdict,
)
from lof.archive.manifest import Total
from lof.pools import Advanced, Started
from lof.report import figures
from lof.report.records import to_json

if TYPE_CHECKING:
    from lof.search import Progress

MOST_LINES = 20
_NAME = 32


class Display(AbstractContextManager["Display"]):
    """Takes a job's events; this one shows nothing. What went wrong is listed when the job has ended."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)

    def __call__(self, event: Event) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class JsonLines(Display):
    """One line of JSON on stdout for every file that something was done to."""

    def __call__(self, event: Event) -> None:
        match event:
            case Settled(row):
                print(to_json(asdict(row)), flush=True)
            case Checked(path, error):
                print(to_json({"path": path, "error": error}), flush=True)


class PlainLines(Display):
    """One line per file, for log files."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, Settled):
            self.console.print(escape(figures.printable(_line(event.row))))


class LiveLines(Display):
    """One line per file in work, and one about the whole job; they vanish when it ends.

    Args:
        total: bytes, or files where ``by_files``, of the whole job; ``None`` if not known.
    """

    def __init__(self, total: int | None, *, by_files: bool = False) -> None:
        super().__init__()
        self.total, self.by_files = total, by_files
        self.done = self.unchanged = self.failed = self.worked = self.passed = 0
        self.active: dict[str, tuple[str, Progress | None]] = {}
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
        match event:
            case Unchanged(files, size):
                self.unchanged += files
                self.passed += files if self.by_files else size
            case Started(path, worker, attempt):
                self.active[path] = f"{worker.split()[-1]}{' again' if attempt > 1 else ''}", None
            case Advanced(path, progress):
                self.active[path] = self.active.get(path, ("", None))[0], progress
            case Settled(Row(path=path, error=error, size=size)):
                self._count(path, error, 1 if self.by_files else size)
            case Checked(path, error):
                self._count(path, error, 1)

    def _count(self, path: str, error: str, amount: int) -> None:
        self.done += 1
        self.failed += bool(error)
        self.worked += amount
        self.active.pop(path, None)

    def _render(self) -> RenderableType:
        grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
        grid.add_column(width=_NAME, no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True, min_width=8)
        grid.add_column(justify="right", no_wrap=True, width=8)
        for path, (worker, progress) in list(self.active.items()):
            name = Text(figures.shorten(figures.printable(path), _NAME))
            if progress is None:
                grid.add_row(name, ProgressBar(total=None, pulse=True), Text(worker, style="dim"), "")
            else:
                grid.add_row(
                    name,
                    ProgressBar(total=progress.budget, completed=progress.evaluations),
                    f"{progress.evaluations}/{progress.budget}",
                    Text(figures.percent(min(progress.gain)), style="green"),
                )
        return Group(grid, Text(self._overall(), no_wrap=True, overflow="ellipsis"))

    def _overall(self) -> str:
        elapsed = time.monotonic() - self.started
        parts = [f"{figures.count(self.done)} files done"]
        if self.unchanged:
            parts.append(f"{figures.count(self.unchanged)} unchanged")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.done and elapsed > 2:
            parts.append(f"{60 * self.done / elapsed:.1f} per minute")
        if self.worked and self.total and elapsed > 2:
            left = max(0, self.total - self.passed - self.worked) * elapsed / self.worked
            parts.append(f"about {figures.duration(left)} left")
        return " · ".join(parts)


def choose(total: int | None, *, json: bool, by_files: bool = False) -> Display:
    """The display that fits where stderr goes; with ``json``, the one for programs."""
    if json:
        return JsonLines()
    return LiveLines(total, by_files=by_files) if sys.stderr.isatty() else PlainLines()


def show_status(manifest: Manifest, *, json: bool) -> None:
    """What the archive holds, as a table or one JSON object."""
    totals = manifest.totals()
    files = [total for total in totals if total.kind == "file"]
    errors = manifest.errors(-1 if json else MOST_LINES)
    sources = [row._asdict() for row in manifest.sources()]
    if json:
        wrong = [{"path": path, "error": error} for path, error in errors]
        print(
            json_format.dumps(
                {"totals": [t._asdict() for t in totals], "sources": sources, "errors": wrong},
                allow_nan=False,
            )
        )
        return
    console = Console(highlight=False)
    console.print(_totals_table(files))
    console.print(_means(files))
    others = [
        (sum(t.files for t in totals if t.kind == kind), kind) for kind in ("folder", "link", "hardlink")
    ]
    console.print(
        ", ".join(f"{figures.count(count)} {kind}{'s' * (count != 1)}" for count, kind in others if count)
    )
    for source in sources:
        console.print(escape(figures.printable(f"source {source['name']}: {source['path']}")), soft_wrap=True)
    broken = [(source["name"], source["error"]) for source in sources if source["error"]]
    show_errors(console, errors, manifest.count_errors())
    show_errors(console, broken, len(broken))


def show_created(summary: Summary, manifest: Manifest, tied: str | None) -> None:
    """What a call of ``create`` did, and what the archive holds now.

    Args:
        tied: the codec of this call, if its streams are not sure to be read on CPUs unlike this one.
    """
    show_status(manifest, json=False)
    console = Console(highlight=False)
    parts = [
        f"{figures.count(summary.streamed)} streamed",
        f"{figures.count(summary.stored)} stored as they are",
    ]
    if summary.unchanged:
        parts.append(f"{figures.count(summary.unchanged)} unchanged")
    if summary.errors:
        parts.append(f"[red]{figures.count(len(summary.errors))} failed[/]")
    console.print(f"\nthis time: {', '.join(parts)}; {figures.duration(summary.seconds)} in all")
    if summary.other_settings:
        console.print(
            f"{figures.count(summary.other_settings)} streams were made with other settings and stay as they are; "
            "--redo searches them again, `lof archive improve` further"
        )
    if summary.streamed:
        console.print(
            "Streams decode to images close to their sources, not to the same bytes; check with `lof archive verify`.",
            style="dim",
        )
    if summary.streamed and tied is not None:
        console.print(
            f"Streams of {tied} are not sure to be read on another kind of CPU: verify where they will be decoded, "
            "or use --codec msp.",
            style="dim",
        )


def show_verdict(verdict: Verdict, *, json: bool) -> None:
    """What is wrong, a line each, and what was looked at."""
    if json:
        show_json(asdict(verdict))
        return
    console = Console(highlight=False)
    for finding in verdict.findings:
        line = escape(figures.printable(f"{finding.name}: {finding.error}"))
        console.print(f"[red]{finding.wrong:10}[/] {line}", soft_wrap=True)
    counted = (
        f"{figures.count(verdict.streams)} streams decoded, {figures.count(verdict.stored)} stored files read"
    )
    what = f"[red]{figures.count(len(verdict.findings))} findings[/]" if verdict.findings else "all is well"
    console.print(f"{counted} in {figures.duration(verdict.seconds)}: {what}")
    _show_rounded(console, verdict.rounded)


def show_restored(restored: Restored, *, json: bool) -> None:
    """What was written and what was not."""
    if json:
        show_json(asdict(restored))
        return
    console = Console(highlight=False)
    show_errors(console, restored.errors, len(restored.errors))
    for path in restored.left_out[:MOST_LINES]:
        line = escape(figures.printable(path))
        console.print(f"left out {line}: a link out of the tree; --all-links makes it", soft_wrap=True)
    parts = [f"{figures.count(restored.images)} images", f"{figures.count(restored.stored)} other files"]
    if restored.there:
        parts.append(f"{figures.count(restored.there)} there already")
    if restored.left_out:
        parts.append(f"{figures.count(len(restored.left_out))} links left out")
    if restored.errors:
        parts.append(f"[red]{figures.count(len(restored.errors))} failed[/]")
    console.print(f"restored {', '.join(parts)}; {figures.duration(restored.seconds)} in all")
    _show_rounded(console, restored.rounded)


def _show_rounded(console: Console, count: int) -> None:
    if count:
        console.print(
            f"images of the same symbols whose pixels this machine rounds otherwise: {figures.count(count)}",
            style="dim",
        )


def show_improved(improved: Improved, *, json: bool) -> None:
    """What was replaced and what was not."""
    if json:
        show_json(asdict(improved))
        return
    console = Console(highlight=False)
    show_errors(console, improved.errors, len(improved.errors))
    parts = [f"{figures.count(improved.replaced)} streams replaced"]
    if improved.before:
        change = figures.percent(improved.after / improved.before - 1)
        sizes = f"{figures.size(improved.before)}→{figures.size(improved.after)}, {change}"
        parts[0] += f" ({sizes}; rate + λ·distortion {figures.percent(improved.gain)})"
    counts = (
        (improved.kept, "without a better one"),
        (improved.tried, "tried before"),
        (improved.missing, "without their original at hand"),
        (len(improved.errors), "failed"),
    )
    parts += [f"{figures.count(count)} {what}" for count, what in counts if count]
    console.print(f"{', '.join(parts)}; {figures.duration(improved.seconds)} in all", soft_wrap=True)


def show_errors(console: Console, errors: Sequence[tuple[str, str]], count: int) -> None:
    """The first errors, one line each, and how many more there are."""
    for path, error in errors[:MOST_LINES]:
        console.print(f"[red]failed[/] {escape(figures.printable(about(path, error)))}", soft_wrap=True)
    if count > min(len(errors), MOST_LINES):
        console.print(f"and {count - min(len(errors), MOST_LINES)} more; --json lists all")


def show_json(summary: dict[str, object]) -> None:
    """The last line of a ``--json`` command."""
    print(json_format.dumps({"summary": summary}, allow_nan=False), flush=True)


def about(path: str, error: str) -> str:
    """Path and error, the path once."""
    return error if path in error else f"{path}: {error}"


def _totals_table(totals: Iterable[Total]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("state", no_wrap=True)
    for name in ("files", "source", "archive", "change"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = list(totals)
    for total in rows:
        name = f"{total.state}, {total.why}" if total.why else total.state
        table.add_row(Text(name), *_sizes(total.files, total.size, total.object_size))
    table.add_section()
    sums = [sum(total[index] for total in rows) for index in (3, 4, 5)]  # type: ignore[misc]
    table.add_row("all", *_sizes(*sums), style="bold")
    return table


def _sizes(files: int, before: int, after: int) -> tuple[str, str, str, str]:
    change = figures.percent(after / before - 1) if before and after else figures.ABSENT
    return figures.count(files), figures.size(before), figures.size(after), change


def _means(totals: Iterable[Total]) -> str:
    streamed = [total for total in totals if total.state == "streamed" and total.kind == "file"]
    count = sum(total.files for total in streamed)
    if not count:
        return "no streams"
    similar = sum(total.with_ms_ssim for total in streamed)
    parts = [
        f"mean of the streams: {figures.bits_per_pixel(sum(t.bpp for t in streamed) / count)} bpp",
        f"PSNR {figures.decibels(sum(t.psnr for t in streamed) / count)} dB",
    ]
    if similar:
        parts.append(f"MS-SSIM {figures.similarity(sum(t.ms_ssim for t in streamed) / similar)}")
    return ", ".join(parts)


def _line(row: Row) -> str:
    if row.error:
        return f"failed {about(row.path, row.error)}"
    if row.kind != "file":
        return f"{row.path}: {row.kind}"
    if row.state == "stored":
        return f"{row.path}: stored as it is ({row.why}{f': {row.detail}' if row.detail else ''})"
    assert row.bpp is not None
    return (
        f"{row.path}: {figures.size(row.size)}→{figures.size(row.object_size)}, "
        f"{figures.bits_per_pixel(row.bpp)} bpp, {figures.decibels(row.psnr)} dB, {figures.duration(row.seconds)}"
    )
