"""A folder as a source: walked in the order of the manifest, links never followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

from lof.archive.entries import Container, Entry, Refused
from lof.archive.names import to_bytes
from lof.errors import ArchiveError


class FolderSource:
    """Everything below a folder, hidden files too.

    Args:
        path: a real path, without links.
        name: first part of all paths.
        exclude: real path of a folder to leave out, for an archive inside its source.
    """

    container: Container = "folder"

    def __init__(self, path: Path, name: str, exclude: str | None = None) -> None:
        self.path, self.name, self.exclude = path, name, exclude

    def entries(self) -> Iterator[Entry | Refused]:
        """Depth first, sorted by the bytes of the paths."""
        yield _entry(str(self.path), self.name, os.stat(self.path))
        yield from self._below(str(self.path), self.name)

    def _below(self, folder: str, path: str) -> Iterator[Entry | Refused]:
        try:
            # By its handle, the files of a folder are looked up without walking their paths again.
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            yield Refused(path, "folder", _unreadable(folder, error))
            return
        try:
            yield from self._in(handle, folder, path)
        finally:
            os.close(handle)

    def _in(self, handle: int, folder: str, path: str) -> Iterator[Entry | Refused]:
        with os.scandir(handle) as found:
            listed = list(found)
        # A folder's own row sorts by its name, what is in it by its name and a slash: two steps.
        steps = [(item.name, item) for item in listed if f"{folder}/{item.name}" != self.exclude]
        steps += [(f"{name}/", item) for name, item in steps if item.is_dir(follow_symlinks=False)]
        plain = all(name.isascii() for name, _ in steps)  # sorts like its bytes, and faster
        steps.sort(key=_first if plain else _first_as_bytes)
        for name, item in steps:
            place, below = f"{folder}/{item.name}", f"{path}/{item.name}"
            if name.endswith("/"):
                yield from self._below(place, below)
                continue
            try:
                status = item.stat(follow_symlinks=False)
            except OSError as error:
                yield Refused(below, "folder", _unreadable(place, error))
                continue
            yield _entry(place, below, status)


_first = itemgetter(0)


def _first_as_bytes(step: tuple[str, os.DirEntry[str]]) -> bytes:
    return to_bytes(step[0])


def _entry(place: str, path: str, status: os.stat_result) -> Entry | Refused:
    mode, bits, time = status.st_mode, stat.S_IMODE(status.st_mode), status.st_mtime_ns
    if stat.S_ISREG(mode):
        return Entry(
            path,
            "file",
            "folder",
            status.st_size,
            time,
            bits,
            "",
            partial(_open, place, status.st_size, time),
        )
    if stat.S_ISDIR(mode):
        return Entry(path, "folder", "folder", 0, time, bits)
    if stat.S_ISLNK(mode):
        try:
            return Entry(path, "link", "folder", 0, time, bits, os.readlink(place))
        except OSError as error:
            return Refused(path, "folder", _unreadable(place, error))
    return Refused(path, "folder", f"{place}: is a device, pipe or socket, which has no content to archive")


@contextmanager
def _open(place: str, size: int, mtime_ns: int) -> Iterator[BinaryIO]:
    """The file that was seen in the walk; an error if it is another one, or becomes another one meanwhile."""
    try:
        # Neither follows what has become a link nor waits for what has become a pipe.
        handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            yield file  # type: ignore[misc]  # raw files read like any other here
            after = os.fstat(file.fileno())
    except OSError as error:
        raise ArchiveError(_unreadable(place, error)) from error
    seen = (size, mtime_ns)
    if (
        any((s.st_size, s.st_mtime_ns) != seen for s in (before, after))
        or before.st_ctime_ns != after.st_ctime_ns
    ):
        raise ArchiveError(f"{place}: changed while it was read; run the same command again")


def _unreadable(place: str, error: OSError) -> str:
    return f"{place}: cannot be read ({error.strerror or error}); check its permissions and run the command again"
