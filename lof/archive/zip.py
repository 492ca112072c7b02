"""A zip file as a source."""

from __future__ import annotations

import stat
import struct
import time
import zipfile
from collections.abc import Iterator
from functools import partial

from lof.archive.entries import Entry, Origin
from lof.archive.packed import PackedSource
from lof.errors import ArchiveError

_ENCRYPTED, _MOST_LINK, _EXTENDED_TIME = 0x1, 4096, 0x5455


class ZipSource(PackedSource):
    """The members of a zip file, in the order of its directory."""

    origin: Origin = "zip"

    def members(self) -> Iterator[Entry]:
        """See :meth:`PackedSource.members`."""
        with zipfile.ZipFile(self.path) as file:
            for info in file.infolist():
                yield self._entry(file, info)

    def _entry(self, file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Entry:
        mode, when = info.external_attr >> 16, _mtime_ns(info)
        bits = stat.S_IMODE(mode)
        if info.flag_bits & _ENCRYPTED:
            error = "is encrypted; unpack it with its password and archive that"
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            error = "is a device, pipe or socket, which has no content to archive"
        elif stat.S_ISLNK(mode) and info.file_size > _MOST_LINK:
            error = "is a link with more text than a link can have"
        else:
            error = ""
        if info.is_dir():
            return Entry(info.filename, "folder", "zip", 0, when, bits or 0o755, error=error)
        content = partial(
            self.opened, info.filename, partial(file.open, info), info.file_size, info.compress_size
        )
        if stat.S_ISLNK(mode) and not error:
            try:
                with content() as reader:
                    text = reader.read().decode("utf-8", "surrogateescape")
                return Entry(info.filename, "link", "zip", 0, when, bits, text)
            except ArchiveError:
                error = "is a damaged link; copy the zip file again"
        return Entry(info.filename, "file", "zip", info.file_size, when, bits or 0o644, "", content, error)


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
