"""The manifest of an archive: ``DST/manifest.sqlite``, one row per entry of the sources."""

from __future__ import annotations

import json
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

from lof.archive.entries import Container, Kind
from lof.archive.names import from_bytes, to_bytes
from lof.archive.schema import APPLICATION, TABLES, TRIGGERS, UPGRADES, VERSION
from lof.errors import ArchiveError, OutputError

NAME = "manifest.sqlite"
_PAGE = 1000

State = Literal["streamed", "stored", "failed"]


@dataclass(frozen=True)
class Row:
    """What is known about one entry; the columns are explained in :mod:`lof.archive.schema`.

    ``None`` and empty where it does not apply: figures belong to streams, objects to files.
    """

    path: str
    kind: Kind
    container: Container
    state: State
    size: int = 0
    mtime_ns: int = 0
    mode: int = 0
    link: str = ""
    sha256: str = ""
    why: str = ""
    detail: str = ""
    error: str = ""
    object: str = ""
    object_size: int = 0
    object_sha256: str = ""
    settings: str = ""
    tried: str = ""
    codec: str | None = None
    quality: int | None = None
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


class Brief(NamedTuple):
    """What decides whether an entry has to be worked on."""

    path: str
    kind: Kind
    size: int
    mtime_ns: int
    mode: int
    link: str
    state: State
    why: str
    error: str
    object: str
    settings: str


Outline = tuple[str, int, int, int, str]
"""Path, type and permission bits, size, time and object of a file."""


class Total(NamedTuple):
    """Sums over the entries of one kind, state and reason."""

    kind: Kind
    state: State
    why: str
    files: int
    size: int
    object_size: int
    bpp: float
    psnr: float
    ms_ssim: float
    with_ms_ssim: int
    seconds: float


class SourceRow(NamedTuple):
    """One source of the archive, as it was when it was archived last."""

    name: str
    path: str
    container: str
    error: str


_COLUMNS = {field.name: "lambda" if field.name == "lmbda" else field.name for field in fields(Row)}
_NAMES = {"path", "link", "object"}  # bytes of file names: SQLite takes any as text, Python only UTF-8
_BRIEF = ", ".join(Brief._fields)
_ALL = ", ".join(_COLUMNS.values())
_ALL_OF = {VERSION: _ALL, 1: _ALL.replace("symbols_sha256", "NULL")}


def _mark(field: str) -> str:
    return f"CAST(:{field} AS TEXT)" if field in _NAMES else f":{field}"


_PUT = (
    f"INSERT INTO files ({_ALL}, updated) VALUES ({', '.join(map(_mark, _COLUMNS))}, :updated) "
    f"ON CONFLICT (path) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in _COLUMNS.values())}, "
    "updated = excluded.updated"
)


class Manifest:
    """The open manifest of the archive in ``folder``.

    A row is on disk when :meth:`put` returns, power cuts included. One process writes (:mod:`lof.archive.store`
    sees to that), others may read at the same time. Manifests of older versions are read as they are and brought
    to this one when they are written.

    Raises:
        ArchiveError: there is none, it is damaged, or of a newer version.
        OutputError: it cannot be written.
    """

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        self.path = folder / NAME
        if not write and not self.path.is_file():
            raise ArchiveError(f"{folder}: holds no archive (no {NAME} in it); check the name")
        with self._errors_mapped():
            self._open(write)

    def get(self, path: str) -> Row | None:
        """The row of a path, if there is one."""
        return self._one("path = CAST(? AS TEXT)", path)

    def by_object(self, name: str) -> Row | None:
        """The row that an object belongs to, if there is one."""
        return self._one("object = CAST(? AS TEXT) AND object != ''", name)

    def rows(self, where: str = "TRUE", *values: object) -> Iterator[Row]:
        """Rows in the order of the bytes of their paths, read a page at a time, so rows may change meanwhile."""
        last = b""
        while True:
            query = (
                f"SELECT {self._columns} FROM files "
                f"WHERE path > CAST(? AS TEXT) AND ({where}) ORDER BY path LIMIT ?"
            )
            page = [Row(*found) for found in self._all(query, last, *values, _PAGE)]
            yield from page
            if len(page) < _PAGE:
                return
            last = to_bytes(page[-1].path)

    def briefs(self, source: str) -> Iterator[Brief]:
        """:meth:`rows` of one source, in brief."""
        yield from map(Brief._make, self._below(source, _BRIEF))

    def outlines(self, source: str, settings: str) -> Iterator[Outline]:
        """:meth:`rows` of one source that are files done with these settings and without an error, outlined."""
        columns = f"path, mode | {stat.S_IFREG}, size, mtime_ns, object"
        return self._below(source, columns, "kind = 'file' AND error = '' AND settings = ?", settings)

    def _below(self, source: str, columns: str, where: str = "TRUE", *values: object) -> Iterator[Any]:
        """Columns of the source's own row and those below it; the first column is the path."""
        select = f"SELECT {columns} FROM files WHERE {where} AND"
        yield from self._all(f"{select} path = CAST(? AS TEXT)", *values, to_bytes(source))
        last, end = to_bytes(f"{source}/"), to_bytes(f"{source}0")  # "0" is the character after the slash
        query = f"{select} path > CAST(? AS TEXT) AND path < CAST(? AS TEXT) ORDER BY path LIMIT ?"
        while True:
            page = self._all(query, *values, last, end, _PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            last = to_bytes(page[-1][0])

    def brief(self, path: str) -> Brief | None:
        """:meth:`get` in brief."""
        found = self._all(f"SELECT {_BRIEF} FROM files WHERE path = CAST(? AS TEXT)", to_bytes(path))
        return Brief._make(found[0]) if found else None

    def put(self, *rows: Row, settled: bool = False) -> None:
        """Insert rows, or replace those of the same paths, all or none.

        Args:
            settled: also forget that they are pending.
        """
        with self._transaction():
            for row in rows:
                values = asdict(row) | {name: to_bytes(getattr(row, name)) for name in _NAMES}
                self._database.execute(_PUT, values | {"updated": time.time()})
                if settled:
                    self._forget(row.path)

    def drop(self, path: str) -> None:
        """Forget a row."""
        with self._transaction():
            self._database.execute("DELETE FROM files WHERE path = CAST(? AS TEXT)", (to_bytes(path),))

    def intend(self, row: Row, older: str) -> None:
        """Remember a row whose object is about to be put in place, and the name of an object that then goes."""
        with self._transaction():
            self._database.execute(
                "INSERT OR REPLACE INTO pending VALUES (CAST(? AS TEXT), ?, CAST(? AS TEXT))",
                (to_bytes(row.path), json.dumps(asdict(row)), to_bytes(older)),
            )

    def pending(self) -> list[tuple[Row, str]]:
        """What was intended and neither put nor given up."""
        return [(Row(**json.loads(row)), older) for row, older in self._all("SELECT row, older FROM pending")]

    def give_up(self, path: str) -> None:
        """Forget an intended row."""
        with self._transaction():
            self._forget(path)

    def totals(self) -> list[Total]:
        """Sums by kind, state and reason; kept up to date by the database, so this is quick."""
        query = f"SELECT {', '.join(Total._fields)} FROM totals WHERE files > 0 ORDER BY kind, state, why"
        return [Total._make(found) for found in self._all(query)]

    def errors(self, most: int = -1) -> list[tuple[str, str]]:
        """Path and error of entries with which something went wrong, at most ``most`` of them."""
        query = "SELECT path, error FROM files WHERE error != '' ORDER BY path LIMIT ?"
        return [(path, error) for path, error in self._all(query, most)]

    def count_errors(self) -> int:
        """How many entries something went wrong with."""
        return int(self._all("SELECT count(*) FROM files WHERE error != ''")[0][0])

    def sources(self) -> list[SourceRow]:
        """The sources of the archive."""
        return [SourceRow._make(f) for f in self._all("SELECT * FROM sources ORDER BY name")]

    def put_source(self, source: SourceRow) -> None:
        """Insert or replace a source."""
        with self._transaction():
            self._database.execute(
                "INSERT OR REPLACE INTO sources VALUES (CAST(? AS TEXT), CAST(? AS TEXT), ?, ?)",
                (to_bytes(source.name), to_bytes(source.path), source.container, source.error),
            )

    def check(self) -> str | None:
        """What SQLite finds wrong with the file itself, ``None`` if nothing."""
        try:
            found = self._database.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            return str(error)
        return None if found == "ok" else str(found)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Manifest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, write: bool) -> None:
        if write:
            self._database = sqlite3.connect(self.path, isolation_level=None)
        else:
            self._database = _connect_to_read(self.path)
        try:
            if write:
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
            version = self._pragma("user_version")
            if version > VERSION:
                raise ArchiveError(
                    f"{self.path}: written by a newer lof (version {version}, this one knows {VERSION}); upgrade lof"
                )
            if version == 0 and write and not self._all("SELECT 1 FROM sqlite_master"):
                self._create()
                version = VERSION
            elif version < 1 or self._pragma("application_id") != APPLICATION:
                raise ArchiveError(f"{self.path}: is no manifest of an archive; choose another folder")
            while write and version < VERSION:
                self._upgrade(version)
                version += 1
            self._columns = _ALL_OF[version]
        except BaseException:
            self._database.close()
            raise

    def _create(self) -> None:
        pragmas = f"PRAGMA user_version = {VERSION}; PRAGMA application_id = {APPLICATION};"
        self._database.executescript(f"BEGIN; {TABLES} {TRIGGERS} {pragmas} COMMIT;")

    def _upgrade(self, version: int) -> None:
        self._database.executescript(
            f"BEGIN IMMEDIATE; {UPGRADES[version]}; PRAGMA user_version = {version + 1}; COMMIT;"
        )

    def _pragma(self, name: str) -> int:
        return int(self._database.execute(f"PRAGMA {name}").fetchone()[0])

    def _forget(self, path: str) -> None:
        self._database.execute("DELETE FROM pending WHERE path = CAST(? AS TEXT)", (to_bytes(path),))

    def _one(self, where: str, name: str) -> Row | None:
        found = self._all(f"SELECT {self._columns} FROM files WHERE {where}", to_bytes(name))
        return Row(*found[0]) if found else None

    def _all(self, query: str, *values: object) -> list[Any]:
        with self._errors_mapped():
            try:
                return self._database.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", None) is not None:
                    raise
            # Names that are no UTF-8, which sqlite3 itself cannot decode. Rare, and slower.
            self._database.text_factory = from_bytes
            try:
                return self._database.execute(query, values).fetchall()
            finally:
                self._database.text_factory = str

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors_mapped():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors_mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _explained(error, self.path) from error


def _connect_to_read(path: Path) -> sqlite3.Connection:
    # A reader of a WAL database wants to write its index beside it. Where it may not and no journal is left,
    # nobody is writing, and the file can be read as it is.
    place = "file:" + "".join(f"%{byte:02x}" for byte in to_bytes(str(path.absolute())))
    database = sqlite3.connect(f"{place}?mode=ro", uri=True, isolation_level=None)
    try:
        database.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        database.close()
        if path.with_name(f"{NAME}-wal").exists():
            raise
        database = sqlite3.connect(f"{place}?mode=ro&immutable=1", uri=True, isolation_level=None)
    return database


def _explained(error: sqlite3.Error, path: Path) -> ArchiveError | OutputError:
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return ArchiveError(
                f"{path}: damaged ({error}); copy it back from a backup: "
                "the streams beside it are whole and `lof decode` reads them"
            )
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            return OutputError(
                f"{path}: cannot be written ({error}); make room and run the same command again, what is done is kept"
            )
        case _:
            return OutputError(
                f"{path}: cannot be used ({error}); check its permissions and who else uses it"
            )
