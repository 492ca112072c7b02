"""What a codec gives, checked where lof takes it: a fault of the codec is one clear error, and no file is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lof.errors import LofError, LowMemoryError, SearchError, StreamError, one_line

if TYPE_CHECKING:
    from lof.codecs.base import Codec


def require_finite(codec: Codec, latents: Mapping[str, Tensor]) -> None:
    """Refuse latents that no integers can stand for.

    Args:
        latents: of any shapes, float, by name.

    Raises:
        SearchError: some are infinite or no numbers.
    """
    for name, tensor in latents.items():
        if not tensor.sum(dtype=torch.float64).isfinite():  # of a large picture no second tensor is made
            raise SearchError(
                f"codec {codec.name}: its latents of {name} are not finite for this image; correct its analyse"
            )


@contextmanager
def strings_read(name: str) -> Iterator[None]:
    """Turn what a decoder raises on strings into one clear error.

    Raises:
        StreamError: no encoder wrote these.
        LowMemoryError: too little memory is free, which says nothing about the strings.
    """
    try:
        yield
    except (RuntimeError, ValueError, IndexError, OverflowError, MemoryError) as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise LowMemoryError(
                f"the {name} decoder has too little memory; free some, lower --jobs, or use a larger machine"
            ) from error
        raise StreamError(f"the {name} decoder cannot read the strings ({error})") from error


def strings_of(codec: Codec, symbols: Mapping[str, Tensor]) -> list[bytes]:
    """What :meth:`Codec.compress` writes.

    Args:
        symbols: as it takes them.

    Raises:
        SearchError: some are missing, or it cannot write them, or gives something else than bytes.
    """
    for name in codec.latents:
        if name not in symbols:
            raise SearchError(
                f"codec {codec.name}: there are no symbols of {name}, which latents names; correct analyse and code"
            )
    try:
        strings = codec.compress(symbols)
    except (LofError, MemoryError):
        raise
    except Exception as error:
        largest = max(int(tensor.abs().max()) for tensor in symbols.values())
        raise SearchError(
            f"codec {codec.name}: compress fails on symbols of up to ±{largest} ({type(error).__name__}: "
            f"{one_line(error)}); where it cannot write such large ones, say so with symbol_limit"
        ) from error
    if not isinstance(strings, list | tuple):
        raise SearchError(
            f"codec {codec.name}: compress gives a {type(strings).__name__} where a list of strings belongs"
        )
    for string in strings:
        if not isinstance(string, bytes):
            raise SearchError(
                f"codec {codec.name}: compress gives a {type(string).__name__} where a string of bytes belongs"
            )
    return strings
