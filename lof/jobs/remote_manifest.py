"""The manifest of an output folder in a store: worked on in a copy, uploaded now and then and at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from lof.errors import OutputError
from lof.files.atomic import temporary_folder, write_atomically
from lof.files.storage import Location, is_remote, read_bytes, size_and_version
from lof.jobs.manifest import FOLDER, NAME, Manifest, Row

if TYPE_CHECKING:
    from upath import UPath

_INTERVAL = 30.0  # seconds between uploads
_SHARE = 20  # and at least so many times what an upload takes


def open_manifest(out: Location) -> Manifest:
    """The manifest of ``out``, wherever that is.

    Raises:
        OutputError: as :class:`Manifest`; or the store cannot be read or written.
    """
    return RemoteManifest(out) if is_remote(out) else Manifest(Path(out))


@contextmanager
def open_snapshot(out: Location) -> Iterator[Manifest | None]:
    """A copy to read, see :meth:`Manifest.snapshot`.

    Raises:
        OutputError: the store cannot be read, or the manifest is damaged or of a newer version.
    """
    with temporary_folder() if is_remote(out) else nullcontext(str(out)) as copy:
        if is_remote(out):
            fetch(out, Path(copy))
        with Manifest.snapshot(Path(copy)) as manifest:
            yield manifest


class RemoteManifest(Manifest):
    """What was done since the last upload is done again after a crash.

    A store has no locks. Of two jobs at once in one folder the first stops at its next upload, when it finds the
    manifest of the second in place of its own.

    Raises:
        OutputError: as :class:`Manifest`; from every method that uploads, too.
    """

    def __init__(self, out: UPath) -> None:
        self.remote = out / FOLDER / NAME
        self._copy = temporary_folder()
        self._uploaded: tuple[int, int] | None = None
        try:
            fetch(out, Path(self._copy.name))
            super().__init__(Path(self._copy.name), shown=self.remote)
            self._upload(first=True)
        except BaseException:
            self._copy.cleanup()
            raise

    def put(self, row: Row) -> None:
        """As :meth:`Manifest.put`; in the store after the next upload."""
        super().put(row)
        if time.monotonic() >= self._due:
            self._upload()

    def close(self) -> None:
        """Upload and forget the copy."""
        try:
            self._upload()
        finally:
            super().close()
            self._copy.cleanup()

    def _upload(self, *, first: bool = False) -> None:
        started = time.monotonic()
        if not first and self._version() != self._uploaded:
            out = self.remote.parent.parent
            raise OutputError(
                f"{out}: another lof began to work there; wait for it or choose another folder with -o"
            )
        write_atomically(self.remote, self._database.serialize())
        self._uploaded = self._version()
        now = time.monotonic()
        self._due = now + max(_INTERVAL, _SHARE * (now - started))

    def _version(self) -> tuple[int, int] | None:
        self.remote.fs.invalidate_cache(self.remote.parent.path)  # or it tells what it has seen itself
        return size_and_version(self.remote)


def fetch(out: UPath, folder: Path) -> None:
    """Copy the manifest of ``out`` into ``folder``, where it has one.

    Raises:
        OutputError: the store cannot be read.
    """
    try:
        content = read_bytes(out / FOLDER / NAME)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(
            f"{out}: cannot be read ({error.strerror}); check the name, the network and the credentials"
        ) from error
    write_atomically(folder / FOLDER / NAME, content)
