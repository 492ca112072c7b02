"""Files that are written whole before they get their names: content of any length, hashed on the way."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lof.errors import OutputError


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


def stage(chunks: Iterable[bytes], folder: Path) -> Staged:
    """Write a temporary file into ``folder``, which is on the file system where the file will be placed.

    What ``chunks`` raises passes; no file stays then.

    Raises:
        OutputError: it cannot be written.
    """
    digest, size, path = hashlib.sha256(), 0, None
    try:
        try:
            handle, path = tempfile.mkstemp(dir=folder, suffix=".tmp")
        except OSError as error:
            raise cannot_write(folder, error) from error
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                _write(file.fileno(), chunk, folder)
            _finish(file.fileno(), folder)
        staged = Staged(Path(path), size, digest.hexdigest())
        path = None
        return staged
    finally:
        if path is not None:
            os.unlink(path)


def make_folders(folder: Path) -> None:
    """Create a folder and those above it, each on disk before what is in it."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error for a path that cannot be written."""
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error}); "
        "see to that and run the same command again, what is done is kept"
    )


def _write(handle: int, data: bytes, folder: Path) -> None:
    # Apart from the reading, whose errors are others.
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
    except OSError as error:
        raise cannot_write(folder, error) from error


def _finish(handle: int, folder: Path) -> None:
    try:
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(handle, 0o666 & ~mask)  # temporary files are private, this one will not stay one
        os.fsync(handle)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
