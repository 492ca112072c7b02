"""The one way in which lof writes a file, here or in a store: whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, takewhile
from pathlib import Path

from lof.errors import OutputError
from lof.files.storage import Location, beginning, is_remote, names_in, remove, write

HAS_ROOM = "name a folder that has room with TMPDIR"
_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.tmp", re.DOTALL)


def write_atomically(path: Location, data: bytes) -> None:
    """Write ``data`` to ``path`` so that no reader, crash or power cut ever sees a part of it.

    A temporary file in the same folder is written, synced and renamed over ``path``; the folder is synced
    after it. Parent folders are created. Whatever fails, no temporary file stays. In a store that is a URL's,
    one upload does the same where objects appear whole; elsewhere the file is moved into place.

    Raises:
        OutputError: the folder cannot be created or written (read-only, full, a file in its place).
    """
    try:
        if is_remote(path):
            write(path, data)
            return
        assert isinstance(path, Path)
        make_folders(path.parent)
        staged = stage([data], path.parent, path)
        try:
            staged.place(path)
        finally:
            staged.discard()
    except OSError as error:
        raise cannot_write(path, error) from error


@dataclass(frozen=True)
class Staged:
    """A file that is whole and on disk, under a temporary name."""

    path: Path
    size: int
    sha256: str

    def place(self, target: Path) -> None:
        """Give the file its name, replacing what has it; whoever looks sees the old file or the new one.

        Raises:
            OSError: the folder cannot be written, or cannot have a file of that name.
        """
        make_folders(target.parent)
        os.replace(self.path, target)
        _sync(target.parent)

    def discard(self) -> None:
        """Remove the file, if it has not been placed."""
        self.path.unlink(missing_ok=True)


def stage(chunks: Iterable[bytes], folder: Path, target: Path | None = None) -> Staged:
    """Write content of any length to a temporary file, hashed on the way.

    What ``chunks`` raises passes; no file stays then.

    Args:
        folder: on the file system where the file will be placed.
        target: what the file will be called, for its temporary name and for errors.

    Raises:
        OutputError: it cannot be written.
    """
    digest, size = hashlib.sha256(), 0
    name = "" if target is None else f".{beginning(target.name)}."
    try:
        handle, path = tempfile.mkstemp(dir=folder, prefix=name, suffix=".tmp")
    except OSError as error:
        raise cannot_write(target or folder, error) from error
    staged = None
    try:
        with os.fdopen(handle, "wb"):
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                with _writing(target or folder):  # apart from the reading, whose errors are others
                    view = memoryview(chunk)
                    while view:
                        view = view[os.write(handle, view) :]
            with _writing(target or folder):
                mask = os.umask(0)
                os.umask(mask)
                os.fchmod(handle, 0o666 & ~mask)  # temporary files are private, this one will not stay one
                os.fsync(handle)
        staged = Staged(Path(path), size, digest.hexdigest())
        return staged
    finally:
        if staged is None:
            os.unlink(path)


def remove_leftovers(paths: Iterable[Location]) -> None:
    """Remove what writes of ``paths`` that were killed left beside them. Nobody may be writing them now."""
    names: defaultdict[Location, set[str]] = defaultdict(set)
    for path in paths:
        names[path.parent].add(beginning(path.name))
    for folder, wanted in names.items():
        for name in names_in(folder):
            match = _TEMPORARY.fullmatch(name)
            if match and match[1] in wanted:
                with contextlib.suppress(OSError):
                    remove(folder / name)


def make_folders(folder: Path) -> None:
    """Create a folder and those above it, each on disk before what is in it."""
    missing = list(takewhile(lambda path: not path.is_dir(), chain((folder,), folder.parents)))
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        _sync(path.parent)


def cannot_write(path: Location, error: OSError) -> OutputError:
    """The error for a path that cannot be written."""
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error}); "
        "see to that and run the same command again, what is done is kept"
    )


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """An empty folder, which goes when it is left.

    Raises:
        OutputError: none can be made.
    """
    try:
        return tempfile.TemporaryDirectory(prefix="lof-")
    except OSError as error:
        raise OutputError(f"{error.strerror or error}; {HAS_ROOM}") from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def _sync(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # some systems do not open folders; the rename itself has happened
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # or sync them
            raise
    finally:
        os.close(handle)
