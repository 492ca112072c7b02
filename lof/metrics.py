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
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


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
        if a.shape[0] * a.shape[1] > _CHUNK:
            return _ms_ssim_in_strips(a, b)
        x, y = (torch.tensor(image).permute(2, 0, 1)[None].float() for image in (a, b))
        return float(pytorch_msssim.ms_ssim(x, y, data_range=255))


def _ms_ssim_in_strips(a: Pixels, b: Pixels) -> float:
    """:func:`ms_ssim` of a large image, whose maps would need 200 bytes for a pixel, by strips of its rows."""
    import torch
    import torch.nn.functional as F

    kernel = torch.exp(-((torch.arange(11.0) - 5) ** 2) / (2 * 1.5**2))
    kernel = (kernel / kernel.sum()).repeat(3, 1, 1, 1)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def blurred(x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.conv2d(x, kernel.transpose(2, 3), groups=3), kernel, groups=3)

    def floats(x: torch.Tensor, top: int, end: int) -> torch.Tensor:
        return x[:, :, max(top, 0) : end].float()

    x, y = (torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None] for image in (a, b))
    product = torch.ones(3, dtype=torch.float64)
    for level, weight in enumerate(_WEIGHTS):
        height, width = x.shape[2:]
        sums = torch.zeros(2, 3, dtype=torch.float64)
        rows = max(2, _CHUNK // 4 // width)
        halves: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        for top in range(0, height - 10, rows):
            p, q = (floats(image, top, min(top + rows, height - 10) + 10) for image in (x, y))
            mu, nu = blurred(p), blurred(q)
            spread = blurred(p * p) - mu * mu + blurred(q * q) - nu * nu
            contrast = (2 * (blurred(p * q) - mu * nu) + c2) / (spread + c2)
            likeness = contrast * (2 * mu * nu + c1) / (mu * mu + nu * nu + c1)
            sums += torch.stack([one.sum((0, 2, 3), dtype=torch.float64) for one in (contrast, likeness)])
        mean = sums[int(level == len(_WEIGHTS) - 1)] / ((height - 10) * (width - 10))
        product *= mean.clamp_min(0) ** weight
        for image, half in zip((x, y), halves, strict=True):
            # An odd side gets a zero before its first place, as avg_pool2d's padding does.
            for top in range(-(height % 2), height - 1, rows // 2 * 2):
                strip = floats(image, top, min(top + rows // 2 * 2, height))
                half.append(F.avg_pool2d(F.pad(strip, (width % 2, 0, max(-top, 0), 0)), 2))
        x, y = (torch.cat(half, 2) for half in halves)
    return float(product.mean())


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
