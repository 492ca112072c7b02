"""One lof at a time in a folder: a lock on a file that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from lof.errors import OutputError


def lock(folder: Path, path: Path, *, shared: bool = False) -> int:
    """Lock ``path`` until the handle that is returned is closed.

    Args:
        folder: what the lock is for, as errors name it.
        shared: let others in that share the lock too; the file has to be there.

    Raises:
        OutputError: another process is at work in the folder.
        OSError: the file cannot be opened or locked.
    """
    handle = os.open(path, os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if not os.fstat(handle).st_nlink:
            raise BlockingIOError("whoever was at work has just taken the file away")
    except BlockingIOError as error:
        os.close(handle)
        raise OutputError(
            f"{folder}: another lof is at work there; wait for it and run this again"
        ) from error
    except OSError:
        os.close(handle)
        raise
    return handle
