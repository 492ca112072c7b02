"""Names: what a member of a source may be called, and where its object lies in the archive."""

from __future__ import annotations

import hashlib

_MOST_BYTES = 255  # of one part of a path, on nearly every file system
_ELSEWHERE = "~"


def safe_parts(name: str) -> tuple[str, ...] | None:
    """The parts of a relative name, without ``.`` and doubled slashes; ``None`` where it is not safe.

    Not safe is what is absolute, leads upwards at any part, is empty, or holds a NUL.
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or "\0" in name or not parts:
        return None
    return parts


def is_safe(path: str) -> bool:
    """Whether a path of a manifest is one that lof has written: relative, without ``.``, ``..`` and ``//``."""
    parts = safe_parts(path)
    return parts is not None and "/".join(parts) == path


def stays_inside(path: str, link: str) -> bool:
    """Whether the symbolic link at ``path`` with the text ``link`` leads to a place inside the tree.

    The folders above a restored link are real ones, so ``..`` at the beginning of the text climbs as far as it says.
    After any other name a ``..`` may climb out of wherever that name, itself a link, leads: such texts are refused.

    Args:
        path: relative to the top of the archive; its first part, the source's name, is the tree.
    """
    parts = [part for part in link.split("/") if part not in ("", ".")]
    up = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    return not link.startswith("/") and link != "" and up <= path.count("/") - 1 and ".." not in parts[up:]


def object_name(area: str, path: str, suffix: str = "") -> str:
    """Where the object of ``path`` belongs in the archive: ``streams/photos/a.jpg.lof``.

    A name that no file system would take gives way to a hash.
    """
    if any(len(to_bytes(part)) > _MOST_BYTES for part in (path + suffix).split("/")):
        return hashed_name(area, path, suffix)
    return f"{area}/{path}{suffix}"


def hashed_name(area: str, path: str, suffix: str = "") -> str:
    """Where the object lies if its own name is too long, or a file stands where it needs a folder."""
    return f"{area}/{_ELSEWHERE}/{hashlib.sha256(to_bytes(path)).hexdigest()}{suffix}"


def to_bytes(name: str) -> bytes:
    """A name as its file system holds it; names that are no UTF-8 come as lone surrogates."""
    return name.encode("utf-8", "surrogateescape")


def from_bytes(name: bytes) -> str:
    """Inverse of :func:`to_bytes`."""
    return name.decode("utf-8", "surrogateescape")
