"""Records as a flat table for spreadsheets and data frames; units stand in the names of the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from lof.pictures.formats import FORMATS
from lof.report.figures import printable
from lof.report.records import Record

_MEASURES = {
    "bytes": "size",
    "bpp": "bpp",
    "psnr_db": "psnr",
    "ms_ssim": "ms_ssim",
    "mse": "mse",
    "cost_bpp": "cost",
    "psnr_inside_db": "psnr_inside",
    "psnr_outside_db": "psnr_outside",
}
_SIDES = {
    f"{side}_{column}": (side, key) for column, key in _MEASURES.items() for side in ("baseline", "optimised")
}
_TEXTS = (
    "source",
    "state",
    "error",
    "output",
    "codec",
    "quality",
    "profile",
    "lambda",
    "seed",
    "kept",
    "target",
)
_SIZES = ("width_px", "height_px", "source_bytes")
_EFFORTS = ("rate_change_percent", "gradient_evaluations", "seconds")

_AGAINST = {name: f"{name}_bytes_at_same_psnr" for name in FORMATS}

COLUMNS = (
    *_TEXTS,
    *_SIZES,
    *_SIDES,
    *_AGAINST.values(),
    *_EFFORTS,
    "notes",
    "source_sha256",
    "output_sha256",
)


def to_csv(records: Iterable[Record]) -> str:
    """RFC 4180 with ``\\n`` at line ends; empty where a record has no such figure, ``inf`` for infinity.

    Text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({column: _cell(value) for column, value in _flat(record).items()})
    return buffer.getvalue()


def _flat(record: Record) -> Record:
    if "optimised" not in record:
        return record
    return record | {
        **{column: record[side].get(key) for column, (side, key) in _SIDES.items()},
        **{_AGAINST[name]: size for name, size in record.get("against", {}).items()},
        "width_px": record["width"],
        "height_px": record["height"],
        "source_bytes": record["source_size"],
        "rate_change_percent": 100 * record["rate_change"],
        "gradient_evaluations": record["evaluations"],
    }


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        value = "; ".join(map(str, value))
    return _inert(value) if isinstance(value, str) else value


def _inert(text: str) -> str:
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text
