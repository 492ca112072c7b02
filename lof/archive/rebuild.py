"""``lof archive rebuild``: a new manifest of what lies in the archive, where the old one is lost or damaged."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lof.archive import objects
from lof.archive.events import OnEvent, Outcome, Settled, listener
from lof.archive.manifest import NAME, STORED, STREAMS, DamagedManifest, Manifest, SourceRow
from lof.archive.names import is_safe
from lof.archive.schema import Row
from lof.archive.store import locked
from lof.archive.weights import kept_for
from lof.archive.work import format_named, pixels_sha256_of, symbols_sha256_of
from lof.containers import Stream, container, unpack
from lof.errors import ArchiveError, LofError, one_line
from lof.files.atomic import cannot_write, make_folders
from lof.pools import Pool, Work

WHY = "rebuilt"
"""Stands in :attr:`Row.why` of a row that was made of its object alone."""
_log = logging.getLogger(__name__)


@dataclass
class Rebuilt(Outcome):
    """What a call came to.

    Attributes:
        streams, stored: rows of the new manifest.
        aside: where the damaged manifest was moved; empty where there was none.
    """

    streams: int = 0
    stored: int = 0
    aside: str = ""


def rebuild(
    dst: Path, pool: Pool, *, weights: Path | None = None, on_event: OnEvent = lambda event: None
) -> Rebuilt:
    """Decode every stream, read every stored file, and write a manifest that names them all.

    Only the objects tell what was archived. So empty folders, links, times, permission bits and what the manifest said
    about quality are lost. The damaged manifest is kept. Killed at any moment, the same call continues.

    Raises:
        ArchiveError: the manifest is whole or of another version, or nothing of an archive is there. One
            that an earlier call made without all objects, as weights were missing, is made again.
        OutputError: the folder cannot be written, or another process is at work in it.
        WorkerError: workers cannot start.
    """
    started = time.perf_counter()
    if not any((dst / area).is_dir() for area in (STREAMS, STORED)):
        raise ArchiveError(f"{dst}: holds nothing of an archive; check the name")
    with locked(dst) as private:
        _refuse_whole(dst)
        place = private / "rebuild"
        try:
            if place.exists() and not _is_current(dst, place):
                shutil.rmtree(place)
            make_folders(place)
            with Manifest(place, write=True) as manifest:
                job = _Rebuild(dst, manifest, weights, on_event)
                pool.run(job.items(), _Describe(), listener(on_event, job.keep))
                job.put_sources()
            job.outcome.aside = _swap(dst, place)
        except OSError as error:
            raise cannot_write(dst, error) from error
    job.outcome.seconds = time.perf_counter() - started
    return job.outcome


@dataclass(frozen=True)
class _Item:
    """A stream. ``weights`` is the folder with those of its codec, where they are not those that lof ships."""

    path: str
    stream: Stream
    weights: Path | None


class _Describe(Work[_Item, None, dict[str, Any]]):
    """Decode a stream: the columns of its row, or what is wrong as ``error``."""

    def open(self) -> None:
        """Nothing: each stream names its codec, and codecs stay loaded."""

    def do(self, tool: None, item: _Item, report: Callable[[Any], None]) -> dict[str, Any]:
        """Decode; what is wrong with the stream becomes the outcome."""
        from lof.api import decode_stream
        from lof.encoding import codec_of

        stream = item.stream
        try:
            codec = codec_of(stream, name=item.path, weights=item.weights)
            picture, symbols = decode_stream(stream, name=item.path, weights=item.weights)
        except (LofError, MemoryError) as error:
            return {
                "error": str(error).removeprefix(f"{item.path}: ") or "not enough memory; use fewer --jobs"
            }
        except Exception as error:  # whatever a library raises ends no other stream
            _log.debug("unexpected failure", exc_info=True)
            return {"error": f"cannot be decoded ({one_line(error)}); report this"}
        return {
            "container": stream.container,
            "suffix": container(stream.container).suffix,
            "codec": stream.codec,
            "quality_64": round(64 * stream.quality),
            "metric": stream.metric,
            "fingerprint": codec.fingerprint.hex(),
            "lmbda": float(codec.lmbda),
            "height": stream.height,
            "width": stream.width,
            "pixels_sha256": pixels_sha256_of(picture.pixels),
            "symbols_sha256": symbols_sha256_of(symbols),
        }

    def lost(self, item: _Item, reason: str) -> dict[str, Any]:
        """A stream that kills its workers."""
        return {"error": reason}

    def label(self, item: _Item) -> str:
        """``rebuild`` and the name of the image."""
        return f"rebuild {item.path}"


class _Rebuild:
    def __init__(self, dst: Path, manifest: Manifest, weights: Path | None, on_event: OnEvent) -> None:
        self.dst, self.manifest, self.weights, self.on_event = dst, manifest, weights, on_event
        self.outcome = Rebuilt()
        self.flying: dict[str, Row] = {}

    def items(self) -> Iterator[_Item]:
        """The streams; stored files are put down on the way."""
        for place in objects.names_in(self.dst):
            if self.manifest.by_object(place) is None:
                yield from self._look_at(place)
            else:
                self._count(place.split("/")[0])

    def keep(self, item: _Item, columns: dict[str, Any]) -> None:
        """Put down what workers read; called by the pool."""
        row = self.flying.pop(item.path)
        if "error" in columns:
            self._wrong(row.object, columns["error"])
            return
        bpp = 8 * row.object_size / (columns["height"] * columns["width"])
        self._put(replace(row, state="streamed", format=format_named(row.path), bpp=bpp, **columns))

    def put_sources(self) -> None:
        """The sources whose files are there; where they were, nobody knows."""
        names = {row.path.split("/")[0] for row in self.manifest.rows()}
        for name in sorted(names):
            self.manifest.put_source(SourceRow(name, "", "folder", "[]", ""))

    def _look_at(self, place: str) -> Iterator[_Item]:
        area, _, path = place.partition("/")
        try:
            with objects.opened(self.dst, place) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise ArchiveError("is no regular file")
                if area == STREAMS and status.st_size > objects.LARGEST:
                    raise ArchiveError("is larger than any stream")
                data = file.read() if area == STREAMS else b""
                digest = hashlib.sha256(data) if data else hashlib.file_digest(file, "sha256")
            item = None
            if area == STREAMS:
                stream = unpack(data, place)
                path = path.removesuffix(container(stream.container).suffix)
                kept = kept_for(
                    self.dst, stream.codec, stream.metric, stream.quality, stream.fingerprint.hex()
                )
                item = _Item(path, stream, self.weights or kept)
            if not is_safe(path):
                raise ArchiveError("has a name that lof does not write")
            if self.manifest.get(path) is not None or path in self.flying:
                raise ArchiveError(f"another file is {path} already")
        except (OSError, LofError) as error:
            self._wrong(place, getattr(error, "strerror", None) or str(error).removeprefix(f"{place}: "))
            return
        row = Row(
            path,
            "file",
            "folder",
            "stored",
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            mode=0o644,
            sha256=digest.hexdigest(),
            why=WHY,
            object=place,
            object_size=status.st_size,
            object_sha256=digest.hexdigest(),
        )
        if item is None:
            self._put(row)
        else:  # of its source nothing is known
            self.flying[path] = replace(row, size=0, sha256="")
            yield item

    def _put(self, row: Row) -> None:
        self.manifest.put(row)
        self._count(STREAMS if row.state == "streamed" else STORED)
        self.on_event(Settled(row))

    def _count(self, area: str) -> None:
        self.outcome.streams += area == STREAMS
        self.outcome.stored += area == STORED

    def _wrong(self, place: str, error: str) -> None:
        """It gets no row, so that ``verify`` goes on naming it."""
        self.outcome.errors.append((place, error))
        self.on_event(Settled(Row(place, "file", "folder", "failed", error=error)))


def _refuse_whole(dst: Path) -> None:
    path = dst / NAME
    if not path.exists() or not path.stat().st_size:
        return
    with contextlib.suppress(DamagedManifest), Manifest(dst) as manifest:
        manifest.check()
        rows = {row.object for row in manifest.rows() if row.why == WHY}
        made_here = len(rows) == sum(1 for _ in manifest.rows())
        if made_here and not rows.issuperset(objects.names_in(dst)):  # something could not be read then
            return
        raise ArchiveError(f"{path}: is whole; nothing is to be rebuilt")


def _is_current(dst: Path, place: Path) -> bool:
    """Whether all that a killed call has put down is still as it was."""

    def same(row: Row) -> bool:
        status = (dst / row.object).lstat()
        return (status.st_size, status.st_mtime_ns) == (row.object_size, row.mtime_ns)

    try:
        with Manifest(place) as manifest:
            return all(map(same, manifest.rows()))
    except (ArchiveError, FileNotFoundError):
        return False


def _swap(dst: Path, place: Path) -> str:
    """Put the new manifest where the old one was, which is kept with what SQLite left beside it."""
    aside = ""
    (dst / f"{NAME}-shm").unlink(missing_ok=True)
    for suffix in ("-wal", ""):  # a manifest without its journal would be another one
        old = dst / f"{NAME}{suffix}"
        if old.exists() and (old.stat().st_size or not suffix):
            aside = f"{place.parent.name}/damaged-{time.strftime('%Y%m%d-%H%M%S')}"
            make_folders(dst / aside)
            os.replace(old, dst / aside / old.name)
    os.replace(place / NAME, dst / NAME)
    for leftover in place.iterdir():
        leftover.unlink()
    place.rmdir()
    return aside
