"""From the paths that a user names to the sources of an archive, each with a name of its own."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from lof.archive.entries import Container, Entry, Limits, Refused
from lof.archive.folder import FolderSource
from lof.archive.tar import TarSource
from lof.archive.zip import ZipSource
from lof.errors import UsageError

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")


class Source(Protocol):
    """A tree of entries. ``name`` is the first part of all their paths."""

    path: Path
    name: str
    container: Container

    def entries(self) -> Iterator[Entry | Refused]:
        """All entries; those of a folder sorted by the bytes of their paths, folders before what is in them.

        Raises:
            ArchiveError: the source as a whole cannot be read, or not to its end.
        """
        ...


def open_sources(paths: Sequence[str], dst: Path, limits: Limits = Limits()) -> list[Source]:
    """One source for each path: a folder, a tar (plain, gzip, bzip2, xz) or a zip; nothing is read yet.

    A source is called like its folder, or its file without the suffix.

    Raises:
        UsageError: a path does not exist or is neither, two have the same name, or the archive is one of
            the sources or around one.
    """
    sources = [_open(Path(path), dst, limits) for path in paths]
    places: dict[str, Path] = {}
    for source in sources:
        other = places.setdefault(source.name, source.path)
        if other is not source.path:
            raise UsageError(
                f"{other} and {source.path}: both would be {source.name} in the archive; "
                "rename one, or give each its own archive"
            )
    return sources


def size_of(sources: Sequence[Source]) -> int | None:
    """Bytes of all files in folders and zips; ``None`` with a tar, which would have to be read for that."""
    total = 0
    for source in sources:
        if source.container == "tar":
            return None
        if isinstance(source, FolderSource):
            total += sum(size for _, mode, size, _, _ in source.seen() if stat.S_ISREG(mode))
        else:
            total += sum(entry.size for entry in source.entries() if isinstance(entry, Entry))
    return total


def _open(path: Path, dst: Path, limits: Limits) -> Source:
    try:
        place = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{path}: does not exist or cannot be reached; check the name") from error
    if place.is_dir():
        target = Path(os.path.realpath(dst))
        if target == place or target in place.parents:
            raise UsageError(f"{path}: lies in the archive {dst}; choose another place for one of them")
        return FolderSource(place, place.name or "root", str(target))
    name = place.name.lower()
    suffix = next((s for s in sorted(_TAR_SUFFIXES, key=len, reverse=True) if name.endswith(s)), None)
    try:
        if place.is_file() and zipfile.is_zipfile(place) and suffix is None:
            return ZipSource(place, place.stem, limits)
        if place.is_file() and (suffix is not None or tarfile.is_tarfile(place)):
            return TarSource(place, place.name[: -len(suffix)] if suffix else place.stem, limits)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    raise UsageError(f"{path}: is no folder, .tar (.gz, .bz2, .xz) or .zip; put single files into a folder")
