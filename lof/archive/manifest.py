"""The manifest of an archive: ``DST/manifest.sqlite``, one row per entry of the sources."""

from __future__ import annotations

import json
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, get_args

from lof.archive.entries import Kind, Origin
from lof.archive.names import from_bytes, is_safe, to_bytes
from lof.archive.schema import APPLICATION, COLUMNS, TABLES, TRIGGERS, TYPES, VERSION, Row, State
from lof.errors import ArchiveError
from lof.files.sqlite import manifest_error

NAME = "manifest.sqlite"
STREAMS, STORED = "streams", "stored"
_PAGE = 1000

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
    origin: str
    exclude: str
    error: str


_TEXTS = {name for name, types in TYPES.items() if str in types}
"""They go in as bytes, for they may hold file names: SQLite takes any bytes as text, Python only UTF-8."""
_ALL = ", ".join(COLUMNS.values())
_PUT = (
    f"INSERT INTO files ({_ALL}, updated) "
    f"VALUES ({', '.join(f'CAST(:{c} AS TEXT)' if c in _TEXTS else f':{c}' for c in COLUMNS)}, :updated) "
    f"ON CONFLICT (path) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in COLUMNS.values())}, "
    "updated = excluded.updated"
)


class DamagedManifest(ArchiveError):
    """A manifest that cannot be read any more, or holds what lof never writes."""


def no_archive(folder: Path) -> ArchiveError:
    """The error for a folder without a manifest, which may be that of an archive all the same."""
    if any((folder / area).is_dir() for area in (STREAMS, STORED)):
        return ArchiveError(
            f"{folder}: has no {NAME}; if it is an archive that has lost it, `lof archive rebuild` makes a new one"
        )
    return ArchiveError(f"{folder}: holds no archive (no {NAME} in it); check the name")


_WORDS = [(name, get_args(words)) for name, words in (("kind", Kind), ("origin", Origin), ("state", State))]


class Manifest:
    """The open manifest of the archive in ``folder``.

    A row is on disk when :meth:`put` returns, power cuts included. One process writes (:mod:`lof.archive.store`
    sees to that), others may read at the same time. Rows that lof cannot have written are refused.

    Raises:
        ArchiveError: there is none, it is damaged, or of another version.
        OutputError: it cannot be written.
    """

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        self.path = folder / NAME
        if not write and not self.path.is_file():
            raise no_archive(folder)
        with self._errors_mapped():
            self._database = (
                sqlite3.connect(self.path, isolation_level=None) if write else _to_read(self.path)
            )
            self._database.text_factory = from_bytes
        try:
            with self._errors_mapped():
                self._prepare(write)
        except BaseException:
            self._database.close()
            raise

    def get(self, path: str) -> Row | None:
        """The row of a path, if there is one."""
        return next(self.rows("path = CAST(? AS TEXT)", to_bytes(path)), None)

    def by_object(self, name: str) -> Row | None:
        """The row that an object belongs to, if there is one."""
        return next(self.rows("object = CAST(? AS TEXT) AND object != ''", to_bytes(name)), None)

    def rows(self, where: str = "TRUE", *values: object) -> Iterator[Row]:
        """Rows in the order of the bytes of their paths, read a page at a time, so rows may change meanwhile."""
        for found in self._pages(_ALL, where, *values):
            yield self._row(found)

    def below(self, folder: str) -> Iterator[Row]:
        """:meth:`rows` whose paths lie below a folder, which need not have a row itself."""
        # "0" is the character after the slash.
        where = "path > CAST(? AS TEXT) AND path < CAST(? AS TEXT)"
        return self.rows(where, to_bytes(f"{folder}/"), to_bytes(f"{folder}0"))

    def outlines(self, source: str, settings: str) -> Iterator[Outline]:
        """Files of one source that are done with these settings and without an error, in the order of :meth:`rows`."""
        columns = f"path, mode | {stat.S_IFREG}, size, mtime_ns, object"
        where = "path > CAST(? AS TEXT) AND path < CAST(? AS TEXT) AND kind = 'file' AND error = '' AND settings = ?"
        return self._pages(columns, where, to_bytes(f"{source}/"), to_bytes(f"{source}0"), settings)

    def put(self, *rows: Row, settled: bool = False) -> None:
        """Insert rows, or replace those of the same paths, all or none.

        Args:
            settled: also forget that they are pending.
        """
        with self._transaction():
            for row in rows:
                values = {k: to_bytes(v) if isinstance(v, str) else v for k, v in vars(row).items()}
                self._database.execute(_PUT, values | {"updated": time.time()})
                if settled:
                    self._forget(row.path)

    def intend(self, row: Row, older: str) -> None:
        """Remember a row whose object is about to be put in place, and the name of an object that then goes."""
        with self._transaction():
            self._database.execute(
                "INSERT OR REPLACE INTO pending VALUES (CAST(? AS TEXT), ?, CAST(? AS TEXT))",
                (to_bytes(row.path), json.dumps(vars(row)), to_bytes(older)),
            )

    def pending(self) -> list[tuple[Row, str]]:
        """What was intended and neither put nor given up."""
        found = self._all("SELECT row, older FROM pending")
        try:
            rows = [(Row(**json.loads(row)), older) for row, older in found]
            return [(self._row(tuple(vars(row).values())), self._object(older)) for row, older in rows]
        except (TypeError, ValueError, RecursionError) as error:
            raise self._damaged("the table `pending` holds no rows") from error

    def give_up(self, path: str) -> None:
        """Forget an intended row."""
        with self._transaction():
            self._forget(path)

    def close_failures(self, source: str, still_open: set[str]) -> None:
        """Forget the failures of a source that has been read to its end, but for those that it still has.

        What failed and is gone from the source can never get in; what the archive has of it stays.
        """
        below = to_bytes(f"{source}/"), to_bytes(f"{source}0")
        errors = self._all(
            "SELECT path FROM files WHERE error != '' AND (path = CAST(? AS TEXT) "
            "OR (path > CAST(? AS TEXT) AND path < CAST(? AS TEXT)))",
            to_bytes(source),
            *below,
        )
        closed = [(to_bytes(path),) for (path,) in errors if path not in still_open]
        with self._transaction():
            for query in (
                "DELETE FROM files WHERE state = 'failed' AND path = CAST(? AS TEXT)",
                "UPDATE files SET error = '', settings = '' WHERE path = CAST(? AS TEXT)",
            ):
                self._database.executemany(query, closed)

    def totals(self) -> list[Total]:
        """Sums by kind, state and reason; kept up to date by the database, so this is quick."""
        query = f"SELECT {', '.join(Total._fields)} FROM totals WHERE files > 0 ORDER BY kind, state, why"
        totals = [Total._make(found) for found in self._all(query)]
        figures = [value for total in totals for value in total[3:]]
        if not all(isinstance(value, int | float) and isfinite(value) for value in figures):
            raise self._damaged("a total is no number")
        if not all(isinstance(value, str) for total in totals for value in total[:3]):
            raise self._damaged("a total has no name")
        return totals

    def failures(self, most: int = -1) -> list[tuple[str, str]]:
        """What is not in the archive as it is in its source: path and error of entries, then of whole sources.

        Args:
            most: how many entries at most.
        """
        entries = self._all("SELECT path, error FROM files WHERE error != '' ORDER BY path LIMIT ?", most)
        return [*entries, *((source.name, source.error) for source in self.sources() if source.error)]

    def count_failures(self) -> int:
        """How many :meth:`failures` there are."""
        counts = (f"SELECT count(*) FROM {table} WHERE error != ''" for table in ("files", "sources"))
        return sum(self._all(query)[0][0] for query in counts)

    def sources(self) -> list[SourceRow]:
        """The sources of the archive."""
        query = f"SELECT {', '.join(SourceRow._fields)} FROM sources ORDER BY name"
        rows = [SourceRow._make(map(str, found)) for found in self._all(query)]
        for row in rows:
            if not _is_list_of_texts(row.exclude):
                raise self._damaged(f"what was left out of {row.name!r} is {row.exclude!r}")
        return rows

    def put_source(self, source: SourceRow) -> None:
        """Insert or replace a source."""
        with self._transaction():
            self._database.execute(
                f"INSERT OR REPLACE INTO sources VALUES ({', '.join(['CAST(? AS TEXT)'] * len(source))})",
                tuple(map(to_bytes, source)),
            )

    def check(self) -> None:
        """Have SQLite look at the whole file.

        Raises:
            ArchiveError: it is damaged.
        """
        found = self._all("PRAGMA quick_check(1)")[0][0]
        if found != "ok":
            raise self._damaged(found)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, write: bool) -> None:
        if write:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
        version, application = (
            self._all(f"PRAGMA {name}")[0][0] for name in ("user_version", "application_id")
        )
        if version == 0 and write and not self._all("SELECT 1 FROM sqlite_master"):
            pragmas = f"PRAGMA user_version = {VERSION}; PRAGMA application_id = {APPLICATION};"
            self._database.executescript(f"BEGIN; {TABLES} {TRIGGERS} {pragmas} COMMIT;")
        elif version < 1 or application != APPLICATION:
            raise ArchiveError(f"{self.path}: is no manifest of an archive; choose another folder")
        elif version != VERSION:
            remedy = "upgrade lof" if version > VERSION else "make the archive again"
            raise ArchiveError(
                f"{self.path}: written by {'a newer' if version > VERSION else 'an unreleased older'} lof "
                f"(version {version}, this one knows {VERSION}); {remedy}"
            )
        else:
            self._refuse_other_tables()

    def _refuse_other_tables(self) -> None:
        """A view, or a trigger of a stranger, could compute without end."""
        with closing(sqlite3.connect(":memory:")) as empty:
            empty.executescript(TABLES + TRIGGERS)
            expected = _made_of(empty)
        with self._errors_mapped():
            if _made_of(self._database) != expected:
                raise self._damaged("its tables are not those that lof makes")

    def _row(self, found: tuple[Any, ...]) -> Row:
        """A row as lof writes them: SQLite keeps any type in any column, and a stranger any path."""
        row = Row(*found)
        for (name, types), value in zip(TYPES.items(), found, strict=True):
            if not isinstance(value, types):
                raise self._damaged(f"{name} of {row.path!r} is {value!r}")
        for name, words in _WORDS:
            if getattr(row, name) not in words:
                raise self._damaged(f"{name} of {row.path!r} is {getattr(row, name)!r}")
        if row.object_size < 0 or (row.state == "failed" and row.object):
            raise self._damaged(f"object of {row.path!r} cannot be")
        if row.state != "failed" and not is_safe(row.path):
            raise self._leads_out(row.path)
        self._object(row.object)
        return row

    def _object(self, name: str) -> str:
        """The name of an object, or of none, as lof gives them."""
        if name and not (is_safe(name) and name.split("/", maxsplit=1)[0] in (STREAMS, STORED)):
            raise self._leads_out(name)
        return name

    def _leads_out(self, name: str) -> ArchiveError:
        return ArchiveError(
            f"{self.path}: its entry {name!r} leads out of the tree, so lof did not write it; "
            "trust no part of this archive"
        )

    def _forget(self, path: str) -> None:
        self._database.execute("DELETE FROM pending WHERE path = CAST(? AS TEXT)", (to_bytes(path),))

    def _pages(self, columns: str, where: str, *values: object) -> Iterator[Any]:
        """Columns of rows, of which the path is the first."""
        last = b""
        query = f"SELECT {columns} FROM files WHERE path > CAST(? AS TEXT) AND ({where}) ORDER BY path LIMIT {_PAGE}"
        while True:
            page = self._all(query, last, *values)
            yield from page
            if len(page) < _PAGE:
                return
            if not isinstance(page[-1][0], str):
                raise self._damaged("a path is no text")
            last = to_bytes(page[-1][0])

    def _all(self, query: str, *values: object) -> list[Any]:
        with self._errors_mapped():
            return self._database.execute(query, values).fetchall()

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
            raise manifest_error(error, self.path, self._damaged(error)) from error
        except (UnicodeDecodeError, MemoryError) as error:  # of sqlite3, about damaged files
            raise self._damaged(type(error).__name__) from error

    def _damaged(self, what: object) -> DamagedManifest:
        return DamagedManifest(
            f"{self.path}: damaged ({' '.join(str(what).split())}); copy it back from a backup, or make a new one "
            "of the files beside it with `lof archive rebuild`"
        )


def _made_of(database: sqlite3.Connection) -> set[tuple[str, str, str]]:
    """Kind and name of all that is in a database, with the text of triggers, which decides what they do."""
    found = database.execute(
        "SELECT type, name, ifnull(sql, '') FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
    )
    return {
        (kind, name, " ".join(sql.split()) if kind == "trigger" or "VIRTUAL" in sql.upper() else "")
        for kind, name, sql in found
    }


def _is_list_of_texts(text: str) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, list) and all(isinstance(item, str) for item in found)


def _to_read(path: Path) -> sqlite3.Connection:
    # A reader of a WAL database wants to write its index beside it. Where it cannot (a full disk, a folder of others)
    # and no journal is left, or the empty one of such an attempt, the file can be read as it is.
    place = "file:" + "".join(f"%{byte:02x}" for byte in to_bytes(str(path.absolute())))
    database = sqlite3.connect(f"{place}?mode=ro", uri=True, isolation_level=None)
    try:
        database.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        database.close()
        journal = path.with_name(f"{NAME}-wal")
        if journal.exists() and journal.stat().st_size:
            raise
        database = sqlite3.connect(f"{place}?mode=ro&immutable=1", uri=True, isolation_level=None)
    except BaseException:
        database.close()
        raise
    return database
