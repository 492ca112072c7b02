"""What SQLite's errors mean to the owner of a manifest: one line that says what to do."""

from __future__ import annotations

import sqlite3

from lof.errors import LofError, OutputError
from lof.files.storage import Location


def manifest_error(error: Exception, path: Location, damaged: LofError) -> LofError:
    """The error to raise instead.

    Args:
        error: of SQLite, or whatever reading a damaged file has led to.
        path: the manifest.
        damaged: what to raise where the file is no manifest or was damaged.
    """
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF:
        case (
            sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_ERROR | sqlite3.SQLITE_CONSTRAINT
        ):
            return damaged
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return OutputError(f"{path}: another lof is at work there; wait for it or choose another folder")
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            what = f"{path}: cannot be written ({error})"
            return OutputError(f"{what}; make room and run the same command again, what is done is kept")
        case _:
            what = f"{path}: cannot be used ({error})"
            return OutputError(f"{what}; check its permissions or choose another folder")
