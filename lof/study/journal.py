"""Optuna's journal file, safe against processes that are killed while they write."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lof.errors import StudyError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def open_journal(path: Path) -> BaseStorage:
    """The journal in ``path``, made if it is not there; a line that a crash tore is dropped.

    Raises:
        StudyError: the file cannot be read or written, or is no journal.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    lock = KernelLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        try:
            _repair(path)
        finally:
            lock.release()
        backend = JournalFileBackend(str(path), lock_obj=lock)  # type: ignore[arg-type]  # its base is private
        return JournalStorage(backend)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StudyError(f"{path}: cannot be used as a journal ({reason}); name another --storage") from error


class KernelLock:
    """A lock that the system releases when its process dies; Optuna's own wait 30 seconds for the dead."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".lock")
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Wait until this process has it."""
        handle = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o666)
        fcntl.flock(handle, fcntl.LOCK_EX)
        self._handle = handle
        return True

    def release(self) -> None:
        """Give it back."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)


def _repair(path: Path) -> None:
    content = path.read_bytes() if path.exists() else b""
    if not content:
        return
    if not _is_record(content.partition(b"\n")[0]):
        raise StudyError(f"{path}: is no journal of Optuna's; name another --storage")
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        os.truncate(path, whole)


def _is_record(line: bytes) -> bool:
    try:
        record: Any = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and "op_code" in record
