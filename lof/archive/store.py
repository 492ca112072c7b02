"""The archive on disk, and the order of writes that lets it survive a kill at any moment.

::

    DST/manifest.sqlite      one row per entry of the sources
    DST/streams/PATH.SUFFIX  images, as streams
    DST/stored/PATH          everything else, byte for byte
    DST/weights/FINGERPRINT/ what the streams' codecs need, should lof no longer ship it
    DST/.lof/lock, tmp/      who is at work here; files that are not whole yet

An object is written in four steps, each on disk before the next:

1. its content, to a file in ``.lof/tmp``;
2. its row, to the table ``pending`` of the manifest;
3. its name, by a rename, which replaces an older object of that name at once;
4. its row, to the table ``files``; an older object of another name goes; the row is off ``pending``.

Whoever opens the archive next empties ``.lof/tmp`` and looks at what is pending: where the object is the one
of the row, step 4 is made up for; where it is not, step 3 was never taken and the older row still holds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from lof.archive.manifest import NAME, STORED, STREAMS, Manifest, no_archive
from lof.archive.names import hashed_name, object_name
from lof.archive.objects import is_whole, refuse_links, remove
from lof.archive.schema import Row
from lof.archive.walk import OWN as PRIVATE
from lof.archive.weights import WEIGHTS
from lof.errors import OutputError
from lof.files.atomic import Staged, cannot_write, make_folders, stage
from lof.files.lock import lock

_LONGEST = 4000  # bytes of a path; most systems take 4096


class Store:
    """An archive opened to be written, by one process at a time; what a dead one left is put in order.

    Args:
        create: make the archive if there is none, in a new or empty folder.

    Raises:
        OutputError: the folder cannot be written, a folder in it is a link, or another process is at work in it.
        ArchiveError: it is no archive and not empty, its manifest is damaged or of a newer version.
    """

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.folder = folder
        self._private = folder / PRIVATE
        self._temporary = self._private / "tmp"
        if not create and not (folder / NAME).is_file():
            raise no_archive(folder)
        try:
            self._prepare(create)
            self._lock = lock(folder, self._private / "lock")
            for leftover in self._temporary.iterdir():
                leftover.unlink()
        except OSError as error:
            raise cannot_write(folder, error) from error
        try:
            self.manifest = Manifest(folder, write=True)
            self._recover()
        except BaseException:
            os.close(self._lock)
            raise

    def stage(self, chunks: Iterable[bytes]) -> Staged:
        """Write content that will become an object."""
        return stage(chunks, self._temporary)

    def commit(self, row: Row, staged: Staged | None = None) -> Row:
        """Put a row, and staged content as its object, under the row's path or, where that cannot be, a hash of it.

        An older object of the row goes.

        Returns:
            The row as it is in the manifest now.

        Raises:
            OutputError: the archive cannot be written; it is as it was.
        """
        if staged is not None:
            area, suffix = (STREAMS, row.suffix or "") if row.state == "streamed" else (STORED, "")
            name = object_name(area, row.path, suffix)
            if not self._is_possible(name):
                name = hashed_name(area, row.path, suffix)
                refuse_links((self.folder / name).parent)
            row = replace(row, object=name, object_size=staged.size, object_sha256=staged.sha256)
        before = self.manifest.get(row.path)
        older = before.object if before is not None and before.object != row.object else ""
        if staged is not None or older:
            self.manifest.intend(row, older)
        if staged is not None:
            target = self.folder / row.object
            try:
                staged.place(target)
            except OSError as error:
                raise cannot_write(target, error) from error
        self._settle(row, older)
        return row

    def close(self) -> None:
        """Let other processes in."""
        self.manifest.close()
        os.close(self._lock)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, create: bool) -> None:
        if create:
            make_folders(self.folder)
            there = {name for name in os.listdir(self.folder) if name not in (PRIVATE, "lost+found")}
            if NAME not in there and there & {STREAMS, STORED}:
                raise no_archive(self.folder)
            if there and NAME not in there:
                raise OutputError(f"{self.folder}: is no archive and not empty; choose a new folder")
        refuse_links(
            self._private, self._temporary, *(self.folder / area for area in (STREAMS, STORED, WEIGHTS))
        )
        make_folders(self._temporary)

    def _recover(self) -> None:
        for row, older in self.manifest.pending():
            if not row.object or is_whole(self.folder, row):
                self._settle(row, older)
            else:
                self.manifest.give_up(row.path)

    def _settle(self, row: Row, older: str) -> None:
        # An older object of another name goes before the row is off the pending ones, or a kill would leave it.
        self.manifest.put(row, settled=not older)
        if older:
            try:
                remove(self.folder, older)
            except OSError as error:
                raise cannot_write(self.folder / older, error) from error
            self.manifest.give_up(row.path)

    def _is_possible(self, name: str) -> bool:
        """Whether no file or link stands where ``name`` needs a folder, no folder where it is a file."""
        place = self.folder
        if len(os.fsencode((place / name).absolute())) > _LONGEST:
            return False
        *folders, last = name.split("/")
        for part in folders:
            place /= part
            if os.path.lexists(place) and (place.is_symlink() or not place.is_dir()):
                return False
        return not (place / last).is_dir()


class Listing:
    """Which objects are there: quick for many of one folder, since each folder is listed once.

    An object is given its name only when it is whole, so there is no need to look at its size.
    """

    def __init__(self, folder: Path) -> None:
        self._names_in = lru_cache(maxsize=64)(partial(_names_in, folder))

    def has(self, name: str) -> bool:
        """Whether an object was there when its folder was listed."""
        folder, _, last = name.rpartition("/")
        return last in self._names_in(folder)


def _names_in(archive: Path, folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(f"{archive}/{folder}"))
    except OSError:
        return frozenset()


@contextmanager
def locked(folder: Path, name: str = PRIVATE) -> Iterator[Path]:
    """Keep other processes out of a folder, which need not be an archive; gives its private folder of that name.

    Raises:
        OutputError: the folder cannot be written, or another process is at work in it.
    """
    private = folder / name
    refuse_links(private)
    try:
        make_folders(private)
        handle = lock(folder, private / "lock")
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield private
    finally:
        os.close(handle)


@contextmanager
def reading(folder: Path) -> Iterator[Manifest]:
    """The manifest of an archive that nobody changes meanwhile; others may read too.

    Raises:
        ArchiveError: there is no archive, or its manifest is damaged or of a newer version.
        OutputError: a process is at work in it.
    """
    with Manifest(folder) as manifest:
        handle: int | None = None
        with contextlib.suppress(FileNotFoundError):
            handle = lock(folder, folder / PRIVATE / "lock", shared=True)
        try:
            yield manifest
        finally:
            if handle is not None:
                os.close(handle)
