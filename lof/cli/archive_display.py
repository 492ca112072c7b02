"""What archive commands show: progress on stderr while they run, results on stdout when they end."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lof.archive import (
    Checked,
    Event,
    Improved,
    Manifest,
    Planned,
    Rebuilt,
    Restored,
    Row,
    Settled,
    Summary,
    Surveyed,
    Total,
    Unchanged,
    Verdict,
)
from lof.cli._consoles import make_console
from lof.cli.live import Display, time_left
from lof.report import figures

MOST_LINES = 20


class ArchiveLines(Display):
    """What archive commands show of each file.

    Args:
        total: bytes, or files where ``by_files``, of the whole job; ``None`` if not known.
    """

    def __init__(self, total: int | None, *, json: bool, by_files: bool = False) -> None:
        super().__init__(json=json)
        self.total, self.by_files = total, by_files
        self.done = self.unchanged = self.failed = self.worked = self.passed = self.surveyed = 0

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        match event:
            case Unchanged(files, size):
                self.unchanged += files
                self.passed += files if self.by_files else size
            case Surveyed(done):
                self.surveyed = done
            case Settled(row):
                self.surveyed = 0
                self._count(row.error, 1 if self.by_files else row.size)
                self.ended(row.path, asdict(row), _line(row))
            case Checked(path, error):
                self._count(error, 1)
                self.ended(path, {"path": path, "error": error})

    def overall(self, elapsed: float) -> list[str]:
        parts = [f"{figures.plural(self.done, 'file')} done"]
        if self.surveyed:
            parts.append(f"sharing out the size: {figures.plural(self.surveyed, 'image')} encoded plainly")
        if self.unchanged:
            parts.append(f"{figures.count(self.unchanged)} unchanged")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.done and elapsed > 2:
            parts.append(f"{60 * self.done / elapsed:.1f} per minute")
        return parts + (time_left(elapsed, self.worked, self.total - self.passed) if self.total else [])

    def _count(self, error: str, amount: int) -> None:
        self.done += 1
        self.failed += bool(error)
        self.worked += amount


def show_status(manifest: Manifest, *, json: bool) -> None:
    """What the archive holds, as a table or one JSON object."""
    totals = manifest.totals()
    failures = manifest.failures(-1 if json else MOST_LINES)
    sources = [row._asdict() for row in manifest.sources()]
    if json:
        found = {
            "totals": [total._asdict() for total in totals],
            "sources": sources,
            "errors": [{"path": path, "error": error} for path, error in failures],
        }
        print(json_format.dumps(found, allow_nan=False))
        return
    console = make_console()
    files = [total for total in totals if total.kind == "file"]
    console.print(_totals_table(files))
    console.print(_means(files))
    kinds = (("folder", "folder"), ("link", "link"), ("hardlink", "hard link"))
    others = [(sum(t.files for t in totals if t.kind == kind), name) for kind, name in kinds]
    console.print(", ".join(figures.plural(number, name) for number, name in others if number))
    for source in sources:
        left_out = ", ".join(json_format.loads(source["exclude"]))
        where = source["path"] or "it is not known where it was"
        line = f"source {source['name']}: {where}{left_out and f' without {left_out}'}"
        console.print(escape(figures.printable(line)), soft_wrap=True)
    _list(console, "failed", failures, manifest.count_failures())


def show_created(summary: Summary, dst: Path, tied: str | None) -> None:
    """What a call of ``create`` did, and what the archive holds now.

    Args:
        tied: the codec of this call, if its streams are not sure to be read on CPUs unlike this one.
    """
    with Manifest(dst) as manifest:
        show_status(manifest, json=False)
    console = make_console()
    parts = [
        f"{figures.plural(summary.streamed, 'stream')} written",
        f"{figures.plural(summary.stored, 'file')} stored as is",
    ]
    _sum_up(
        console, "\nthis time: ", parts, {"unchanged": summary.unchanged}, summary.errors, summary.seconds
    )
    for note, (number, first) in list(summary.notes.items())[:MOST_LINES]:
        more = f" and {figures.count(number - 1)} more" if number > 1 else ""
        console.print(escape(figures.printable(f"note: {note}: {first}{more}")), soft_wrap=True)
    if summary.other_settings:
        console.print(
            f"made with other settings and left as they are: {figures.plural(summary.other_settings, 'stream')}; "
            "--redo searches them again, `lof archive improve` further"
        )
    remarks = [
        "Streams decode to images close to their sources, not to the same bytes; check with `lof archive verify`.",
        f"Streams of {tied} are not sure to be read on another kind of CPU: verify where they will be decoded, "
        "or use the default codec.",
    ]
    for remark in remarks[: bool(summary.streamed) + bool(summary.streamed and tied)]:
        console.print(remark, style="dim")


def show_plan(planned: Iterable[Planned | Unchanged], *, json: bool) -> int:
    """What ``create`` would do; how many files it would fail at."""
    names = {"search": "to search a stream for", "store": "to store as is", "unchanged": "unchanged"}
    files, sizes = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    failures = []
    for item in planned:
        if isinstance(item, Unchanged):
            files["unchanged"] += item.files
            sizes["unchanged"] += item.size
            continue
        if json and item.do != "unchanged":
            print(json_format.dumps(item._asdict()))
        if item.do == "fail":
            failures.append((item.path, item.error))
        else:
            files[item.do] += 1
            sizes[item.do] += item.size
    if json:
        show_json({"files": files, "sizes": sizes, "failures": failures})
        return len(failures)
    console = make_console()
    for do, name in names.items():
        console.print(f"{name}: {figures.plural(files[do], 'file')}, {figures.size(sizes[do])}")
    _list(console, "fails", failures, len(failures))
    console.print("nothing was written")
    return len(failures)


def show_verdict(verdict: Verdict) -> None:
    """What is wrong, a line each, and what was looked at."""
    console = make_console()
    for finding in verdict.findings:
        line = escape(figures.printable(about(finding.name, finding.error)))
        console.print(f"[red]{finding.wrong:10}[/] {line}", soft_wrap=True)
    streams, stored = figures.plural(verdict.streams, "stream"), figures.plural(verdict.stored, "stored file")
    what = (
        f"[red]{figures.plural(len(verdict.findings), 'finding')}[/]" if verdict.findings else "all is well"
    )
    console.print(f"{streams} decoded, {stored} read in {figures.duration(verdict.seconds)}: {what}")
    _show_rounded(console, verdict.rounded)


def show_restored(restored: Restored) -> None:
    """What was written and what was not."""
    console = make_console()
    left_out = [(path, "a link out of the tree; --all-links makes it") for path in restored.left_out]
    _list(console, "left out", left_out, len(left_out))
    _list(console, "never got in", restored.never_in, len(restored.never_in))
    _list(console, "failed", restored.errors, len(restored.errors))
    parts = [
        f"restored {figures.plural(restored.images, 'image')}",
        figures.plural(restored.stored, "other file"),
    ]
    counts = {
        "there already": restored.there,
        "links left out": len(left_out),
        "never got into the archive": len(restored.never_in),
    }
    _sum_up(console, "", parts, counts, restored.errors, restored.seconds)
    _show_rounded(console, restored.rounded)


def show_rebuilt(rebuilt: Rebuilt) -> None:
    """What the new manifest names and what it does not."""
    console = make_console()
    _list(console, "left out", rebuilt.errors, len(rebuilt.errors))
    parts = [
        f"the new manifest names {figures.plural(rebuilt.streams, 'stream')}",
        figures.plural(rebuilt.stored, "stored file"),
    ]
    _sum_up(console, "", parts, {}, rebuilt.errors, rebuilt.seconds)
    if rebuilt.aside:
        console.print(f"the damaged one is kept in {rebuilt.aside}", style="dim")


def show_improved(improved: Improved) -> None:
    """What was replaced and what was not."""
    console = make_console()
    _list(console, "failed", improved.errors, len(improved.errors))
    parts = [f"{figures.plural(improved.replaced, 'stream')} replaced"]
    if improved.before:
        change = figures.percent(improved.after / improved.before - 1)
        sizes = f"{figures.size(improved.before)}→{figures.size(improved.after)}, {change}"
        parts[0] += f" ({sizes}; rate + λ·distortion {figures.percent(improved.gain)})"
    counts = {
        "without a better one": improved.kept,
        "tried before": improved.tried,
        "without their original at hand": improved.missing,
    }
    _sum_up(console, "", parts, counts, improved.errors, improved.seconds)


def show_json(summary: dict[str, Any]) -> None:
    """The last line of a ``--json`` command."""
    print(json_format.dumps({"summary": summary}, allow_nan=False), flush=True)


def about(path: str, error: str) -> str:
    """Path and error, the path once."""
    return error if error.startswith(path) else f"{path}: {error}"


def _sum_up(
    console: Console,
    head: str,
    parts: list[str],
    counts: dict[str, int],
    errors: Sequence[object],
    seconds: float,
) -> None:
    """The last line: parts, those of the counts that are not 0, how many failed, and the time."""
    parts = parts + [f"{figures.count(number)} {what}" for what, number in counts.items() if number]
    if errors:
        parts.append(f"[red]{figures.count(len(errors))} failed[/]")
    console.print(f"{head}{', '.join(parts)}; {figures.duration(seconds)} in all", soft_wrap=True)


def _list(console: Console, what: str, found: Sequence[tuple[str, str]], total: int) -> None:
    """The first of what was found, one line each, and how many more there are."""
    for path, error in found[:MOST_LINES]:
        console.print(f"[red]{what}[/] {escape(figures.printable(about(path, error)))}", soft_wrap=True)
    if total > min(len(found), MOST_LINES):
        console.print(f"and {total - min(len(found), MOST_LINES)} more; --json lists all")


def _show_rounded(console: Console, number: int) -> None:
    if number:
        console.print(
            f"images of the same symbols whose pixels this machine rounds otherwise: {figures.count(number)}",
            style="dim",
        )


def _totals_table(totals: Sequence[Total]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("state", no_wrap=True)
    for name in ("files", "source", "archive", "change"):
        table.add_column(name, justify="right", no_wrap=True)
    for total in totals:
        name = f"{total.state}, {total.why}" if total.why else total.state
        table.add_row(Text(figures.printable(name)), *_sizes([total]))
    table.add_section()
    table.add_row("all", *_sizes(totals), style="bold")
    return table


def _sizes(totals: Sequence[Total]) -> tuple[str, str, str, str]:
    files = sum(total.files for total in totals)
    before, after = sum(total.size for total in totals), sum(total.object_size for total in totals)
    known = (
        before and after and not any(t.state == "streamed" and t.why for t in totals)
    )  # rebuilt: no source
    change = figures.percent(after / before - 1) if known else figures.ABSENT
    return figures.count(files), figures.size(before), figures.size(after), change


def _means(totals: Iterable[Total]) -> str:
    # Of rebuilt rows nobody knows the quality.
    streamed = [total for total in totals if total.state == "streamed" and not total.why]
    number = sum(total.files for total in streamed)
    if not number:
        return "no streams"
    similar = sum(total.with_ms_ssim for total in streamed)
    parts = [
        f"mean of the streams: {figures.bits_per_pixel(sum(t.bpp for t in streamed) / number)} bpp",
        f"PSNR {figures.decibels(sum(t.psnr for t in streamed) / number)} dB",
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
    notes = "".join(f", {note}" for note in filter(None, row.notes.split("\n")))
    return (
        f"{row.path}: {figures.size(row.size)}→{figures.size(row.object_size)}, {figures.bits_per_pixel(row.bpp)} "
        f"bpp, {figures.decibels(row.psnr)} dB, {figures.duration(row.seconds)}{notes}"
    )
