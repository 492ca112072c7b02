"""Rate and distortion, measured on what is real: file lengths and 8-bit images."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from lof.errors import ImageError
from lof.results import Pixels

MS_SSIM_MIN_SIDE = 161  # five scales of an 11-pixel window: (11 - 1)·2⁴ must be less than the shorter side
SSIMULACRA2_MIN_SIDE = 8
_CHUNK = 1 << 22


def mse(a: Pixels, b: Pixels) -> float:
    """Mean squared error in squared grey levels (0…65025), exact before its one division.

    Args:
        a: ``(H, W, 3)`` uint8.
        b: the same shape.

    Raises:
        ImageError: the shapes differ.
    """
    _check_same_shape(a, b)
    rows = max(1, _CHUNK // max(1, a[0].size))
    total = 0
    for top in range(0, a.shape[0], rows):
        difference = a[top : top + rows].astype(np.int32) - b[top : top + rows]
        total += int(np.square(difference).sum(dtype=np.int64))
    return total / a.size


def psnr(mse: float) -> float:
    """``10 log10(255² / mse)`` in dB; infinity for 0."""
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def ms_ssim(a: Pixels, b: Pixels) -> float | None:
    """Multi-scale SSIM of RGB in 0…1 (Wang et al. 2003), or ``None`` where the shorter side is under 161.

    The mean over the three channels, as CompressAI's evaluation has it.

    Args:
        a: ``(H, W, 3)`` uint8.
        b: the same shape.

    Raises:
        ImageError: the shapes differ.
    """
    _check_same_shape(a, b)
    if min(a.shape[:2]) < MS_SSIM_MIN_SIDE:
        return None
    import pytorch_msssim
    import torch

    with torch.inference_mode():
        x, y = (torch.tensor(image).permute(2, 0, 1)[None].float() for image in (a, b))
        return float(pytorch_msssim.ms_ssim(x, y, data_range=255))


def ssimulacra2(a: Pixels, b: Pixels) -> float | None:
    """SSIMULACRA2, 100 for equal pictures and less the worse, also below 0; ``None`` for a side under 8.

    Takes some 10 seconds and 500 MB for a megapixel.

    Args:
        a: ``(H, W, 3)`` uint8, the original.
        b: the same shape.

    Raises:
        ImageError: the shapes differ.
        ImportError: the package ssimulacra2 is not installed.
    """
    _check_same_shape(a, b)
    if min(a.shape[:2]) < SSIMULACRA2_MIN_SIDE:
        return None
    from ssimulacra2 import compute_ssimulacra2

    files = [io.BytesIO(), io.BytesIO()]
    for file, pixels in zip(files, (a, b), strict=True):
        Image.fromarray(pixels).save(file, "PPM")
    return float(compute_ssimulacra2(*files))


def bpp(size_bytes: int, height: int, width: int) -> float:
    """Bits per pixel of a file of ``size_bytes`` bytes."""
    return 8 * size_bytes / (height * width)


def _check_same_shape(a: Pixels, b: Pixels) -> None:
    if a.shape != b.shape:
        raise ImageError(f"images of {a.shape} and {b.shape} cannot be compared; give two of the same size")
