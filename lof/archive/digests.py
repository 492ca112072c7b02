"""What a stream decoded to when it was written, in two digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lof.results import Pixels

if TYPE_CHECKING:
    from torch import Tensor


def pixels_digest(pixels: Pixels) -> str:
    """SHA-256 over the size and the bytes of an image, (H, W, 3) uint8."""
    digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]} ".encode())
    digest.update(pixels.tobytes())
    return digest.hexdigest()


def symbols_digest(symbols: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, the shapes and the values, as little-endian int64, of a stream's symbols."""
    digest = hashlib.sha256()
    for name, tensor in sorted(symbols.items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().numpy().astype("<i8", copy=False).tobytes())
    return digest.hexdigest()
