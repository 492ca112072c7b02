"""The memory of a job: one row per source in ``OUT/.lof/manifest.sqlite``."""

from __future__ import annotations

import errno
import fcntl
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lof.errors import OutputError, one_line
from lof.files.atomic import HAS_ROOM, temporary_folder
from lof.files.sqlite import manifest_error
from lof.files.storage import Location, is_remote, open_read, read_bytes, size_and_version
from lof.jobs.form import is_complete

FOLDER = ".lof"
NAME = "manifest.sqlite"
VERSION = 2

_COPIES = 50  # tries, while a job writes faster than a slow disk is read
_LOG_HEADER = 32  # bytes, other ones in each log: https://sqlite.org/fileformat2.html#walformat
_LOCKED = (510, 2**30 + 2)  # bytes, and from where: those that every reader and writer locks
_ELSEWHERE = "choose another folder with -o"

_TABLE = """
CREATE TABLE images (
    source TEXT PRIMARY KEY, -- relative to the inputs, posix
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    settings TEXT NOT NULL,
    output TEXT NOT NULL, -- relative to the output folder, posix
    output_size INTEGER NOT NULL,
    output_sha256 TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('done', 'failed')),
    record TEXT NOT NULL, -- JSON
    updated REAL NOT NULL, -- seconds since 1970
    place TEXT NOT NULL DEFAULT '' -- where the source lay, see identity.py; empty in rows of version 1
)
"""
_SINCE_VERSION_2 = "ALTER TABLE images ADD COLUMN place TEXT NOT NULL DEFAULT ''"


@dataclass(frozen=True)
class Row:
    """What is known about one source. Hashes are empty and sizes 0 where a failure left none."""

    source: str
    size: int
    mtime_ns: int
    settings: str
    state: Literal["done", "failed"]
    record: dict[str, Any]
    sha256: str = ""
    output: str = ""
    output_size: int = 0
    output_sha256: str = ""
    place: str = ""

    @property
    def is_done(self) -> bool:
        """Whether the image is done, and the record has what reports and displays take from it."""
        return self.state == "done" and is_complete(self.record)


class Manifest:
    """The open manifest of an output folder, held by one process at a time.

    A row is on disk when :meth:`put` returns, unless the power fails: then the newest rows may be missing
    (their images are done again), never damaged.

    Raises:
        OutputError: the folder cannot be written, another process is at work in it, or the manifest is
            damaged or of a newer version.
    """

    def __init__(self, out: Path, shown: Location | None = None) -> None:
        self.path = out / FOLDER / NAME
        self.shown = shown or self.path
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"{out}: cannot be written ({reason}); {_ELSEWHERE}") from error
        with self._errors_mapped():
            self._open(exclusive=True)

    @classmethod
    @contextmanager
    def snapshot(cls, out: Path) -> Iterator[Manifest | None]:
        """A copy to read, or ``None`` where there is no manifest; ``out`` is neither changed nor locked.

        Raises:
            OutputError: the manifest cannot be read or copied, or is damaged or of a newer version.
        """
        path = out / FOLDER / NAME
        with temporary_folder() as name:
            if not _copied(path, Path(name)):
                yield None
                return
            manifest = cls.__new__(cls)
            manifest.path, manifest.shown = Path(name, NAME), path
            with manifest._errors_mapped():
                manifest._open(exclusive=False)
            with manifest:
                yield manifest

    def get(self, source: str) -> Row | None:
        """The row of a source, if there is one."""
        with self._errors_mapped():
            found = self._database.execute("SELECT * FROM images WHERE source = ?", (key(source),)).fetchone()
            if found is None:
                return None
            fields = {name: found[name] for name in found.keys() if name != "updated"}  # noqa: SIM118
            row = Row(**fields | {"source": source, "record": _parsed(found["record"])})
            kinds = {"size": int, "mtime_ns": int, "output_size": int, "record": dict}
            for name, value in vars(row).items():
                if not isinstance(value, kinds.get(name, str)):
                    raise ValueError(f"{name} of a row is {type(value).__name__}")
            return row

    def outputs(self) -> set[str]:
        """What is written, as :func:`key` gives the names."""
        with self._errors_mapped():
            found = self._database.execute("SELECT output FROM images WHERE state = 'done'").fetchall()
            return {row["output"] for row in found}

    def put(self, row: Row) -> None:
        """Insert a row, or replace the one of the same source."""
        fields = asdict(row) | {"record": json.dumps(row.record), "updated": time.time()}
        fields |= {name: key(fields[name]) for name in ("source", "output", "place")}
        columns, marks = ", ".join(fields), ", ".join(f":{name}" for name in fields)
        with self._errors_mapped():
            self._database.execute(f"INSERT OR REPLACE INTO images ({columns}) VALUES ({marks})", fields)

    def close(self) -> None:
        """Let other processes in."""
        self._database.close()

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, *, exclusive: bool) -> None:
        self._database = sqlite3.connect(self.path, timeout=0.5, isolation_level=None)
        try:
            self._database.row_factory = sqlite3.Row
            if exclusive:
                # Locks before the first read of a WAL database, so no shared memory is needed either.
                self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = NORMAL")
                self._database.execute("BEGIN EXCLUSIVE")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise OutputError(
                    f"{self.shown}: written by a newer lof (version {version}, this one knows {VERSION}); "
                    f"upgrade lof or {_ELSEWHERE}"
                )
            if version < VERSION:
                self._database.execute(_SINCE_VERSION_2 if version else _TABLE)
                self._database.execute(f"PRAGMA user_version = {VERSION}")
            if exclusive:
                self._database.execute("COMMIT")
        except BaseException:
            self._database.close()
            raise

    @contextmanager
    def _errors_mapped(self) -> Iterator[None]:
        try:
            yield
        except (
            sqlite3.Error,
            MemoryError,
            TypeError,
            ValueError,
        ) as error:  # UnicodeDecodeError is a ValueError
            remedy = f"delete it to do the whole job again, or {_ELSEWHERE}"
            damaged = OutputError(f"{self.shown}: damaged ({one_line(error)}); {remedy}")
            if self.path != self.shown and not is_remote(self.shown) and _is_held(self.shown):
                damaged = _at_work(self.shown)  # to delete it now would lose what that job does
            raise manifest_error(error, self.path, damaged) from error  # a copy may have no room


def _parsed(record: Any) -> dict[str, Any]:
    """A record that is no JSON object, or nested too deep for Python, is empty: its image is not done."""
    try:
        parsed = json.loads(record)
    except (TypeError, ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _copied(path: Path, folder: Path) -> bool:
    """Whether there is a manifest, which is in the folder too afterwards, as it stood at one moment.

    A job at work writes to the log, and from there into the database. Of the log, which is read last, all is there that
    the database lacks, until it is begun anew: what was copied meanwhile may not fit together.
    """
    log = path.with_name(f"{NAME}-wal")
    for _ in range(_COPIES):
        before = _state(path, log)
        there = _copy(path, folder) | _copy(log, folder)
        if before == _state(path, log):
            return there
    raise _at_work(path)


def _state(path: Path, log: Path) -> object:
    """What stays while a log is only added to: its header; where there is none, nothing is under way."""
    try:
        with open_read(log) as file:
            header = file.read(_LOG_HEADER)
    except OSError:
        header = b""
    return header or size_and_version(path)


def _is_held(path: Path) -> bool:
    """Whether a job of another process is at work with the manifest: SQLite locks these bytes of the file then."""
    try:
        with open_read(path) as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, *_LOCKED)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES)
    return False


def _at_work(path: Location) -> OutputError:
    return OutputError(f"{path}: another lof is at work there; wait for it or {_ELSEWHERE}")


def _copy(path: Path, folder: Path) -> bool:
    """Whether there is such a file, which is in the folder too afterwards."""
    try:
        content = read_bytes(path) if path.is_file() else None
    except FileNotFoundError:  # a job that ends takes its log away
        content = None
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be read ({error.strerror}); check its permissions or {_ELSEWHERE}"
        ) from error
    try:
        if content is None:
            (folder / path.name).unlink(missing_ok=True)
            return False
        (folder / path.name).write_bytes(content)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}); {HAS_ROOM}") from error
    return True


def key(name: str) -> str:
    """How a name stands in the manifest: one that is no UTF-8 has lone surrogates, which SQLite does not take."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
