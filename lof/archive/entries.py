"""What a source holds: entries, and what keeps reading them within bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from lof.errors import ArchiveError

Kind = Literal["file", "folder", "link", "hardlink"]
Origin = Literal["folder", "tar", "zip"]

CHUNK = 1 << 20


class Reader(Protocol):
    """The content of a file, from its beginning."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most ``size``; empty at the end."""
        ...


class Entry(NamedTuple):
    """One thing in a source.

    Attributes:
        path: in the archive: the source's name, then the safe parts below it. Beside an error it need not be safe.
        mode: permission bits.
        link: text of a symbolic link; path in the archive that a hard link repeats.
        open: for files: their content. Of a tar, only until the next entry is asked for. What is wrong
            with the content (it changed meanwhile, a checksum fails, it inflates without end) is an
            :class:`ArchiveError` while reading or, at the latest, when the context ends.
        error: why this cannot be archived; empty if it can.
    """

    path: str
    kind: Kind
    origin: Origin
    size: int = 0
    mtime_ns: int = 0
    mode: int = 0
    link: str = ""
    open: Callable[[], AbstractContextManager[Reader]] | None = None
    error: str = ""


class Source(Protocol):
    """A tree of entries. ``name`` is the first part of all their paths, ``exclude`` what is left out of it."""

    path: Path
    name: str
    origin: Origin
    exclude: tuple[str, ...]

    def entries(self) -> Iterator[Entry]:
        """All entries; those of a folder sorted by the bytes of their paths, folders before what is in them.

        Raises:
            ArchiveError: the source as a whole cannot be read, or not to its end.
        """
        ...


@dataclass(frozen=True)
class Limits:
    """How far compressed sources may inflate.

    Attributes:
        ratio: bytes out for each byte in, of one zip member, and of a whole zip or tar file.
        member: bytes of one member.
        free: bytes that may always come out of a file, whatever the ratio.
    """

    ratio: float = 200.0
    member: int = 64 << 30
    free: int = 64 << 20

    def check(self, inflated: int, compressed: int, name: str) -> None:
        """Refuse what has inflated too far.

        Raises:
            ArchiveError: the message starts with ``name``.
        """
        if inflated > self.free and inflated > self.ratio * compressed:
            raise ArchiveError(
                f"{name}: inflates to more than {self.ratio:g} times its size, like a bomb; "
                "raise --max-ratio if you trust it"
            )


def chunks(reader: Reader, head: bytes = b"") -> Iterator[bytes]:
    """``head``, then the rest of the content, a mebibyte at a time."""
    if head:
        yield head
    while data := reader.read(CHUNK):
        yield data
