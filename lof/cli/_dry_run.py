"""``lof optimize --dry-run``: what would be done, from headers and the manifest alone."""

from __future__ import annotations

import json as json_format
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from lof.errors import LofError
from lof.files.inputs import Source, output_name
from lof.files.storage import Location
from lof.jobs import JobSettings, Plan, plan_job
from lof.pictures.reading import read_size
from lof.report import figures
from lof.report.records import Record


def show_plan(sources: Sequence[Source], out: Location, settings: JobSettings, *, json: bool) -> None:
    """Print the plan, a line or a JSON object for each image.

    Raises:
        LofError: what the job itself would refuse before its first image.
    """
    plan = plan_job(sources, out, settings)
    skipped = {source for source, _ in plan.skipped}
    rows = [_row(source, settings, is_skipped=source in skipped) for source in sources]
    console = Console(highlight=False, soft_wrap=True)
    for row in rows:
        if json:
            print(json_format.dumps(row))
        elif row["state"] == "refused":
            console.print(f"[red]would fail[/] {escape(figures.printable(row['error']))}")
        elif row["state"] == "skipped":
            console.print(escape(figures.printable(f"{row['source']} done before")), style="dim")
        else:
            line = f"{row['source']} {row['width']}×{row['height']} {out / row['output']}"
            console.print(escape(figures.printable(line)))
    if not json:
        _print_sums(console, rows, plan, settings)


def _row(source: Source, settings: JobSettings, *, is_skipped: bool) -> Record:
    error, width, height = None, None, None
    try:
        width, height = read_size(source.path)
    except LofError as problem:
        error = str(problem)
    state = "skipped" if is_skipped else "refused" if error else "todo"
    return {
        "source": source.relative.as_posix(),
        "output": output_name(source, settings.suffix),
        "state": state,
        "width": width,
        "height": height,
        "evaluations": settings.profile.evaluations if state == "todo" else 0,
        "error": error,
    }


def _print_sums(console: Console, rows: Sequence[Record], plan: Plan, settings: JobSettings) -> None:
    states = Counter(row["state"] for row in rows)
    pixels = sum(row["width"] * row["height"] for row in rows if row["state"] == "todo")
    each = settings.profile.evaluations
    console.print(
        f"\n{states['todo']} to do, {pixels / 1e6:.1f} megapixels, at most {figures.count(states['todo'] * each)} "
        f"gradient evaluations ({figures.count(each)} for each image, profile {settings.profile.name})"
    )
    if states["skipped"]:
        console.print(f"{states['skipped']} done before and unchanged: skipped")
    if states["refused"]:
        console.print(f"[red]{states['refused']} would fail[/]")
    if plan.replaced:
        console.print(f"{len(plan.replaced)} have streams made with other settings: only with --redo")
    console.print("nothing was written")
