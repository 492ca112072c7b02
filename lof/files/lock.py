"""One lof at a time in a folder: a lock on a file that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from lof.errors import OutputError


def lock(folder: Path, path: Path, *, shared: bool = False) -> int:
    """Lock ``path`` until the handle that is returned is closed.

    Args:
        folder: what the lock is for, as errors name it.
        shared: let others in that share the lock too; the file has to be there.

    Raises:
        OutputError: another process is at work in the folder, or something else than a file has the lock's name.
        OSError: the file cannot be opened or locked.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe would be waited for, in a stranger's folder
    handle = os.open(path, flags | (os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT), 0o644)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OutputError(f"{path}: is no file, so lof did not make it; remove it")
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if not os.fstat(handle).st_nlink:
            raise BlockingIOError("whoever was at work has just taken the file away")
    except BaseException as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise OutputError(
                f"{folder}: another lof is at work there; wait for it and run this again"
            ) from error
        raise
    return handle
