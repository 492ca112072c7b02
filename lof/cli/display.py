"""What ``lof optimize`` shows before, while it runs and when it ends. Progress goes to stderr, results to stdout."""

from __future__ import annotations

import json as json_format
import time
from collections import Counter, defaultdict
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from lof.cli._consoles import make_console
from lof.cli.live import Display, time_left
from lof.errors import LofError
from lof.files.inputs import Found, Source, output_name
from lof.files.storage import Location
from lof.jobs import Event, Finished, JobSettings, Plan, Skipped, Summary, Surveyed, plan_job
from lof.jobs.events import Record
from lof.pictures.reading import read_size
from lof.report import figures
from lof.report.records import reached, total_reached

_MOST_NOTES = 20


class JobLines(Display):
    """What ``lof optimize`` shows of each image. ``total`` is the number of its images."""

    def __init__(self, total: int, *, json: bool = False, quiet: bool = False) -> None:
        super().__init__(json=json, quiet=quiet)
        self.total, self.failed = total, 0
        self.gains: list[float] = []
        self.surveyed = ""

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        match event:
            case Skipped(source, record):
                self.total -= 1
                self.started = time.monotonic()
                self.ended(source, record)
            case Surveyed(done, images):
                self.surveyed = (
                    f"{done} of {figures.plural(images, 'image')} encoded plainly, to share out the size"
                )
                self.started = time.monotonic()
            case Finished(source, record) if record["state"] == "done":
                self.gains.append(record["rate_change"])
                self.ended(source, record, _line(record))
            case Finished(source, record):
                self.failed += 1
                self.ended(source, record, error=record["error"])

    def name(self, item: Source) -> str:
        return item.relative.as_posix()

    def overall(self, elapsed: float) -> list[str]:
        finished = len(self.gains) + self.failed
        if self.surveyed and not finished and not self.active:
            return [self.surveyed]
        parts = [f"{finished} of {figures.plural(self.total, 'image')}"]
        if not finished and not self.active:
            parts.append("loading the codec")
        if self.gains:
            parts.append(f"{60 * len(self.gains) / elapsed:.1f} per minute")
            parts.append(f"mean {figures.percent(sum(self.gains) / len(self.gains))}")
        begun = sum(p.evaluations / p.budget for _, p in list(self.active.values()) if p is not None)
        left = time_left(elapsed, len(self.gains) + begun, self.total - self.failed)
        return parts + left


def show_ignored(found: Found) -> None:
    """Say which files of the folders are no images by their suffix."""
    if found.ignored:
        kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in found.ignored.items())
        Display().say(f"other files left out: {kinds}")


def show_summary(summary: Summary, reports: Sequence[Location]) -> None:
    """The table, what was done to the pictures on the way, and where the reports are."""
    from lof.report.records import beside
    from lof.report.table import beside_table, region_line, summary_table

    console = make_console()
    console.print(summary_table(summary.records))
    for line in (region_line(summary.records), total_reached(summary.records)):
        if line:
            console.print(line)
    if beside(summary.records):
        console.print()
        console.print(beside_table(summary.records))
    _show_notes(console, summary.records)
    parts = [f"{summary.done} done"]
    if summary.skipped:
        parts.append(f"{summary.skipped} done before and unchanged")
    if summary.failed:
        parts.append(f"[red]{summary.failed} failed[/]")
    console.print(f"\n{', '.join(parts)}; {figures.duration(summary.seconds)} in all")
    for report in reports:
        if report.suffix == ".html":
            console.print(f"report: {escape(figures.printable(str(report)))}", soft_wrap=True)


def show_plan(
    sources: Sequence[Source], out: Location, settings: JobSettings, *, json: bool, force: bool
) -> None:
    """Print the plan, a line or a JSON object for each image.

    Raises:
        LofError: what the job itself would refuse before its first image.
    """
    plan = plan_job(sources, out, settings, force=force)
    states = {source: "skipped" for source, _ in plan.skipped} | dict.fromkeys(plan.known, "compare")
    refused = {source: record["error"] for source, record in plan.refused}
    rows = [_row(source, settings, states.get(source), refused.get(source)) for source in sources]
    console = make_console(soft_wrap=True)
    for row in rows:
        if json:
            print(json_format.dumps(row))
        elif row["state"] == "refused":
            console.print(f"[red]would fail[/] {escape(figures.printable(row['error']))}")
        elif row["state"] in ("skipped", "compare"):
            more = ", only compared" if row["state"] == "compare" else ""
            console.print(escape(figures.printable(f"{row['source']} done before{more}")), style="dim")
        else:
            line = f"{row['source']} {row['width']}×{row['height']} {out / row['output']}"
            console.print(escape(figures.printable(line)))
    if not json:
        _print_sums(console, rows, plan, settings)


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
        console.print(escape(figures.printable(f"  {note}: {names[0]}{more}")), soft_wrap=True)
    if len(sources) > _MOST_NOTES:
        console.print(f"  {len(sources) - _MOST_NOTES} other notes; the reports have all")


def _line(record: Record) -> str:
    before, after = record["baseline"]["bpp"], record["optimised"]["bpp"]
    parts = [
        f"{figures.bits_per_pixel(before)}→{figures.bits_per_pixel(after)} bpp",
        f"{figures.percent(record['rate_change'])} at equal quality"
        if record["kept"] == "search"
        else "plain encoding kept",
        *reached(record),
        figures.plural(record["evaluations"], "evaluation"),
        figures.duration(record["seconds"]),
        *(
            f"{figures.percent(record['optimised']['size'] / size - 1)} against {name}"
            for name, size in record.get("against", {}).items()
            if size
        ),
        *record["notes"],
    ]
    return f"{record['source']}: {', '.join(parts)}"


def _row(source: Source, settings: JobSettings, known: str | None, error: str | None) -> Record:
    width, height = None, None
    try:
        width, height = read_size(source.path)
    except LofError as problem:
        error = error or str(problem)
    state = known or ("refused" if error else "todo")
    return {
        "source": source.relative.as_posix(),
        "output": output_name(source, settings.suffix),
        "state": state,
        "width": width,
        "height": height,
        "evaluations": settings.evaluations if state == "todo" else 0,
        "error": error,
    }


def _print_sums(console: Console, rows: Sequence[Record], plan: Plan, settings: JobSettings) -> None:
    states = Counter(row["state"] for row in rows)
    pixels = sum(row["width"] * row["height"] for row in rows if row["state"] == "todo")
    each = settings.evaluations
    console.print(
        f"\n{states['todo']} to do, {pixels / 1e6:.1f} megapixels, at most {figures.count(states['todo'] * each)} "
        f"gradient evaluations ({figures.count(each)} for each image, profile {settings.profile.name})"
    )
    if states["skipped"]:
        console.print(f"{states['skipped']} done before and unchanged: skipped")
    if states["compare"]:
        console.print(f"{states['compare']} done before and unchanged: only compared with other formats")
    if states["refused"]:
        console.print(f"[red]{states['refused']} would fail[/]")
    if plan.replaced:
        console.print(f"{len(plan.replaced)} have streams made with other settings: only with --redo")
    console.print("nothing was written")
