"""``lof archive restore``: the tree back, as images and the files that were stored as they were."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from lof.archive import objects
from lof.archive.events import Checked, OnEvent, Outcome, listener
from lof.archive.manifest import Manifest
from lof.archive.names import is_safe, stays_inside
from lof.archive.schema import Row
from lof.archive.store import locked, reading
from lof.archive.weights import kept_weights
from lof.archive.work import FORMATS, LOST, Decode, Decoded, DecodeItem
from lof.errors import ArchiveError, UsageError
from lof.files.atomic import Staged, cannot_write, make_folders, stage
from lof.files.storage import sha256
from lof.pools import Pool

Form = Literal["png", "source"]

_PRIVATE, _JOURNAL = ".lof-restore", "done"
_NOWHERE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # what goes wrong with every entry alike


@dataclass
class Restored(Outcome):
    """What a call of :func:`restore` came to. ``errors`` has what could not be written.

    Attributes:
        rounded: images in which this machine rounds single pixels otherwise than the one that archived them.
        there: files that were there already, from an earlier call.
        left_out: links that lead out of the tree.
        never_in: path and error of what :func:`lof.archive.create` could not archive as it was.
    """

    images: int = 0
    rounded: int = 0
    stored: int = 0
    there: int = 0
    left_out: list[str] = field(default_factory=list)
    never_in: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 if anything went wrong now or when the archive was made, else 0."""
        return 1 if self.errors or self.never_in else 0


def restore(
    dst: Path,
    out: Path,
    pool: Pool,
    *,
    form: Form = "png",
    overwrite: bool = False,
    all_links: bool = False,
    rename: Mapping[str, str] | None = None,
    weights: Path | None = None,
    on_event: OnEvent = lambda event: None,
) -> Restored:
    """Write the archived tree below ``out``; stopped or killed, the same call continues.

    Streams become images with their ICC profile and EXIF: PNG (``photo.jpg`` → ``photo.jpg.png``), or the
    source's own format under its own name, which for JPEG loses a little more. Stored files come back byte for
    byte. Times and permission bits are those of the source. What cannot be written is an error of its own, and the
    rest is restored.

    Args:
        overwrite: replace files that are there and differ.
        all_links: also make links that lead out of the tree.
        rename: other paths for entries, by their paths in the archive; a folder takes along what is in it.

    Raises:
        UsageError: ``out`` and the archive lie in one another, or a path of ``rename`` is not there or not free.
        ArchiveError: there is no archive, or its manifest is damaged or holds what lof never writes.
        OutputError: ``out`` cannot be written, or another process is at work there or in the archive.
    """
    started = time.perf_counter()
    if _within(out, dst) or _within(dst, out / _PRIVATE):
        raise UsageError(f"{out}: lies in the archive {dst}; choose another place")
    with reading(dst) as manifest:
        lost = {row.path for row in manifest.rows() if row.why == LOST}  # and no row is refused after this
        names = _Names(manifest, rename or {})
        with locked(out, _PRIVATE) as private, _Target(out, private, overwrite) as target:
            job = _Restore(dst, manifest, target, names, form, all_links, weights, on_event)
            job.folders()
            pool.run(job.items(), Decode(), listener(on_event, job.write_image))
            job.links()
            job.folder_times()
            target.finished = not job.result.errors
        # A search that failed left its image in the archive as it is.
        job.result.never_in = [failure for failure in manifest.failures() if failure[0] not in lost]
    job.result.seconds = time.perf_counter() - started
    return job.result


class _Names:
    """The paths that entries get below the target."""

    def __init__(self, manifest: Manifest, rename: Mapping[str, str]) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        for old, new in rename.items():
            row = manifest.get(old)
            folder = row is None or row.kind == "folder"
            if row is None and not any(manifest.below(old)):
                raise UsageError(f"--rename {old}={new}: the archive has no {old}; see `lof archive status`")
            taken = new in self._files.values() or new in self._folders.values()
            if not is_safe(new) or taken or manifest.get(new) is not None:
                raise UsageError(
                    f"--rename {old}={new}: {new} is in the archive, taken or no path; choose another one"
                )
            (self._folders if folder else self._files)[old] = new

    def of(self, path: str) -> str:
        """The path of an entry: renamed itself, or in a folder that is."""
        if path in self._files or not self._folders:
            return self._files.get(path, path)
        above = [path, *map(str, PurePosixPath(path).parents)]
        old = next((folder for folder in above if folder in self._folders), None)
        return path if old is None else self._folders[old] + path.removeprefix(old)


class _Target:
    """The folder that is written, and the journal of what has been. What it cannot write is an ``OSError``."""

    def __init__(self, out: Path, private: Path, overwrite: bool) -> None:
        self.out, self.private, self.overwrite, self.finished = out, private, overwrite, False
        try:
            self.real = Path(os.path.realpath(out))
            journal = self.private / _JOURNAL
            # What damage makes of a line is the key of no file, which is then made again and compared.
            lines = journal.read_text(errors="replace").splitlines() if journal.exists() else []
            self.done = {line for line in lines if len(line) == 64}
            self.journal = journal.open("a")
        except OSError as error:
            raise cannot_write(out, error) from error
        self._checked: set[Path] = set()

    def place(self, path: str) -> Path:
        """Where a path belongs; nothing on the way there is a link.

        Raises:
            ArchiveError: a folder on the way is a link, or lof's own.
        """
        if PurePosixPath(path).parts[0] == _PRIVATE:
            raise ArchiveError("lof keeps its own notes there; give it another name with --rename")
        place = self.out.joinpath(*PurePosixPath(path).parts)
        if place.parent not in self._checked:
            expected = self.real.joinpath(*PurePosixPath(path).parts[:-1])
            if Path(os.path.realpath(place.parent)) != expected:
                raise ArchiveError(f"{place.parent}: is a link; move it away or restore to another place")
            make_folders(place.parent)
            self._checked.add(place.parent)
        return place

    def write(self, staged: Staged, place: Path, row: Row) -> bool:
        """Give staged content its name, times and mode; whether it was not there already.

        Raises:
            ArchiveError: another file is there, and may not be overwritten.
        """
        try:
            there = os.path.lexists(place)
            same = there and not place.is_symlink() and place.is_file() and sha256(place) == staged.sha256
            if not same:
                if there:
                    self.require_free(place)
                staged.place(place)
            set_status(place, row)
            self.note(place, row)
            return not same
        finally:
            staged.discard()

    def require_free(self, place: Path) -> None:
        """Refuse to replace what is there, unless it is a file and may be overwritten.

        Raises:
            ArchiveError: it may not be replaced.
        """
        if not self.overwrite or (place.is_dir() and not place.is_symlink()):
            raise ArchiveError(
                f"{place}: is something else already; add --overwrite or restore to another place"
            )

    def has(self, place: Path, row: Row) -> bool:
        """Whether an earlier call has written this, and nobody has changed it since.

        A change shows in the time. Where the file system cannot keep the time to the nanosecond, the answer is no:
        the file is made again and compared.
        """
        if _key(place, row) not in self.done or place.is_symlink() or not place.is_file():
            return False
        return place.stat().st_mtime_ns == row.mtime_ns

    def note(self, place: Path, row: Row) -> None:
        """Remember that this has been written."""
        self.journal.write(_key(place, row) + "\n")
        self.journal.flush()

    def __enter__(self) -> _Target:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()
        if self.finished:
            shutil.rmtree(self.private, ignore_errors=True)


@dataclass
class _Restore:
    dst: Path
    manifest: Manifest
    target: _Target
    names: _Names
    form: Form
    all_links: bool
    weights: Path | None
    on_event: OnEvent
    result: Restored = field(default_factory=Restored)
    flying: dict[str, tuple[Row, Path]] = field(default_factory=dict)

    def folders(self) -> None:
        """Make the folders, and let this process write into those that an earlier call has finished."""
        for row in self._rows("folder"):
            with self._one(row):
                place = self.target.place(self.names.of(row.path))
                if not place.is_dir() or place.is_symlink():
                    place.mkdir()
                mode = place.stat().st_mode
                if mode & stat.S_IRWXU != stat.S_IRWXU:
                    place.chmod(stat.S_IMODE(mode) | stat.S_IRWXU)

    def items(self) -> Iterator[DecodeItem]:
        """The streams to decode; stored files are copied on the way."""
        for row in self.manifest.rows("object != ''"):
            with self._one(row):
                place = self.target.place(self._name(row))
                if self.target.has(place, row):
                    self.result.there += 1
                elif row.state == "streamed":
                    stream = objects.stream(self.dst, row)
                    self.flying[row.path] = row, place
                    format = "PNG" if self.form == "png" or row.format not in FORMATS else str(row.format)
                    weights = self.weights or kept_weights(self.dst, row)
                    yield DecodeItem.of(row, stream, weights, format)
                else:
                    self._write(stage(objects.content(self.dst, row), self.target.private), place, row)

    def write_image(self, item: DecodeItem, decoded: Decoded) -> None:
        """Write what workers decoded; called by the pool."""
        row, place = self.flying.pop(item.path)
        self.result.rounded += decoded.rounded
        with self._one(row):
            if decoded.error:
                raise ArchiveError(decoded.error)
            self._write(stage([decoded.data], self.target.private), place, row)

    def links(self) -> None:
        """Make hard links, then symbolic ones: nothing is ever written through them."""
        for row in self._rows("hardlink"):
            with self._one(row):
                self._hardlink(row)
        for row in self._rows("link"):
            if not self.all_links and not stays_inside(self.names.of(row.path), row.link):
                self.result.left_out.append(row.path)
                continue
            with self._one(row):
                self._symlink(row)

    def folder_times(self) -> None:
        """Times and modes of folders, after everything has been written into them."""
        closed: list[tuple[Path, Row]] = []
        for row in self._rows("folder"):
            with self._one(row):
                place = self.target.place(self.names.of(row.path))
                if not place.is_dir() or place.is_symlink():
                    continue
                if row.mode & stat.S_IXUSR:
                    set_status(place, row)
                else:
                    closed.append((place, row))
        for place, row in reversed(closed):  # what is in it first: nobody looks into it after this
            with self._one(row):
                set_status(place, row)

    def _rows(self, kind: str) -> Iterator[Row]:
        return self.manifest.rows("kind = ? AND state != 'failed'", kind)

    def _name(self, row: Row) -> str:
        """The restored path: that of the source, with ``.png`` behind it where that is another format."""
        path = self.names.of(row.path)
        if row.state != "streamed" or self.form == "source" or row.format == "PNG":
            return path
        if self.manifest.get(f"{row.path}.png") is not None:
            raise ArchiveError(
                f"{row.path}.png is in the archive too; restore with --format source or --rename"
            )
        return f"{path}.png"

    def _write(self, staged: Staged, place: Path, row: Row) -> None:
        if not self.target.write(staged, place, row):
            self.result.there += 1
        elif row.state == "streamed":
            self.result.images += 1
        else:
            self.result.stored += 1
        self.on_event(Checked(row.path))

    def _symlink(self, row: Row) -> None:
        place = self.target.place(self.names.of(row.path))
        if place.is_symlink() and os.readlink(place) == row.link:
            return
        self._clear(place)
        os.symlink(row.link, place)
        os.utime(place, ns=(row.mtime_ns, row.mtime_ns), follow_symlinks=False)

    def _hardlink(self, row: Row) -> None:
        target = self.manifest.get(row.link)
        if target is None or not target.object:
            raise ArchiveError(f"repeats {row.link}, which the archive does not have")
        first, name = self._name(target), self.names.of(row.path)
        # Where the image has got another suffix, so does its second name.
        place = self.target.place(name if first == self.names.of(target.path) else f"{name}.png")
        original = self.target.place(first)
        if place.exists() and original.exists() and os.path.samefile(place, original):
            return
        self._clear(place)
        os.link(original, place, follow_symlinks=False)

    def _clear(self, place: Path) -> None:
        if os.path.lexists(place):
            self.target.require_free(place)
            place.unlink()

    @contextmanager
    def _one(self, row: Row) -> Iterator[None]:
        """Work on one entry: what goes wrong is its own error, unless nothing at all can be written any more."""
        try:
            yield
        except objects.ObjectError as error:
            self._wrong(row, f"{error}; see `lof archive verify`")
        except ArchiveError as error:
            self._wrong(row, str(error))
        except (OSError, ValueError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno in _NOWHERE:
                raise cannot_write(self.target.out, error) from error
            reason = getattr(error, "strerror", None) or error
            if isinstance(error, PermissionError):
                self._wrong(
                    row, f"cannot be written there ({reason}); check permissions, or name another place"
                )
                return
            self._wrong(row, f"cannot have that name here ({reason}); give it another one with --rename")

    def _wrong(self, row: Row, error: str) -> None:
        self.result.errors.append((row.path, error))
        self.on_event(Checked(row.path, error))


def set_status(place: Path, row: Row) -> None:
    """Give a file or folder the times and permission bits of its source, a folder the sticky bit too.

    Raises:
        OSError, OverflowError: the file system does not take them.
    """
    os.chmod(place, row.mode & (0o1777 if row.kind == "folder" else 0o777))  # never setuid, setgid
    os.utime(place, ns=(row.mtime_ns, row.mtime_ns))


def _key(place: Path, row: Row) -> str:
    return hashlib.sha256(f"{place} {row.object_sha256}".encode("utf-8", "surrogateescape")).hexdigest()


def _within(inner: Path, outer: Path) -> bool:
    inner, outer = Path(os.path.realpath(inner)), Path(os.path.realpath(outer))
    return outer == inner or outer in inner.parents
