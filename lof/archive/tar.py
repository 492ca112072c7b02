"""A tar file as a source, compressed or not: read once, forwards."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import os
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, Self, cast

from lof.archive.entries import CHUNK, Entry, Kind, Limits, Origin
from lof.archive.packed import PackedSource
from lof.errors import ArchiveError

_MAGIC: dict[bytes, Callable[[BinaryIO], object]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


_WITH_TEXT = frozenset(
    (
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    )
)
_MOST_TEXT = 1 << 16  # bytes
_LATEST = 9.2e9  # seconds since 1970; a manifest counts in nanoseconds, in 64 bits


class TarSource(PackedSource):
    """The members of a tar file, in its order; the content of one can be read until the next is asked for."""

    origin: Origin = "tar"

    def members(self) -> Iterator[Entry]:
        """See :meth:`PackedSource.members`."""
        with self.path.open("rb") as raw:
            stream = _Inflating(raw, self.limits, str(self.path))
            with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|", tarinfo=_StrictHeader) as tar:
                while (member := tar.next()) is not None:
                    vars(tar)["members"] = []  # tarfile would keep every header of the file
                    yield self._entry(tar, member, stream)
            stream.expect_only_zeros()

    def _entry(self, tar: tarfile.TarFile, member: tarfile.TarInfo, stream: _Inflating) -> Entry:
        seconds = 0.0 if math.isnan(member.mtime) else max(-_LATEST, min(member.mtime, _LATEST))
        kinds: tuple[tuple[bool, Kind], ...] = (
            (member.isdir(), "folder"),
            (member.issym(), "link"),
            (member.islnk(), "hardlink"),
        )
        kind: Kind = next((kind for fits, kind in kinds if fits), "file")
        entry = Entry(
            member.name, kind, "tar", 0, int(seconds * 10**9), member.mode & 0o7777, member.linkname
        )
        if kind != "file":
            return entry
        if not member.isreg():
            return entry._replace(error="is a device or pipe, which has no content to archive")
        if not 0 <= member.size <= self.limits.member:
            return entry._replace(error=f"has more than {self.limits.member} bytes; raise --max-member")

        def extract() -> object:
            stream.add_hole(_hole(member), f"{self.path}: {member.name!r}")
            return tar.extractfile(member)

        return entry._replace(
            size=member.size, link="", open=partial(self.opened, member.name, extract, member.size)
        )


class _StrictHeader(tarfile.TarInfo):
    """Headers whose damage is an error. tarfile takes most of it for the end of the file, silently.

    So is a header with more text than names and attributes need: tarfile reads it whole, and older ones take minutes.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _WITH_TEXT and header.size > _MOST_TEXT:
            raise tarfile.ReadError(
                f"a header of {header.size} bytes, where {_MOST_TEXT} are allowed; "
                "if the file is what it should be, unpack it and archive the folder"
            )
        return header

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictHeader:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _hole(member: tarfile.TarInfo) -> int:
    """Bytes of a sparse member that are not in the tar; ranges that overlap or go back count as none of its data."""
    ranges = cast("list[tuple[int, int]] | None", member.sparse)
    if ranges is None:
        return 0
    filled = end = 0
    for offset, size in ranges:
        start, end = max(offset, end), max(offset + size, offset, end)
        filled += max(0, min(end, member.size) - start)
    return member.size - filled


class _Inflating:
    """The bytes of the tar inside its compression; what comes out is compared with what went in."""

    def __init__(self, raw: BinaryIO, limits: Limits, name: str) -> None:
        head = raw.read(6)
        raw.seek(0)
        inflate = next((opened for magic, opened in _MAGIC.items() if head.startswith(magic)), None)
        self.raw, self.limits, self.name = raw, limits, name
        self.content = cast(BinaryIO, raw if inflate is None else inflate(raw))
        self.out, self.holes, self.ended = 0, 0, False

    def read(self, size: int) -> bytes:
        """For tarfile, which takes one empty read for the end and would go on, for hours, with a forged size."""
        data = self._next(size)
        if not data and self.ended:
            raise EOFError("it ends before the size that a header claims")
        self.ended = not data
        return data

    def add_hole(self, size: int, name: str) -> None:
        """Zeros that a sparse member claims. They come out of nothing, so the tar's own size has to allow them.

        Raises:
            ArchiveError: the tar has claimed too many.
        """
        if size:
            whole = os.fstat(self.raw.fileno()).st_size
            self.limits.check(self.out + self.holes + size, whole, name)
            self.holes += size

    def expect_only_zeros(self) -> None:
        """Read to the end, which also checks the checksums of the compression.

        Raises:
            ArchiveError: there is more than padding.
        """
        while data := self._next(CHUNK):
            if data.strip(b"\0"):
                raise ArchiveError(
                    f"{self.name}: holds data after its end mark, which were not archived; "
                    "unpack it and archive the folder"
                )

    def _next(self, size: int) -> bytes:
        data = self.content.read(size)
        self.out += len(data)
        self.limits.check(self.out, self.raw.tell(), self.name)
        return data
