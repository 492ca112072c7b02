"""From the paths that a user names to the sources of an archive, each with a name of its own."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from lof.archive.entries import Limits, Source
from lof.archive.folder import FolderSource
from lof.archive.names import is_safe
from lof.archive.tar import TarSource
from lof.archive.zip import ZipSource
from lof.errors import ArchiveError, UsageError

_TAR_SUFFIXES = (".tar.bz2", ".tar.gz", ".tar.xz", ".tar", ".tbz2", ".tbz", ".tgz", ".txz")


def open_sources(
    paths: Sequence[str], dst: Path, limits: Limits = Limits(), exclude: Sequence[str] = ()
) -> list[Source]:
    """One source for each path: a folder, a tar (plain, gzip, bzip2, xz) or a zip; nothing is read yet.

    A source is called like its folder, or its file without the suffix.

    Args:
        exclude: globs of what is left out. One with a slash is compared with the path below the source, any other
            one with the last name alone; a folder that fits is left out with all that is in it.

    Raises:
        UsageError: a path does not exist or is neither, two have the same name, or the archive is one of
            the sources or around one.
    """
    sources = [_open(Path(path), dst, limits, tuple(exclude)) for path in paths]
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
    """Bytes of all files in folders and zips; ``None`` with a tar, which would have to be read for that, and with a
    damaged zip.
    """
    if any(source.origin == "tar" for source in sources):
        return None
    try:
        return sum(entry.size for source in sources for entry in source.entries())
    except ArchiveError:
        return None


def _open(path: Path, dst: Path, limits: Limits, exclude: tuple[str, ...]) -> Source:
    try:
        place = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{path}: does not exist or cannot be reached; check the name") from error
    if place.is_dir():
        target = Path(os.path.realpath(dst))
        if target == place or target in place.parents:
            raise UsageError(f"{path}: lies in the archive {dst}; choose another place for one of them")
        inside = str(target.relative_to(place)) if place in target.parents else ""
        return FolderSource(place, place.name or "root", exclude, inside)
    name = place.name.lower()
    suffix = next((s for s in _TAR_SUFFIXES if name.endswith(s)), None)
    try:
        if place.is_file() and zipfile.is_zipfile(place) and suffix is None:
            return ZipSource(place, place.stem, limits, exclude)
        if place.is_file() and (suffix is not None or tarfile.is_tarfile(place)):
            stem = place.name[: -len(suffix)] if suffix else place.stem
            return TarSource(place, stem if is_safe(stem) else place.name, limits, exclude)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    raise UsageError(f"{path}: is no folder, .tar (.gz, .bz2, .xz) or .zip; put single files into a folder")
