"""A folder as a source: walked in the order of the manifest, links never followed."""

from __future__ import annotations

import glob
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from lof.archive.entries import Entry, Origin
from lof.archive.walk import Seen
from lof.errors import ArchiveError

_WALK = str(Path(__file__).with_name("walk.py"))


class FolderSource:
    """Everything below a folder, hidden files too, but for lof's own folders ``.lof``.

    Args:
        path: a real path, without links.
        name: first part of all paths.
        exclude: globs of what to leave out, see :func:`lof.archive.walk.matcher`.
        inside: path below the folder of an archive in it, which is left out too.
    """

    origin: Origin = "folder"

    def __init__(self, path: Path, name: str, exclude: tuple[str, ...] = (), inside: str = "") -> None:
        self.path, self.name, self.exclude = path, name, exclude
        self._left_out = (*exclude, f"/{glob.escape(inside)}") if inside else exclude

    def entries(self) -> Iterator[Entry]:
        """Depth first, sorted by the bytes of the paths; errors as of :meth:`seen`."""
        return map(self.entry, self.seen())

    def seen(self) -> Iterator[Seen]:
        """What :meth:`entries` are made of, seen a little ahead by a process of its own: twice as fast.

        Raises:
            ArchiveError: that process could not be started, or was killed.
        """
        yield self.name, 0, 0, 0, ""
        try:
            with self._walking() as process:
                assert process.stdout is not None
                while page := pickle.load(process.stdout):
                    yield from page
        except (EOFError, pickle.UnpicklingError, OSError) as error:
            raise ArchiveError(
                f"{self.path}: cannot be walked to its end; run the same command again"
            ) from error

    def entry(self, seen: Seen) -> Entry:
        """What was seen, as it is now."""
        path, *_, error = seen
        place = f"{self.path}{path.removeprefix(self.name)}"
        try:
            entry = _entry(place, path, os.lstat(place))
        except OSError as problem:
            return Entry(path, "file", "folder", error=_unreadable(place, problem.strerror))
        return entry._replace(error=_unreadable(place, error)) if error else entry

    def _walking(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", _WALK, str(self.path), self.name, *self._left_out],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process
        )


def _entry(place: str, path: str, status: os.stat_result) -> Entry:
    mode, bits, time = status.st_mode, stat.S_IMODE(status.st_mode), status.st_mtime_ns
    if stat.S_ISREG(mode):
        content = partial(_open, place, status.st_size, time)
        return Entry(path, "file", "folder", status.st_size, time, bits, "", content)
    if stat.S_ISDIR(mode):
        return Entry(path, "folder", "folder", 0, time, bits)
    if stat.S_ISLNK(mode):
        return Entry(path, "link", "folder", 0, time, bits, os.readlink(place))
    what = "is a device, pipe or socket, which has no content to archive; remove it or leave it out with --exclude"
    return Entry(path, "file", "folder", error=f"{place}: {what}")


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
