"""The table that ends a job on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lof.report import figures
from lof.report.records import Record, beside, by_change, failed, in_order, measured, number, totals

MOST_ROWS = 40
_LEAST_NAME = 12


class MiddleCut:
    """A name on one line, cut in its middle to whatever width the table leaves it."""

    def __init__(self, name: str) -> None:
        self.name = figures.printable(name)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(figures.shorten(self.name, options.max_width), no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = cell_len(self.name)
        return Measurement(min(_LEAST_NAME, width), width).with_maximum(options.max_width)


def summary_table(records: Sequence[dict[str, Any]]) -> Table:
    """One row per picture, before→after, and a last row of means and sums; fits 80 columns.

    Of more than ``MOST_ROWS`` pictures, those whose rate changed most. Failed files are counted in the
    caption. Columns: file, bits per pixel, PSNR in dB, MS-SSIM, change of rate at equal quality, gradient
    evaluations, time.
    """
    rows = measured(in_order(records))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), caption_justify="left")
    table.caption = _caption(len(rows), len(failed(records)))
    table.add_column("file", overflow="ellipsis")
    for name in ("bpp", "PSNR dB", "MS-SSIM"):
        table.add_column(name, no_wrap=True)
    for name in ("rate", "evals", "time"):
        table.add_column(name, no_wrap=True, justify="right")
    for row in by_change(rows, MOST_ROWS):
        table.add_row(*_cells(row))
    if total := totals(rows):
        table.add_section()
        table.add_row(
            Text("mean, total"),
            _arrow(figures.bits_per_pixel, *total.bpp),
            _arrow(figures.decibels, *total.psnr),
            _arrow(figures.similarity, *total.ms_ssim),
            _change(total.rate_change),
            figures.short_count(total.evaluations),
            figures.duration(total.seconds),
            style="bold",
        )
    return table


def beside_table(records: Sequence[dict[str, Any]]) -> Table:
    """A row for each other format: its bytes at the same PSNR, lof's, and by how much lof's are more."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("at the same PSNR")
    for name in ("theirs", "lof", "lof's bytes"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in beside(records):
        change = Text(figures.ABSENT) if one.change is None else _change(one.change)
        table.add_row(one.label, figures.size(one.theirs), figures.size(one.ours), change)
    return table


def region_line(records: Sequence[dict[str, Any]]) -> str | None:
    """Mean PSNR inside and outside of the regions, before→after; ``None`` without regions."""
    rows = [row for row in measured(records) if row["optimised"].get("psnr_inside") is not None]
    if not rows:
        return None
    means = {
        key: [fmean(min(float(row[side][key]), 99.0) for row in rows) for side in ("baseline", "optimised")]
        for key in ("psnr_inside", "psnr_outside")
    }
    inside, outside = ("→".join(map(figures.decibels, pair)) for pair in means.values())
    return f"region: PSNR {inside} dB inside, {outside} dB outside"


def _cells(row: Record) -> tuple[Any, ...]:
    before, after = row["baseline"], row["optimised"]
    return (
        MiddleCut(row["source"]),
        _arrow(figures.bits_per_pixel, before["bpp"], after["bpp"]),
        _arrow(figures.decibels, number(before["psnr"]), number(after["psnr"])),
        _arrow(figures.similarity, before["ms_ssim"], after["ms_ssim"]),
        Text("plain", style="dim") if row["kept"] == "plain" else _change(row["rate_change"]),
        figures.short_count(row["evaluations"]),
        figures.duration(row["seconds"]),
    )


def _arrow(form: Callable[[Any], str], before: float | None, after: float | None) -> Text:
    if before is None and after is None:
        return Text(figures.ABSENT, style="dim")
    return Text.assemble((f"{form(before)}→", "dim"), form(after))


def _change(share: float) -> Text:
    return Text(figures.percent(share), style="green" if share < 0 else "")


def _caption(rows: int, failures: int) -> Text | None:
    lines = []
    if rows > MOST_ROWS:
        lines.append(f"{MOST_ROWS} of {rows} pictures, those that changed most; the reports have all.")
    if failures:
        lines.append(f"{failures} file{'s' if failures > 1 else ''} failed.")
    return Text("\n".join(lines)) if lines else None
