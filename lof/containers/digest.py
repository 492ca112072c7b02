"""A short digest of a stream's symbols: did this decoder read what the encoder wrote?

An entropy decoder that computes one table differently from the encoder reads noise from there on, and nothing
in the strings shows it. The digest does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lof.containers.base import Stream
from lof.errors import StreamError

SIZE: Final = 4
NO_WEIGHTS: Final = hashlib.sha256().digest()[:4]
"""What files of a codec without weights have as their fingerprint."""


def symbols_digest(symbols: Mapping[str, NDArray[np.integer[Any]]]) -> bytes:
    """The first 4 bytes of the SHA-256 over the symbols of one image.

    The bytes that are hashed, for each latent tensor in the order in which the codec decodes them (``z`` before
    ``y``, as in :attr:`lof.codecs.Codec.latents`)::

        1               n, the length of the tensor's name
        n               the name, ASCII
        4, 4, 4         channels, rows and columns: C, h, w, each uint32, little-endian
        4 · C · h · w   the symbols, each int32 in two's complement, little-endian; columns change fastest, then
                        rows, then channels

    A symbol that needs more than 32 bits counts modulo 2^32.

    Args:
        symbols: by name, in that order: (C, h, w) or (1, C, h, w), integers.
    """
    digest = hashlib.sha256()
    for name, given in symbols.items():
        array = np.asarray(given)
        if not np.issubdtype(array.dtype, np.integer):
            raise TypeError(f"the symbols of {name} are {array.dtype}, not integers")
        channels, rows, columns = array.shape[-3:]
        if array.size != channels * rows * columns:
            raise ValueError(f"the symbols of {name} are those of several images: {array.shape}")
        digest.update(bytes([len(name)]) + name.encode("ascii"))
        digest.update(np.array([channels, rows, columns], "<u4").tobytes())
        digest.update(np.ascontiguousarray(array, "<i4").data)
    return digest.digest()[:SIZE]


def check_digest(
    stream: Stream, symbols: Mapping[str, NDArray[np.integer[Any]]], name: str, *, portable: bool = False
) -> None:
    """Refuse symbols that are not those that were written. A container without a digest cannot tell.

    Args:
        symbols: what the codec read from ``stream``, as for :func:`symbols_digest`.
        portable: whether every CPU reads the same symbols of this codec, so that the CPU is not to blame.

    Raises:
        StreamError: they are others; the message starts with ``name``.
    """
    if stream.digest and symbols_digest(symbols) != stream.digest:
        # Without weights there are no tables that a CPU might compute otherwise.
        if portable or stream.fingerprint in (b"", NO_WEIGHTS):
            raise StreamError(
                f"{name}: other symbols come out than were written: it is damaged, was changed by another program, or "
                f"was written by another version of {stream.codec}; copy it again from its source, or use that version"
            )
        raise StreamError(
            f"{name}: decodes to noise here, since other symbols come out than were written: this CPU computes the "
            f"entropy tables of {stream.codec} a little differently from the writer's, or the file was damaged before "
            "it was sealed; decode it on a machine like the writer's, or write it again without --no-portable, or with "
            "a codec that every CPU reads"
        )
