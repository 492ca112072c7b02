"""A JPEG's coefficients at full size, as the filter takes them, and the picture that they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lof.codecs.jpeg.descriptors.config import FREQUENCIES
from lof.codecs.jpeg.planes import coefficients_of, doubled, plane_of, rgb_of


def coefficients_of_planes(luma: Tensor, chroma: Sequence[Tensor], divisors: tuple[int, int]) -> Tensor:
    """Coefficients of Y, Cb and Cr, colour upsampled as libjpeg-turbo does it, (B, h, w, 192) in grey levels.

    Args:
        luma: dequantised, (B, 64, h, w).
        chroma: of Cb and Cr, dequantised, with rows and columns divided.
    """
    planes = [doubled(plane_of(plane), divisors) for plane in chroma]
    rows, columns = (8 * side for side in luma.shape[-2:])
    full = [coefficients_of(plane[..., :rows, :columns]) for plane in planes]
    return torch.cat([luma, *full], 1).permute(0, 2, 3, 1).contiguous()


def transposed(coefficients: Tensor) -> Tensor:
    """Coefficients of the transposed picture, (B, w, h, 192) from (B, h, w, 192)."""
    rows, columns = coefficients.shape[1:3]
    blocks = coefficients.reshape(-1, rows, columns, 3, 8, 8)
    return blocks.permute(0, 2, 1, 3, 5, 4).flatten(3)


def transposed_tables(tables: Tensor) -> Tensor:
    """Steps for the transposed picture, (B, 2, 64)."""
    return tables.reshape(-1, 2, 8, 8).transpose(2, 3).flatten(2)


def samples_of(coefficients: Tensor) -> Tensor:
    """(B, h, w, 192) to Y, Cb and Cr, (B, 3, H, W), 0 for middle grey."""
    planes = coefficients.permute(0, 3, 1, 2).split(FREQUENCIES, 1)
    return torch.cat([plane_of(plane) for plane in planes], 1)


def picture_of(coefficients: Tensor) -> Tensor:
    """(B, h, w, 192) to (B, 3, H, W) in [0, 1], not clamped."""
    samples = samples_of(coefficients)
    return rgb_of(samples[:, :1], samples[:, 1:])
