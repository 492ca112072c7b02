"""The report as one self-contained HTML page."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from datetime import date
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import lof
from lof.report import figures, plots
from lof.report.crops import address, colour_bar, panels
from lof.report.records import (
    Record,
    beside,
    by_change,
    distinct,
    failed,
    in_order,
    measured,
    number,
    reached,
    total_reached,
    totals,
)
from lof.results import Crops

MOST_CROPS = 200
"""Pictures whose crops are embedded, at most."""
LOSSLESS_UP_TO = 24
"""Crops of that many pictures are stored without loss; those of more as JPEG, to keep the page small."""


def render(records: Sequence[Record], *, title: str, crops: Callable[[Record], Crops | None]) -> str:
    """The page. ``crops`` is called once for each picture shown, in the order of their sources."""
    ordered = in_order(records)
    rows = measured(ordered)
    shown = by_change(rows, MOST_CROPS)
    lossless = len(shown) <= LOSSLESS_UP_TO
    return (
        environment()
        .get_template("report.html")
        .render(
            title=figures.printable(title),
            origin=origin(),
            totals=totals(rows),
            beside=beside(rows),
            settings=_settings(rows),
            failed=_clean(failed(ordered)),
            rows=_clean(rows),
            cards=[
                (_clean(record), None if (cut := crops(record)) is None else panels(cut, lossless=lossless))
                for record in shown
            ],
            lossless=lossless,
            histogram=address("png", plots.histogram(rows)) if rows else None,
            scatter=None if (scatter := plots.scatter(rows)) is None else address("png", scatter),
            lossless_pictures=len(rows) - len(plots.drawable(rows)),
            bar=colour_bar(),
        )
    )


def origin() -> str:
    """By what, when and on which kind of machine a page was made."""
    return (
        f"lof {lof.__version__}, {date.today()}, {platform.machine()} with {os.cpu_count()} CPUs, "
        f"{platform.system()}, Python {platform.python_version()}"
    )


def _settings(rows: Sequence[Record]) -> list[tuple[str, str]]:
    """What the pictures were made with, each value once."""
    if not rows:
        return []
    together = total_reached(rows)
    targets = [together] if together else sorted({row["target"] for row in rows if "target" in row})
    return [
        ("codec", "; ".join(sorted({f"{row['codec']}, quality {row['quality']:.10g}" for row in rows}))),
        # Older rows do not say it; they are of the squared error, or of a codec that was made for MS-SSIM.
        *([("optimised for", "MS-SSIM")] if any(row.get("metric") == "ms-ssim" for row in rows) else []),
        ("profile", ", ".join(map(str, distinct(rows, "profile")))),
        ("λ", ", ".join(f"{value:g}" for value in distinct(rows, "lambda"))),
        *([("target", ", ".join(targets))] if targets else []),
        ("seed", ", ".join(map(str, distinct(rows, "seed")))),
    ]


def _clean(value: Any) -> Any:
    """Records without control characters in their texts; escaping is the template's business."""
    if isinstance(value, str):
        return figures.printable(value)
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    return list(map(_clean, value)) if isinstance(value, list) else value


@cache
def environment() -> Environment:
    """What templates are rendered by; everything is escaped."""
    environment = Environment(
        loader=PackageLoader("lof.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "bpp": figures.bits_per_pixel,
        "db": lambda value: figures.decibels(number(value)),
        "percent": figures.percent,
        "reached": reached,
        "decimal": figures.decimal,
        "count": figures.count,
        "size": figures.size,
        "duration": figures.duration,
    }
    return environment
