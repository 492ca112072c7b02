"""What a codec gives, checked where lof takes it: a fault of the codec is one clear error, and no file is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lof.errors import LofError, SearchError, one_line

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


def strings_of(codec: Codec, symbols: Mapping[str, Tensor]) -> list[bytes]:
    """What :meth:`Codec.compress` writes.

    Args:
        symbols: as it takes them.

    Raises:
        SearchError: it cannot write them, or gives something else than bytes.
    """
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
    for string in strings:
        if not isinstance(string, bytes):
            raise SearchError(
                f"codec {codec.name}: compress gives a {type(string).__name__} where a string of bytes belongs"
            )
    return strings
