"""What tar and zip files have in common: names that may lie, members that may be damaged or made to hurt."""

from __future__ import annotations

import lzma
import struct
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lof.archive.entries import CHUNK, Entry, Limits, Origin, Reader
from lof.archive.names import safe_parts
from lof.archive.walk import matcher
from lof.errors import ArchiveError, one_line

# What tarfile, zipfile and the decompressors raise on files that are damaged or made to hurt.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    NotImplementedError,  # zipfile's word for a compression that it does not know
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    zlib.error,
)


class PackedSource(ABC):
    """The members of one file.

    Args:
        name: first part of all paths.
        exclude: globs of what to leave out, see :func:`lof.archive.walk.matcher`.
    """

    origin: Origin

    def __init__(
        self, path: Path, name: str, limits: Limits = Limits(), exclude: tuple[str, ...] = ()
    ) -> None:
        self.path, self.name, self.limits, self.exclude = path, name, limits, exclude
        self._out = 0

    def entries(self) -> Iterator[Entry]:
        """The members in the order of the file.

        Raises:
            ArchiveError: it is no such file, or damaged, cut short, or inflates without end. What came before can
                be relied on.
        """
        self._out = 0
        try:
            yield Entry(self.name, "folder", self.origin, 0, self.path.stat().st_mtime_ns, 0o755)
            yield from self._checked()
        except DAMAGE as error:
            raise ArchiveError(
                f"{self.path}: is damaged, cut short or no {self.origin} file ({one_line(error)}); "
                "copy it again from its source"
            ) from error

    @abstractmethod
    def members(self) -> Iterator[Entry]:
        """Entries with the names that the file gives them, as paths and in hard links. Raises :data:`DAMAGE`."""

    @contextmanager
    def opened(
        self, member: str, open: Callable[[], Any], size: int, compressed: int | None = None
    ) -> Iterator[Reader]:
        """The content of a member, held to the size that its header claims and to the limits."""
        name = f"{self.path}: {member!r}"
        try:
            with open() as reader:
                yield _Bounded(reader, name, self.limits, size, compressed, self._count)
        except DAMAGE as error:
            what = f"is damaged or cut short ({one_line(error)})"
            raise ArchiveError(f"{name} {what}; copy the {self.origin} file again") from error

    def _count(self, inflated: int) -> None:
        """Hold all members together to the limits, too; each alone may be within them."""
        self._out += inflated
        self.limits.check(self._out, self.path.stat().st_size, str(self.path))

    def _checked(self) -> Iterator[Entry]:
        """Members under their paths in the archive; those that cannot be archived with the reason."""
        fits, seen = matcher(self.exclude), Counter[str]()
        for member in self.members():
            parts, label = safe_parts(member.path), f"{self.path}: {member.path!r}"
            path = "/".join((self.name, *parts)) if parts else f"{self.name}/{member.path}"
            error, link = member.error, member.link
            if parts is None:
                if member.kind == "folder" and not member.path.strip("./"):  # "./", the top of the tree
                    continue
                error = f"leads out of the tree; rename it in the {self.origin} file"
            elif _left_out(path, fits):
                continue
            seen[path] += 1
            if seen[path] > 1 and member.kind == "folder":
                continue
            if seen[path] > 1:
                path, error = f"{path}#{seen[path]}", "is there more than once; the first one was taken"
            if member.kind == "hardlink":
                target = safe_parts(link)
                link = "/".join((self.name, *(target or ())))
                error = error or ("" if target else "repeats a file out of the tree; remove it")
            if error:
                yield Entry(path, "file", self.origin, error=f"{label} {error}")
            else:
                yield member._replace(path=path, link=link)


class _Bounded:
    """Counts what comes out: the size in a header is only a claim."""

    def __init__(
        self,
        reader: Reader,
        name: str,
        limits: Limits,
        size: int,
        compressed: int | None,
        count: Callable[[int], None],
    ) -> None:
        self.reader, self.name, self.limits, self.size = reader, name, limits, size
        self.compressed, self.count, self.out = compressed, count, 0

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        data = self.reader.read(size)
        self.out += len(data)
        if self.compressed is not None:
            self.limits.check(self.out, self.compressed, self.name)
            self.count(len(data))
        if self.out > self.limits.member:
            raise ArchiveError(f"{self.name} has more than {self.limits.member} bytes; raise --max-member")
        if size and not data and self.out < self.size:
            raise EOFError(f"{self.out} of {self.size} bytes")
        return data


def _left_out(path: str, fits: Callable[[str], bool]) -> bool:
    ends = [at for at, character in enumerate(path) if character == "/"]
    return any(fits(path[:end]) for end in [*ends[1:], len(path)])
