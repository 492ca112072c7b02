"""What decode, inspect and verify share: which files they mean, and reading them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from lof.containers import SUFFIXES
from lof.errors import StreamError
from lof.files.inputs import Source, find
from lof.files.storage import Location, read_bytes

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


def read_stream(path: Location) -> bytes:
    """The bytes of a stream.

    Raises:
        StreamError: it is not there or cannot be read.
    """
    try:
        return read_bytes(path)
    except FileNotFoundError as error:
        raise StreamError(f"{path}: does not exist; check the name") from error
    except IsADirectoryError as error:
        raise StreamError(f"{path}: is a folder; name a file in it") from error
    except OSError as error:
        raise StreamError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
