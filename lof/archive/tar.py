"""A tar file as a source, compressed or not: read once, forwards."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, cast

from lof.archive.entries import CHUNK, Container, Entry, Limits, Reader, Refused
from lof.archive.names import join, safe_parts
from lof.errors import ArchiveError

_MAGIC: dict[bytes, Callable[[BinaryIO], object]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_DAMAGE = (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError)


class TarSource:
    """The members of a tar file, in its order.

    Args:
        name: first part of all paths.
    """

    container: Container = "tar"

    def __init__(self, path: Path, name: str, limits: Limits = Limits()) -> None:
        self.path, self.name, self.limits = path, name, limits

    def entries(self) -> Iterator[Entry | Refused]:
        """The members; the content of one can be read until the next is asked for.

        Raises:
            ArchiveError: no tar file, or one that is damaged, cut short or inflates without end. What came
                before can be relied on.
        """
        try:
            with self.path.open("rb") as raw:
                yield Entry(self.name, "folder", "tar", 0, self.path.stat().st_mtime_ns, 0o755)
                stream = _Inflating(raw, self.limits, str(self.path))
                with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|", tarinfo=_StrictHeader) as tar:
                    yield from self._members(tar)
                stream.expect_only_zeros()
        except (OSError, *_DAMAGE) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise ArchiveError(
                f"{self.path}: is damaged, cut short or no tar file ({why}); copy it again from its source"
            ) from error

    def _members(self, tar: tarfile.TarFile) -> Iterator[Entry | Refused]:
        seen: dict[tuple[str, ...], int] = {}
        while (member := tar.next()) is not None:
            vars(tar)["members"] = []  # tarfile would keep every header of the file
            parts = safe_parts(member.name)
            if parts is None:
                if member.isdir() and not member.name.strip("./"):  # "./", the top of the tree
                    continue
                what = "leads out of the tree; rename it in the tar file"
                yield Refused(f"{self.name}/{member.name}", "tar", f"{self.path}: {member.name!r} {what}")
                continue
            path = join(self.name, parts)
            seen[parts] = seen.get(parts, 0) + 1
            if seen[parts] == 1:
                yield self._entry(tar, member, path)
            elif not member.isdir():
                error = f"{self.path}: holds {member.name!r} more than once; the first one was taken"
                yield Refused(f"{path}#{seen[parts]}", "tar", error)

    def _entry(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> Entry | Refused:
        when, bits = int(member.mtime * 10**9), member.mode & 0o7777
        name = f"{self.path}: {member.name!r}"
        if member.isdir():
            return Entry(path, "folder", "tar", 0, when, bits)
        if member.issym() or member.islnk():
            return self._link(member, path, when, bits)
        if not member.isreg():
            return Refused(path, "tar", f"{name} is a device or pipe, which has no content to archive")
        if member.size > self.limits.member:
            return Refused(
                path, "tar", f"{name} has more than {self.limits.member} bytes; raise --max-member"
            )
        return Entry(path, "file", "tar", member.size, when, bits, "", partial(self._open, tar, member))

    def _link(self, member: tarfile.TarInfo, path: str, when: int, bits: int) -> Entry | Refused:
        if member.issym():
            return Entry(path, "link", "tar", 0, when, bits, member.linkname)
        target = safe_parts(member.linkname)
        if target is None:
            name = f"{self.path}: {member.name!r}"
            return Refused(path, "tar", f"{name} repeats {member.linkname!r}, which is out of the tree")
        return Entry(path, "hardlink", "tar", 0, when, bits, join(self.name, target))

    @contextmanager
    def _open(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[Reader]:
        content = tar.extractfile(member)
        assert content is not None  # only regular files come here
        with content:
            yield _Exactly(content, member.size, f"{self.path}: {member.name!r}")


class _Exactly:
    """A member's content; an end before its stated size is an error."""

    def __init__(self, content: IO[bytes], size: int, name: str) -> None:
        self.content, self.left, self.name = content, size, name

    def read(self, size: int = -1, /) -> bytes:
        try:
            data = self.content.read(size)
        except (OSError, *_DAMAGE) as error:
            raise ArchiveError(f"{self.name} is damaged or cut short; copy the tar file again") from error
        self.left -= len(data)
        if self.left and (size < 0 or (size and not data)):
            raise ArchiveError(f"{self.name} is cut short; copy the tar file again from its source")
        return data


class _StrictHeader(tarfile.TarInfo):
    """Headers whose damage is an error. tarfile takes most of it for the end of the file, silently."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictHeader:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


class _Inflating:
    """The bytes of the tar inside its compression; what comes out is compared with what went in."""

    def __init__(self, raw: BinaryIO, limits: Limits, name: str) -> None:
        head = raw.read(6)
        raw.seek(0)
        inflate = next((opened for magic, opened in _MAGIC.items() if head.startswith(magic)), None)
        self.raw, self.limits, self.name = raw, limits, name
        self.content = cast(BinaryIO, raw if inflate is None else inflate(raw))
        self.out = 0

    def read(self, size: int) -> bytes:
        data = self.content.read(size)
        self.out += len(data)
        self.limits.check(self.out, self.raw.tell(), self.name)
        return data

    def expect_only_zeros(self) -> None:
        """Read to the end, which also checks the checksums of the compression.

        Raises:
            ArchiveError: there is more than padding.
        """
        while data := self.read(CHUNK):
            if data.strip(b"\0"):
                raise ArchiveError(
                    f"{self.name}: holds data after its end mark, which were not archived; "
                    "unpack it and archive the folder"
                )
