"""``lof archive restore``: the tree back, as images and the files that were stored as they were."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from lof.archive.entries import chunks
from lof.archive.events import Checked, OnEvent
from lof.archive.manifest import Manifest, Row
from lof.archive.names import is_safe, stays_inside
from lof.archive.staging import Staged, cannot_write, make_folders, stage
from lof.archive.store import reading
from lof.archive.work import Decode, Decoded, DecodeItem
from lof.errors import ArchiveError, OutputError, UsageError
from lof.files.atomic import sha256
from lof.pools import Advanced, Event, Finished, Pool, Started

Form = Literal["png", "source"]

_PRIVATE, _JOURNAL = ".lof-restore", "done"


@dataclass
class Restored:
    """What a call came to.

    Attributes:
        rounded: images in which this machine rounds single pixels otherwise than the one that archived them.
        there: files that were there already, from an earlier call.
        left_out: links that lead out of the tree.
    """

    images: int = 0
    rounded: int = 0
    stored: int = 0
    there: int = 0
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0
    errors: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 if anything went wrong, else 0."""
        return 1 if self.errors else 0


def restore(
    dst: Path,
    out: Path,
    pool: Pool,
    *,
    form: Form = "png",
    overwrite: bool = False,
    all_links: bool = False,
    weights: Path | None = None,
    on_event: OnEvent = lambda event: None,
) -> Restored:
    """Write the archived tree below ``out``; stopped or killed, the same call continues.

    Streams become images with their ICC profile and EXIF: PNG (``photo.jpg`` → ``photo.jpg.png``), or the
    source's own format under its own name, which for JPEG loses a little more. Stored files come back byte for
    byte. Times and permission bits are those of the source.

    Args:
        overwrite: replace files that are there and differ.
        all_links: also make links that lead out of the tree.

    Raises:
        UsageError: ``out`` and the archive lie in one another.
        ArchiveError: there is no archive, or its manifest cannot be trusted: a path leads out of the tree.
        OutputError: ``out`` cannot be written, or a process is at work in the archive.
    """
    started = time.perf_counter()
    if _within(out, dst) or _within(dst, out / _PRIVATE):
        raise UsageError(f"{out}: lies in the archive {dst}; choose another place")
    with reading(dst) as manifest:
        for row in manifest.rows("state != 'failed'"):
            if not is_safe(row.path) or (row.object and not is_safe(row.object)):
                raise ArchiveError(
                    f"{manifest.path}: its path {row.path!r} leads out of the tree, so lof did not write it; "
                    "nothing was restored"
                )
        with _Target(out, overwrite) as target:
            job = _Restore(dst, manifest, target, form, all_links, on_event)
            job.folders()
            pool.run(job.items(), Decode(weights, dst), job.listen)
            job.links()
            job.folder_times()
            target.finished = not job.result.errors
    job.result.seconds = time.perf_counter() - started
    return job.result


class _Target:
    """The folder that is written, and the journal of what has been."""

    def __init__(self, out: Path, overwrite: bool) -> None:
        self.out, self.overwrite, self.finished = out, overwrite, False
        self.private = out / _PRIVATE
        try:
            make_folders(self.private)
            self.real = Path(os.path.realpath(out))
            journal = self.private / _JOURNAL
            lines = journal.read_text().splitlines() if journal.exists() else []
            self.done = {line for line in lines if len(line) == 64}
            self.journal = journal.open("a")
        except OSError as error:
            raise cannot_write(out, error) from error
        self._checked: set[Path] = set()

    def place(self, path: str) -> Path:
        """Where a path belongs; nothing on the way there is a link.

        Raises:
            ArchiveError: a folder on the way is a link or a file.
        """
        place = self.out.joinpath(*PurePosixPath(path).parts)
        if place.parent not in self._checked:
            expected = self.real.joinpath(*PurePosixPath(path).parts[:-1])
            if Path(os.path.realpath(place.parent)) != expected:
                raise ArchiveError(f"{place.parent}: is a link; move it away or restore to another place")
            try:
                make_folders(place.parent)
            except OSError as error:
                raise cannot_write(place.parent, error) from error
            self._checked.add(place.parent)
        return place

    def write(self, staged: Staged, place: Path, row: Row) -> bool:
        """Give staged content its name, times and mode; whether it was not there already.

        Raises:
            ArchiveError: another file is there, and may not be overwritten.
        """
        there = os.path.lexists(place)
        same = there and not place.is_symlink() and place.is_file() and sha256(place) == staged.sha256
        if same:
            staged.discard()
        elif there and not (self.overwrite and not place.is_dir()):
            staged.discard()
            raise ArchiveError(
                f"{place}: is something else already; add --overwrite or restore to another place"
            )
        else:
            staged.place(place)
        set_status(place, row)
        self.note(place, row)
        return not same

    def has(self, place: Path, row: Row) -> bool:
        """Whether an earlier call has written this, and it is there."""
        return _key(place, row) in self.done and place.is_file() and not place.is_symlink()

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


class _Restore:
    def __init__(
        self, dst: Path, manifest: Manifest, target: _Target, form: Form, all_links: bool, on_event: OnEvent
    ) -> None:
        self.dst, self.manifest, self.target, self.form = dst, manifest, target, form
        self.all_links, self.on_event = all_links, on_event
        self.result = Restored()
        self.flying: dict[str, tuple[Row, Path]] = {}

    def folders(self) -> None:
        """Make the folders; their times and modes come last."""
        for row in self.manifest.rows("kind = 'folder' AND state != 'failed'"):
            try:
                place = self.target.place(row.path)
                if not place.is_dir() or place.is_symlink():
                    place.mkdir()
            except OSError as error:
                self._wrong(row, f"{row.path}: cannot be made ({error.strerror}); restore to another place")
            except ArchiveError as error:
                self._wrong(row, str(error))

    def items(self) -> Iterator[DecodeItem]:
        """The streams to decode; stored files are copied on the way."""
        for row in self.manifest.rows("object != ''"):
            try:
                place = self.target.place(self._name(row))
                if self.target.has(place, row):
                    self.result.there += 1
                    continue
                if row.state == "streamed":
                    stream = self._stream(row)
                    self.flying[row.path] = row, place
                    digests = row.pixels_sha256 or "", row.symbols_sha256
                    yield DecodeItem(row.path, stream, *digests, self._format(row))
                else:
                    self._copy(row, place)
            except ArchiveError as error:
                self._wrong(row, str(error))

    def listen(self, event: Event) -> None:
        """Write what workers decoded; called by the pool."""
        match event:
            case Started(item, worker, attempt):
                self.on_event(Started(item.path, worker, attempt))
            case Advanced(item, progress):
                self.on_event(Advanced(item.path, progress))
            case Finished(DecodeItem(path), Decoded(data, error, _, rounded)):
                row, place = self.flying.pop(path)
                self.result.rounded += rounded
                if error:
                    self._wrong(row, f"{row.path}: {error}")
                    return
                try:
                    self._write(stage([data], self.target.private), place, row)
                except ArchiveError as problem:
                    self._wrong(row, str(problem))

    def links(self) -> None:
        """Make hard links, then symbolic ones: nothing is ever written through them."""
        for row in self.manifest.rows("kind = 'hardlink' AND state != 'failed'"):
            self._link(row, self._hardlink)
        for row in self.manifest.rows("kind = 'link' AND state != 'failed'"):
            if stays_inside(row.path, row.link) or self.all_links:
                self._link(row, self._symlink)
            else:
                self.result.left_out.append(row.path)

    def folder_times(self) -> None:
        """Times and modes of folders, after everything has been written into them."""
        for row in self.manifest.rows("kind = 'folder' AND state != 'failed'"):
            place = self.target.out.joinpath(*PurePosixPath(row.path).parts)
            if place.is_dir() and not place.is_symlink():
                set_status(place, row)

    def _name(self, row: Row) -> str:
        """The restored name: as in the source, with ``.png`` behind it where that is another format."""
        if row.state != "streamed" or self.form == "source" or row.format == "PNG":
            return row.path
        name = f"{row.path}.png"
        if self.manifest.brief(name) is not None:
            raise ArchiveError(f"{row.path}: {name} is in the archive too; restore with --format source")
        return name

    def _format(self, row: Row) -> str:
        return "PNG" if self.form == "png" or row.format is None else row.format

    def _stream(self, row: Row) -> bytes:
        try:
            stream = (self.dst / row.object).read_bytes()
        except OSError as error:
            raise _lost(row, error.strerror or str(error)) from error
        if hashlib.sha256(stream).hexdigest() != row.object_sha256:
            raise _lost(row, "not as it was written")
        return stream

    def _copy(self, row: Row, place: Path) -> None:
        try:
            with (self.dst / row.object).open("rb") as file:
                staged = stage(chunks(file), self.target.private)
        except OSError as error:
            raise _lost(row, error.strerror or str(error)) from error
        if staged.sha256 != row.sha256:
            staged.discard()
            raise _lost(row, "not as it was written")
        self._write(staged, place, row)

    def _write(self, staged: Staged, place: Path, row: Row) -> None:
        if not self.target.write(staged, place, row):
            self.result.there += 1
        elif row.state == "streamed":
            self.result.images += 1
        else:
            self.result.stored += 1
        self.on_event(Checked(row.path))

    def _link(self, row: Row, make: object) -> None:
        assert callable(make)
        try:
            place = self.target.place(row.path)
            make(row, place)
        except (ArchiveError, OutputError) as error:
            self._wrong(row, str(error))
        except OSError as error:
            self._wrong(row, f"{row.path}: the link cannot be made ({error.strerror})")

    def _symlink(self, row: Row, place: Path) -> None:
        if place.is_symlink() and os.readlink(place) == row.link:
            return
        self._clear(place)
        os.symlink(row.link, place)
        os.utime(place, ns=(row.mtime_ns, row.mtime_ns), follow_symlinks=False)

    def _hardlink(self, row: Row, place: Path) -> None:
        target = self.manifest.get(row.link) if is_safe(row.link) else None
        if target is None or target.state == "failed":
            raise ArchiveError(f"{row.path}: repeats {row.link}, which the archive does not have")
        first = self._name(target)
        if first != target.path:  # the image has got another suffix, and so does its second name
            place = self.target.place(f"{row.path}.png")
        original = self.target.place(first)
        if place.exists() and original.exists() and os.path.samefile(place, original):
            return
        self._clear(place)
        os.link(original, place, follow_symlinks=False)

    def _clear(self, place: Path) -> None:
        if os.path.lexists(place):
            if not self.target.overwrite or (place.is_dir() and not place.is_symlink()):
                raise ArchiveError(
                    f"{place}: is something else already; add --overwrite or restore to another place"
                )
            place.unlink()

    def _wrong(self, row: Row, error: str) -> None:
        self.result.errors.append((row.path, error))
        self.on_event(Checked(row.path, error))


def set_status(place: Path, row: Row) -> None:
    """Give a file or folder the times and permission bits of its source.

    Raises:
        OutputError: the file system does not take them.
    """
    try:
        os.chmod(place, row.mode & 0o777)
        os.utime(place, ns=(row.mtime_ns, row.mtime_ns))
    except (OSError, OverflowError) as error:
        reason = error if isinstance(error, OSError) else OSError(str(error))
        raise cannot_write(place, reason) from error


def _lost(row: Row, why: str) -> ArchiveError:
    return ArchiveError(f"{row.path}: {row.object} cannot be read ({why}); see `lof archive verify`")


def _key(place: Path, row: Row) -> str:
    return hashlib.sha256(f"{place} {row.object_sha256}".encode("utf-8", "surrogateescape")).hexdigest()


def _within(inner: Path, outer: Path) -> bool:
    inner, outer = Path(os.path.realpath(inner)), Path(os.path.realpath(outer))
    return outer == inner or outer in inner.parents
