"""What a stream decoded to when it was written, in two digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from lof.results import Pixels


def pixels_digest(pixels: Pixels) -> str:
    """SHA-256 over the size and the bytes of an image, (H, W, 3) uint8."""
    digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]} ".encode())
    digest.update(pixels.tobytes())
    return digest.hexdigest()


def symbols_digest(symbols: Mapping[str, ArrayLike]) -> str:
    """SHA-256 over the names, the shapes and the values, as little-endian int64, of a stream's symbols."""
    digest = hashlib.sha256()
    for name, given in sorted(symbols.items()):
        array = np.asarray(given, "<i8")
        digest.update(f"{name} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
