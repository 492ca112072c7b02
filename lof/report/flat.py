"""Records as a flat table for spreadsheets and data frames; units stand in the names of the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lof.report.figures import printable
from lof.report.records import Record

_MEASURES = {
    "bytes": "size",
    "bpp": "bpp",
    "psnr_db": "psnr",
    "ms_ssim": "ms_ssim",
    "mse": "mse",
    "cost_bpp": "cost",
}


def _measure(side: str, key: str) -> Callable[[Record], Any]:
    return lambda record: record[side][key]


_FIGURES: Mapping[str, Callable[[Record], Any]] = {
    "width_px": lambda record: record["width"],
    "height_px": lambda record: record["height"],
    "source_bytes": lambda record: record["source_size"],
    **{
        f"{side}_{column}": _measure(side, key)
        for column, key in _MEASURES.items()
        for side in ("baseline", "optimised")
    },
    "rate_change_percent": lambda record: 100 * record["rate_change"],
    "gradient_evaluations": lambda record: record["evaluations"],
    "seconds": lambda record: record["seconds"],
}
_TEXTS = ("source", "state", "error", "output", "codec", "quality", "profile", "lambda", "seed", "kept")
_LAST_TEXTS = ("notes", "source_sha256", "output_sha256")

COLUMNS = (*_TEXTS, *_FIGURES, *_LAST_TEXTS)


def to_csv(records: Iterable[Record]) -> str:
    """RFC 4180 with ``\\n`` at line ends; empty where a record has no such figure, ``inf`` for infinity.

    Text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        writer.writerow([_cell(record, column) for column in COLUMNS])
    return buffer.getvalue()


def _cell(record: Record, column: str) -> Any:
    if column in _FIGURES:
        return _FIGURES[column](record) if "optimised" in record else None
    value = record.get(column)
    if isinstance(value, list | tuple):
        value = "; ".join(map(str, value))
    return _inert(value) if isinstance(value, str) else value


def _inert(text: str) -> str:
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text
