"""The one way in which lof writes a file, here or in a store: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lof.errors import OutputError
from lof.files.storage import Location, is_remote, sha256, write

__all__ = ["sha256", "write_atomically"]


def write_atomically(path: Location, data: bytes) -> None:
    """Write ``data`` to ``path`` so that no reader, crash or power cut ever sees a part of it.

    A temporary file in the same folder is written, synced and renamed over ``path``; the folder is synced
    after it. Parent folders are created. Whatever fails, no temporary file stays. In a store that is a URL's,
    one upload does the same where objects appear whole; elsewhere the file is moved into place.

    Raises:
        OutputError: the folder cannot be created or written (read-only, full, a file in its place).
    """
    temporary: str | None = None
    try:
        if is_remote(path):
            write(path, data)
            return
        assert isinstance(path, Path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{_short(path.name)}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot be written ({reason}); choose another place") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def _short(name: str) -> str:
    # File names are limited in bytes (255 on most systems), and the temporary one is longer.
    return os.fsencode(name)[:100].decode(errors="ignore")


def _umask() -> int:
    # mkstemp makes files private; the rename should leave the permissions that open() would have given.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # some systems do not open folders; the rename itself has happened
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
