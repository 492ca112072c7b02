"""The tables of a manifest, version 3; ``FORMAT.md`` beside this module describes them to strangers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from lof.archive.entries import Kind, Origin

VERSION = 3
APPLICATION = 0x6C6F6661  # "lofa"

MOST_PSNR = 99.0
"""What a lossless stream counts for in a mean of PSNR, in dB; its row has infinity."""

State = Literal["streamed", "stored", "failed"]


@dataclass(frozen=True)
class Row:
    """What is known about one entry; ``FORMAT.md`` explains the columns.

    ``None`` and empty where it does not apply: figures belong to streams, objects to files.
    """

    path: str
    kind: Kind
    origin: Origin
    state: State
    size: int = 0
    mtime_ns: int = 0
    mode: int = 0
    link: str = ""
    sha256: str = ""
    why: str = ""
    detail: str = ""
    notes: str = ""
    error: str = ""
    object: str = ""
    object_size: int = 0
    object_sha256: str = ""
    settings: str = ""
    tried: str = ""
    container: str | None = None
    suffix: str | None = None
    codec: str | None = None
    quality_64: int | None = None
    metric: str | None = None
    fingerprint: str | None = None
    profile: str | None = None
    profile_digest: str | None = None
    lmbda: float | None = None
    seed: int | None = None
    format: str | None = None
    height: int | None = None
    width: int | None = None
    bpp: float | None = None
    psnr: float | None = None
    ms_ssim: float | None = None
    cost: float | None = None
    pixels_sha256: str | None = None
    symbols_sha256: str | None = None
    seconds: float = 0.0

    @property
    def quality(self) -> float | None:
        """The codec's quality."""
        return None if self.quality_64 is None else self.quality_64 / 64


COLUMNS = {field.name: "lambda" if field.name == "lmbda" else field.name for field in fields(Row)}
"""The column of each field of :class:`Row`."""


def _types(hint: Any) -> tuple[type, ...]:
    return tuple(str if isinstance(part, str) else part for part in get_args(hint) or (hint,))


TYPES = {name: _types(hint) for name, hint in get_type_hints(Row).items()}
"""What a field of :class:`Row` may hold."""
_SQL = {str: "TEXT", int: "INTEGER", float: "REAL"}


def _columns() -> str:
    """Those of the table ``files``, but for the time of the last change."""
    empty = {name: "" if type(None) in types else " NOT NULL" for name, types in TYPES.items()}
    columns = (f"{COLUMNS[name]} {_SQL[types[0]]}{empty[name]}" for name, types in TYPES.items())
    return f"{', '.join(columns)}, PRIMARY KEY (path)"


TABLES = f"""
CREATE TABLE sources (
    name TEXT PRIMARY KEY,   -- first part of its entries' paths
    path TEXT NOT NULL,      -- where it was when it was archived last
    origin TEXT NOT NULL,    -- folder, tar, zip
    exclude TEXT NOT NULL,   -- JSON array: the globs whose matches were left out
    error TEXT NOT NULL      -- why it was not read to its end; empty if it was
) WITHOUT ROWID;
CREATE TABLE files (updated REAL NOT NULL, {_columns()}) WITHOUT ROWID;
CREATE UNIQUE INDEX objects ON files (object) WHERE object != '';
CREATE INDEX errors ON files (path) WHERE error != '';
CREATE TABLE pending (  -- objects that are being put in place, see lof/archive/store.py
    path TEXT PRIMARY KEY,
    row TEXT NOT NULL,  -- JSON
    older TEXT NOT NULL -- an object that goes once the row is in files; empty if none
) WITHOUT ROWID;
CREATE TABLE totals ( -- kept by triggers
    kind TEXT NOT NULL, state TEXT NOT NULL, why TEXT NOT NULL,
    files INTEGER NOT NULL, size INTEGER NOT NULL, object_size INTEGER NOT NULL,
    bpp REAL NOT NULL, psnr REAL NOT NULL, ms_ssim REAL NOT NULL, with_ms_ssim INTEGER NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (kind, state, why)
) WITHOUT ROWID;
"""


def _count(row: str, sign: str) -> str:
    """SQL that adds a row to its total, or takes it out again."""
    values = {
        "files": "1",
        "size": f"{row}.size",
        "object_size": f"{row}.object_size",
        "bpp": f"ifnull({row}.bpp, 0)",
        "psnr": f"min(ifnull({row}.psnr, 0), {MOST_PSNR})",
        "ms_ssim": f"ifnull({row}.ms_ssim, 0)",
        "with_ms_ssim": f"({row}.ms_ssim IS NOT NULL)",
        "seconds": f"{row}.seconds",
    }
    added = ", ".join(f"{name} = {name} + excluded.{name}" for name in values)
    return (
        f"INSERT INTO totals VALUES ({row}.kind, {row}.state, {row}.why, "
        f"{', '.join(sign + value for value in values.values())}) ON CONFLICT DO UPDATE SET {added};"
    )


TRIGGERS = f"""
CREATE TRIGGER added AFTER INSERT ON files BEGIN {_count("NEW", "+")} END;
CREATE TRIGGER removed AFTER DELETE ON files BEGIN {_count("OLD", "-")} END;
CREATE TRIGGER changed AFTER UPDATE ON files BEGIN {_count("OLD", "-")} {_count("NEW", "+")} END;
"""
