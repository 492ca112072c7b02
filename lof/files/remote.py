"""What an input that is a URL holds: a file, or a tree that one listing of the store gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lof.errors import UsageError
from lof.files.storage import Location, is_file, is_remote, parse, walk

if TYPE_CHECKING:
    from upath import UPath

Version = tuple[int, int]


@dataclass(frozen=True)
class RemoteTree:
    """A folder of a store, or what a glob selects below one; hidden files and folders are left out."""

    base: UPath
    pattern: tuple[str, ...] | None
    files: dict[str, Version]

    def walk(self, exclude: Location | None) -> Iterator[tuple[tuple[str, ...], Version]]:
        """Parts below the base and version of every file, sorted by parts."""
        hidden = () if exclude is None else self._below(exclude)
        for parts, version in sorted(
            (tuple(name.split("/")), version) for name, version in self.files.items()
        ):
            if any(part.startswith(".") for part in parts) or (hidden and parts[: len(hidden)] == hidden):
                continue
            yield parts, version

    def _below(self, folder: Location) -> tuple[str, ...]:
        base, other = (str(place).rstrip("/") + "/" for place in (self.base, folder))
        return tuple(other.removeprefix(base).strip("/").split("/")) if other.startswith(base) else ()


def look(text: str) -> UPath | RemoteTree:
    """The file or the tree that a URL names.

    Raises:
        UsageError: there is no such thing, it cannot be read, or nobody knows the protocol.
    """
    base, pattern = _split(text)
    location = parse(base)
    assert is_remote(location)
    try:
        if pattern is None and is_file(location):
            return location
        files = walk(location)
    except OSError as error:
        raise UsageError(
            f"{text}: cannot be read ({error.strerror}); check the name, the network and the credentials"
        ) from error
    if not files:
        raise UsageError(f"{text}: does not exist or is empty; check the name")
    return RemoteTree(location, pattern, files)


def _split(text: str) -> tuple[str, tuple[str, ...] | None]:
    """A URL before its first part with a wildcard, and the parts from there on."""
    scheme, _, path = text.partition("://")
    parts = path.split("/")
    first = next((i for i, part in enumerate(parts) if any(sign in part for sign in "*?[")), None)
    if first is None:
        return text, None
    return f"{scheme}://{'/'.join(parts[:first])}", tuple(parts[first:])
