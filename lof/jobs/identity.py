"""Whether a picture is the one that a stream was made of: where it lies, and what it holds."""

from __future__ import annotations

import os

from lof.errors import ImageError
from lof.files.inputs import Source
from lof.files.storage import Location, is_remote, sha256, size_and_version
from lof.jobs.manifest import Row, key
from lof.jobs.settings import JobSettings
from lof.report.figures import printable


def place_of(path: Location) -> str:
    """Where a source lies, as a manifest has it: an absolute path, links to folders resolved, or a URL."""
    if is_remote(path) and path.protocol not in ("file", "local"):
        return printable(str(path))  # without its password
    folder = path.parent.path if is_remote(path) else path.parent
    return key(os.path.join(os.path.realpath(folder), path.name))


def is_at_its_place(source: Source, row: Row) -> bool:
    """Whether a source lies where that of a row did, as far as is known: older versions did not write it down."""
    return row.place in ("", place_of(source.path))


def has_its_content(source: Source, row: Row) -> bool:
    """Whether a source holds what that of a row did.

    Raises:
        OSError: it cannot be read.
    """
    now = source.version or size_and_version(source.path)
    return (now is None or now[0] == row.size) and sha256(source.path) == row.sha256


def is_unchanged(source: Source, row: Row, settings: JobSettings) -> bool:
    """Whether the stream of a row is that of a source; its map counts too, where there is a folder of them."""
    now = source.version or size_and_version(source.path)
    try:
        if settings.regions and settings.regions.map_sha256(source.relative) != row.record.get("map_sha256"):
            return False
        # Pictures of other folders may have the same size and time.
        same = now == (row.size, row.mtime_ns) and is_at_its_place(source, row)
        return same or has_its_content(source, row)
    except (OSError, ImageError):
        return False
