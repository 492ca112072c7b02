"""``lof optimize --dry-run``: what would be done, from headers and the manifest alone."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lof.files.inputs import Source, output_name, output_path
from lof.files.storage import Location
from lof.jobs import JobSettings, plan_job
from lof.pictures.reading import read_size
from lof.report import figures

_MOST_ROWS = 40


def show_plan(sources: Sequence[Source], out: Location, settings: JobSettings, *, json: bool) -> None:
    """Print the plan as a table, or as one JSON object per image.

    Raises:
        LofError: what the job itself would refuse before its first image.
    """
    plan = plan_job(sources, out, settings)
    skipped = {source for source, _ in plan.skipped}
    rows = [(source, read_size(source.path), source in skipped) for source in sources]
    if json:
        for source, size, is_skipped in rows:
            print(json_format.dumps(_as_json(source, size, is_skipped, out, settings)))
        return
    console = Console(highlight=False)
    console.print(_table(rows, out, settings))
    pixels = sum(size[0] * size[1] for _, size, is_skipped in rows if size and not is_skipped)
    unreadable = sum(size is None and not is_skipped for _, size, is_skipped in rows)
    each = settings.profile.evaluations
    total = figures.count(len(plan.todo) * each)
    console.print(
        f"\n{len(plan.todo)} to do, {pixels / 1e6:.1f} megapixels, at most {total} gradient evaluations "
        f"({figures.count(each)} for each image, profile {settings.profile.name})"
    )
    if skipped:
        console.print(f"{len(skipped)} done before and unchanged: skipped")
    if unreadable:
        console.print(f"[red]{unreadable} without a readable header: would fail[/]")
    console.print("nothing was written")


def _table(
    rows: Sequence[tuple[Source, tuple[int, int] | None, bool]], out: Location, settings: JobSettings
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), caption_justify="left")
    table.add_column("file", overflow="fold")
    table.add_column("pixels", justify="right", no_wrap=True)
    table.add_column("stream", overflow="fold")
    for source, size, is_skipped in rows[:_MOST_ROWS]:
        target = "skipped" if is_skipped else str(output_path(source, out, settings.suffix))
        table.add_row(
            Text(figures.printable(source.relative.as_posix())),
            f"{size[0]}×{size[1]}" if size else figures.ABSENT,
            Text(figures.printable(target), style="dim" if is_skipped else ""),
        )
    if len(rows) > _MOST_ROWS:
        table.caption = f"{_MOST_ROWS} of {len(rows)} files"
    return table


def _as_json(
    source: Source, size: tuple[int, int] | None, is_skipped: bool, out: Location, settings: JobSettings
) -> dict[str, object]:
    return {
        "source": source.relative.as_posix(),
        "output": output_name(source, settings.suffix),
        "state": "skipped" if is_skipped else "todo",
        "width": size[0] if size else None,
        "height": size[1] if size else None,
        "evaluations": 0 if is_skipped else settings.profile.evaluations,
    }
