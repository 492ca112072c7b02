"""What decode, inspect, repack and verify share: which files they mean, reading them, and writing what is new."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import typer

from lof.containers import SUFFIXES, container_of
from lof.errors import OutputError, StreamError
from lof.files.atomic import write_atomically
from lof.files.inputs import Source, find
from lof.files.storage import Location, is_remote, open_read, read_bytes
from lof.machine.memory import require_memory

Inputs = Annotated[
    list[str],
    typer.Argument(
        help=f"Streams ({', '.join(SUFFIXES)}), folders or quoted globs.",
        metavar="INPUTS",
        show_default=False,
    ),
]


def find_streams(inputs: Sequence[str]) -> list[Source]:
    """The files that ``inputs`` name; in folders, those that end like a stream.

    Raises:
        UsageError: see :func:`lof.files.inputs.find`.
    """
    return find(inputs, frozenset(SUFFIXES)).sources


def read_stream(path: Location, *, any_kind: bool = False) -> bytes:
    """The bytes of a stream. A file here that is none, or too large, is not read.

    Args:
        any_kind: whether it may also be something else, such as another image.

    Raises:
        StreamError: it is not there, cannot be read, or is no stream.
        LowMemoryError: less memory is free than it has bytes.
    """
    try:
        if not is_remote(path):
            with open_read(path) as file:
                head, size = file.read(4), file.seek(0, os.SEEK_END)
            if not any_kind:
                container_of(head, str(path))
            require_memory(size, None, str(path), "decode")
        return read_bytes(path)
    except FileNotFoundError as error:
        raise StreamError(f"{path}: does not exist; check the name") from error
    except IsADirectoryError as error:
        raise StreamError(f"{path}: is a folder; name a file in it") from error
    except OSError as error:
        raise StreamError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def write_new(target: Location, data: bytes, *, force: bool) -> bool:
    """Write a file unless it is there already; whether it had to be written.

    Raises:
        OutputError: another file is there, and ``force`` is off; or it cannot be written.
    """
    try:
        there = read_bytes(target)
    except (FileNotFoundError, NotADirectoryError):
        there = None
    except OSError as error:
        raise OutputError(
            f"{target}: cannot be read ({error.strerror}); choose another place with -o"
        ) from error
    if there == data:
        return False
    if there is not None and not force:
        raise OutputError(f"{target}: is another file already; choose another place with -o, or add --force")
    write_atomically(target, data)
    return True
