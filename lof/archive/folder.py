"""A folder as a source: walked in the order of the manifest, links never followed."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from lof.archive.entries import Container, Entry, Refused
from lof.archive.walk import Seen, walk
from lof.errors import ArchiveError

_WALK = str(Path(__file__).with_name("walk.py"))


class FolderSource:
    """Everything below a folder, hidden files too.

    Args:
        path: a real path, without links.
        name: first part of all paths.
        exclude: real path of a folder to leave out, for an archive inside its source.
    """

    container: Container = "folder"

    def __init__(self, path: Path, name: str, exclude: str = "") -> None:
        self.path, self.name, self.exclude = path, name, exclude

    def entries(self) -> Iterator[Entry | Refused]:
        """Depth first, sorted by the bytes of the paths."""
        yield from map(self.entry, chain([self._top], walk(str(self.path), self.name, self.exclude)))

    def seen(self) -> Iterator[Seen]:
        """What :meth:`entries` are made of, seen a little ahead by a process of its own: twice as fast.

        Raises:
            ArchiveError: that process could not be started, or was killed.
        """
        yield self._top
        try:
            with self._walking() as process:
                assert process.stdout is not None
                while page := pickle.load(process.stdout):
                    yield from page
        except (EOFError, pickle.UnpicklingError, OSError) as error:
            raise ArchiveError(
                f"{self.path}: cannot be walked to its end; run the same command again"
            ) from error

    def entry(self, seen: Seen) -> Entry | Refused:
        """What was seen, as it is now."""
        path, *_, error = seen
        place = f"{self.path}{path.removeprefix(self.name)}"
        if error:
            return Refused(path, "folder", _unreadable(place, error))
        try:
            return _entry(place, path, os.lstat(place))
        except OSError as problem:
            return Refused(path, "folder", _unreadable(place, problem.strerror))

    @property
    def _top(self) -> Seen:
        return self.name, 0, 0, 0, ""

    def _walking(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", _WALK, str(self.path), self.name, self.exclude],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process
        )


def _entry(place: str, path: str, status: os.stat_result) -> Entry | Refused:
    mode, bits, time = status.st_mode, stat.S_IMODE(status.st_mode), status.st_mtime_ns
    if stat.S_ISREG(mode):
        content = partial(_open, place, status.st_size, time)
        return Entry(path, "file", "folder", status.st_size, time, bits, "", content)
    if stat.S_ISDIR(mode):
        return Entry(path, "folder", "folder", 0, time, bits)
    if stat.S_ISLNK(mode):
        return Entry(path, "link", "folder", 0, time, bits, os.readlink(place))
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
        raise ArchiveError(_unreadable(place, error.strerror)) from error
    seen = (size, mtime_ns)
    if (
        any((s.st_size, s.st_mtime_ns) != seen for s in (before, after))
        or before.st_ctime_ns != after.st_ctime_ns
    ):
        raise ArchiveError(f"{place}: changed while it was read; run the same command again")


def _unreadable(place: str, error: str | None) -> str:
    return f"{place}: cannot be read ({error or 'no reason given'}); check its permissions and run the command again"
