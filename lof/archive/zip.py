"""A zip file as a source."""

from __future__ import annotations

import lzma
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lof.archive.entries import Container, Entry, Limits, Reader, Refused
from lof.archive.names import join, safe_parts
from lof.errors import ArchiveError

_ENCRYPTED, _MOST_LINK, _EXTENDED_TIME = 0x1, 4096, 0x5455

# What zipfile and its decompressors raise on members that are damaged or made to hurt.
_DAMAGE = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
)


class ZipSource:
    """The members of a zip file.

    Args:
        name: first part of all paths.
    """

    container: Container = "zip"

    def __init__(self, path: Path, name: str, limits: Limits = Limits()) -> None:
        self.path, self.name, self.limits = path, name, limits

    def entries(self) -> Iterator[Entry | Refused]:
        """In the order of the file's directory.

        Raises:
            ArchiveError: no zip file, or one whose directory is damaged.
        """
        try:
            with zipfile.ZipFile(self.path) as file:
                yield Entry(self.name, "folder", "zip", 0, self.path.stat().st_mtime_ns, 0o755)
                yield from self._members(file)
        except (OSError, *_DAMAGE) as error:
            raise ArchiveError(
                f"{self.path}: cannot be read as a zip file ({_one_line(error)}); copy it again from its source"
            ) from error

    def _members(self, file: zipfile.ZipFile) -> Iterator[Entry | Refused]:
        seen: dict[tuple[str, ...], int] = {}
        for info in file.infolist():
            parts = safe_parts(info.filename)
            mode = info.external_attr >> 16
            what = self._objection(info, parts, mode)
            if what is not None or parts is None:
                yield Refused(f"{self.name}/{info.filename}", "zip", f"{self.path}: {info.filename!r} {what}")
                continue
            path = join(self.name, parts)
            seen[parts] = seen.get(parts, 0) + 1
            if seen[parts] > 1:
                if not info.is_dir():
                    error = f"{self.path}: holds {info.filename!r} more than once; the first one was taken"
                    yield Refused(f"{path}#{seen[parts]}", "zip", error)
                continue
            yield self._entry(file, info, path, mode)

    def _objection(self, info: zipfile.ZipInfo, parts: tuple[str, ...] | None, mode: int) -> str | None:
        if parts is None:
            return "leads out of the tree; rename it in the zip file"
        if info.flag_bits & _ENCRYPTED:
            return "is encrypted; unpack it with its password and archive that"
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            return "is a device, pipe or socket, which has no content to archive"
        if stat.S_ISLNK(mode) and info.file_size > _MOST_LINK:
            return "is a link with more text than a link can have"
        return None

    def _entry(self, file: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, mode: int) -> Entry | Refused:
        when, bits = _mtime_ns(info), stat.S_IMODE(mode)
        if info.is_dir():
            return Entry(path, "folder", "zip", 0, when, bits or 0o755)
        content = partial(self._open, file, info)
        if stat.S_ISLNK(mode):
            try:
                with content() as reader:
                    text = reader.read().decode("utf-8", "surrogateescape")
            except ArchiveError as error:
                return Refused(path, "zip", str(error))
            return Entry(path, "link", "zip", 0, when, bits, text)
        return Entry(path, "file", "zip", info.file_size, when, bits or 0o644, "", content)

    @contextmanager
    def _open(self, file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[Reader]:
        name = f"{self.path}: {info.filename!r}"
        try:
            with file.open(info) as member:
                yield _Bounded(member, info.compress_size, self.limits, name)
        except (OSError, *_DAMAGE) as error:
            raise ArchiveError(f"{name} is damaged ({_one_line(error)}); copy the zip file again") from error


class _Bounded:
    """Counts what comes out: the size in a header is only a claim."""

    def __init__(self, member: Reader, compressed: int, limits: Limits, name: str) -> None:
        self.member, self.compressed, self.limits, self.name = member, compressed, limits, name
        self.out = 0

    def read(self, size: int = -1, /) -> bytes:
        if size >= 0:
            return self._next(size)
        return b"".join(iter(lambda: self._next(1 << 20), b""))

    def _next(self, size: int) -> bytes:
        data = self.member.read(size)
        self.out += len(data)
        self.limits.check(self.out, self.compressed, self.name)
        if self.out > self.limits.member:
            raise ArchiveError(f"{self.name} has more than {self.limits.member} bytes; raise --max-member")
        return data


def _mtime_ns(info: zipfile.ZipInfo) -> int:
    """The time of the last change: UTC from the extended field, else the two-second local time of zip."""
    extra = info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == _EXTENDED_TIME and size >= 5 and len(extra) >= 9 and extra[4] & 1:
            return int(struct.unpack_from("<i", extra, 5)[0]) * 10**9
        extra = extra[4 + size :]
    try:
        return int(time.mktime((*info.date_time, 0, 0, -1))) * 10**9
    except (ValueError, OverflowError):
        return 0


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
