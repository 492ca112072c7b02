"""File formats: how a codec's strings, the image's size and its metadata become one file.

The only room that knows formats by name. A new one is a subclass of :class:`Container` in a module of its own,
and a line in :data:`CONTAINERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from lof.containers.base import (
    MAX_PIXELS,
    Container,
    Stream,
)
from lof.containers.compressai import CompressAIContainer
from lof.containers.jpeg import JpegContainer
from lof.containers.lof import LofContainer
from lof.errors import StreamError, UsageError

CONTAINERS: Final[Mapping[str, Container]] = MappingProxyType(
    {known.name: known for known in (LofContainer(), JpegContainer(), CompressAIContainer())}
)
"""All containers by name. The first to recognise a file reads it, so those with a magic number come first."""

DEFAULT_CONTAINER: Final = LofContainer.name
SUFFIXES: Final = tuple(known.suffix for known in CONTAINERS.values())

__all__ = [
    "CONTAINERS",
    "DEFAULT_CONTAINER",
    "MAX_PIXELS",
    "SUFFIXES",
    "Container",
    "Stream",
    "container",
    "container_for",
    "container_of",
    "unpack",
]


def container(name: str) -> Container:
    """The container of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in CONTAINERS:
        raise UsageError(f"format {name!r}: unknown; use one of {', '.join(CONTAINERS)}")
    return CONTAINERS[name]


def container_for(codec: str) -> str:
    """The name of the container that streams of this codec are written in unless another is asked for."""
    return next((known.name for known in CONTAINERS.values() if known.is_native(codec)), DEFAULT_CONTAINER)


def container_of(data: bytes, name: str = "stream") -> Container:
    """The container that the file ``data`` is in; its first 4 bytes suffice.

    Raises:
        StreamError: none that lof knows; the message starts with ``name``.
        UsageError: these are no bytes, but perhaps the path of a file.
    """
    if not isinstance(data, bytes | bytearray):
        raise UsageError(
            f"{name}: is a {type(data).__name__}; give the bytes of a file, as Path(…).read_bytes()"
        )
    found = next((known for known in CONTAINERS.values() if known.recognises(data)), None)
    if found is None:
        what = "is no stream" if data else "is empty"
        kinds = " or ".join(known.summary for known in CONTAINERS.values())
        raise StreamError(f"{name}: {what} ({kinds} would be one); check the path")
    return found


def unpack(data: bytes, name: str = "stream", max_pixels: int = MAX_PIXELS) -> Stream:
    """What a file in any container says; see :meth:`Container.unpack`.

    Raises:
        StreamError: it is no stream, or damaged; the message starts with ``name``.
    """
    return container_of(data, name).unpack(bytes(data), name, max_pixels)
