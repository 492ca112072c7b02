"""The tables of a manifest, version 3; ``FORMAT.md`` beside this module describes them to strangers."""

from __future__ import annotations

VERSION = 3
APPLICATION = 0x6C6F6661  # "lofa"

MOST_PSNR = 99.0
"""What a lossless stream counts for in a mean of PSNR, in dB; its row has infinity."""

TABLES = """
CREATE TABLE sources (
    name TEXT PRIMARY KEY,   -- first part of its entries' paths
    path TEXT NOT NULL,      -- where it was when it was archived last
    origin TEXT NOT NULL,    -- folder, tar, zip
    exclude TEXT NOT NULL,   -- JSON array: the globs whose matches were left out
    error TEXT NOT NULL      -- why it was not read to its end; empty if it was
) WITHOUT ROWID;
CREATE TABLE files (
    path TEXT PRIMARY KEY,       -- in the archive; the bytes of the source's file name, mostly UTF-8
    kind TEXT NOT NULL CHECK (kind IN ('file', 'folder', 'link', 'hardlink')),
    origin TEXT NOT NULL,        -- folder, tar, zip: what it was read from
    size INTEGER NOT NULL,       -- of the source, bytes
    mtime_ns INTEGER NOT NULL,   -- of the source, nanoseconds since 1970
    mode INTEGER NOT NULL,       -- permission bits of the source
    link TEXT NOT NULL,          -- text of a link; path that a hard link repeats
    sha256 TEXT NOT NULL,        -- of the source
    state TEXT NOT NULL CHECK (state IN ('streamed', 'stored', 'failed')),
    why TEXT NOT NULL,           -- why a file is stored as it is
    detail TEXT NOT NULL,        -- more about that
    notes TEXT NOT NULL,         -- what was done to the picture or dropped of it, one a line
    error TEXT NOT NULL,         -- an open failure; empty if there is none
    object TEXT NOT NULL,        -- the file in the archive: streams/..., stored/...; empty if there is none
    object_size INTEGER NOT NULL,
    object_sha256 TEXT NOT NULL,
    settings TEXT NOT NULL,      -- digest of everything that decided the stream
    tried TEXT NOT NULL,         -- the last search of `improve`: profile digest and seed
    container TEXT,              -- format of the stream's file: lof, ...
    suffix TEXT,                 -- what the name of such a file ends in
    codec TEXT,
    quality_64 INTEGER,          -- quality of the codec, in multiples of 1/64
    metric TEXT,
    fingerprint TEXT,            -- SHA-256 over the codec's weights
    profile TEXT, profile_digest TEXT, lambda REAL, seed INTEGER,
    format TEXT,                 -- of the source: JPEG, PNG, ...
    height INTEGER, width INTEGER,
    bpp REAL, psnr REAL, ms_ssim REAL,
    cost REAL,                   -- bpp + lambda * distortion
    pixels_sha256 TEXT,          -- of the decoded image; other CPUs may round single pixels otherwise
    symbols_sha256 TEXT,         -- of the integers in the stream, the same on all CPUs
    seconds REAL NOT NULL,       -- of work on it, all searches together
    updated REAL NOT NULL        -- seconds since 1970
) WITHOUT ROWID;
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
