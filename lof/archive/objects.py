"""Objects as they are read: what the manifest says, or an error. An archive may come from a stranger."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Literal

from lof.archive.entries import chunks
from lof.archive.manifest import STORED, STREAMS
from lof.archive.schema import Row
from lof.archive.walk import walk
from lof.errors import ArchiveError, OutputError

LARGEST = 256 << 20
"""Bytes of the largest file that workers get: larger sources are stored as they are, no stream is as large."""


class ObjectError(ArchiveError):
    """An object is not what the manifest says; ``wrong`` is one word for that."""

    def __init__(self, wrong: Literal["damaged", "missing"], message: str) -> None:
        super().__init__(message)
        self.wrong: Literal["damaged", "missing"] = wrong


def content(folder: Path, row: Row) -> Iterator[bytes]:
    """The object of a row, a mebibyte at a time.

    Neither it nor a folder on the way may be a link, and no more is read than the manifest says.

    Raises:
        ObjectError: it is missing, cannot be read or is not as it was written; at the latest after its last byte.
    """
    digest = hashlib.sha256()
    try:
        with opened(folder, row.object) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size != row.object_size:
                raise _changed(row)
            for chunk in chunks(file):
                digest.update(chunk)
                yield chunk
    except (OSError, ValueError) as error:
        wrong: Literal["damaged", "missing"] = (
            "missing" if isinstance(error, FileNotFoundError | NotADirectoryError) else "damaged"
        )
        reason = getattr(error, "strerror", None) or error
        raise ObjectError(wrong, f"{row.object} cannot be read ({reason})") from error
    if digest.hexdigest() != row.object_sha256:
        raise _changed(row)


def stream(folder: Path, row: Row) -> bytes:
    """The object of a streamed row. Errors as of :func:`content`."""
    if row.object_size > LARGEST:
        raise ObjectError("damaged", f"{row.object} is larger than any stream")
    return b"".join(content(folder, row))


def is_whole(folder: Path, row: Row) -> bool:
    """Whether the object is there as the manifest says."""
    try:
        return all(map(lambda _: True, content(folder, row)))
    except ObjectError:
        return False


def names_in(folder: Path) -> Iterator[str]:
    """The names of all files that lie where objects belong, with whatever else is no folder."""
    for area in (STREAMS, STORED):
        for name, mode, *_ in walk(str(folder / area), area, lambda path: False):
            if mode and not stat.S_ISDIR(mode):  # without a mode is what cannot be read, or is not there
                yield name


@contextmanager
def opened(folder: Path, name: str) -> Iterator[BufferedReader]:
    """The object of that name, whatever it holds.

    Raises:
        OSError: it is missing or cannot be read, or it or a folder on the way is a link.
    """
    with _above(folder, name) as (above, last):
        # Neither waits for what is a pipe.
        handle = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=above)
    with os.fdopen(handle, "rb") as file:
        yield file


def refuse_links(*places: Path) -> None:
    """What is written or emptied has to lie in the archive; a stranger's may have links to anywhere.

    Raises:
        OutputError: one of the places is a link.
    """
    for place in places:
        if place.is_symlink():
            raise OutputError(f"{place}: is a link; put the folder itself in its place")


def remove(folder: Path, name: str) -> None:
    """Remove the object of that name, if it is there.

    Raises:
        OSError: it cannot be removed, or a folder on the way is a link.
    """
    with contextlib.suppress(FileNotFoundError), _above(folder, name) as (above, last):
        os.unlink(last, dir_fd=above)


@contextmanager
def _above(folder: Path, name: str) -> Iterator[tuple[int, str]]:
    """A handle of the folder that an object lies in, found without following links, and its name there."""
    *folders, last = name.split("/")
    above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in folders:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
            os.close(above)
            above = below
        yield above, last
    finally:
        os.close(above)


def _changed(row: Row) -> ObjectError:
    return ObjectError("damaged", f"{row.object} is not as it was written")
