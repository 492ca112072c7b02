"""The decoder as something that can be differentiated: dequantised coefficients to RGB, as libjpeg-turbo does it.

Without its rounding between the stages. All is linear, so that the gradient of a distortion is exact.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK: Final = 8
_COS: Final = torch.tensor(
    [
        [
            math.sqrt((1 if u == 0 else 2) / BLOCK) * math.cos((2 * x + 1) * u * math.pi / 16)
            for x in range(BLOCK)
        ]
        for u in range(BLOCK)
    ],
    dtype=torch.float64,
)
_WAVES: Final = torch.kron(_COS, _COS).float()
"""(64, 64): frequencies in natural order × pixels of a block, orthonormal."""
TO_RGB: Final = torch.tensor([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])
"""R, G, B of Y, Cb, Cr."""


def plane_of(coefficients: Tensor) -> Tensor:
    """(B, 64, h, w) dequantised to samples (B, 1, 8h, 8w), 0 for middle grey."""
    blocks = torch.einsum("fp,bfhw->bphw", _WAVES.to(coefficients), coefficients)
    return F.pixel_shuffle(blocks, BLOCK)


def coefficients_of(plane: Tensor) -> Tensor:
    """Inverse of :func:`plane_of`."""
    return torch.einsum("fp,bphw->bfhw", _WAVES.to(plane), F.pixel_unshuffle(plane, BLOCK))


def doubled(plane: Tensor, divisors: tuple[int, int]) -> Tensor:
    """Rows and columns that were halved, doubled by libjpeg-turbo's "fancy" upsampling: a quarter from the farther
    neighbour.

    Args:
        divisors: by what rows and columns were divided, 1 or 2.
    """
    for rows, divisor in zip((True, False), divisors, strict=True):
        if divisor == 1:
            continue
        plane = plane if rows else plane.transpose(2, 3)
        padded = F.pad(plane, (0, 0, 1, 1), mode="replicate")
        near = 0.75 * plane
        pair = torch.stack([near + 0.25 * padded[:, :, :-2], near + 0.25 * padded[:, :, 2:]], 3)
        plane = pair.flatten(2, 3)
        plane = plane if rows else plane.transpose(2, 3)
    return plane


def rgb_of(luma: Tensor, chroma: Tensor) -> Tensor:
    """(B, 1, H, W) and (B, 2, H, W) samples around 0 to (B, 3, H, W) in [0, 1], not clamped."""
    samples = torch.cat([luma + 128, chroma], 1)
    return torch.einsum("cs,bshw->bchw", TO_RGB.to(luma), samples) / 255


def ycbcr_of(images: Tensor) -> Tensor:
    """Inverse of :func:`rgb_of`: (B, 3, H, W) in [0, 1] to samples of Y, Cb, Cr around 0."""
    inverse = torch.linalg.inv(TO_RGB.double()).to(images)
    samples = torch.einsum("sc,bchw->bshw", inverse, images * 255)
    return samples - torch.tensor([128.0, 0, 0]).to(samples).reshape(1, 3, 1, 1)


def gains(divisors: tuple[int, int]) -> Tensor:
    """(3, 64): squared error in grey levels, over R, G and B, of a coefficient of Y, Cb or Cr that is off by 1.

    Of planes with half the rows or columns it is what the upsampling makes of a wave, on the average of its phases.
    """
    colour = TO_RGB.square().sum(0)
    halved = 1.25 + 0.75 * torch.cos(torch.arange(BLOCK) * math.pi / BLOCK)
    down, across = (halved if divisor == 2 else torch.ones(BLOCK) for divisor in divisors)
    waves = torch.outer(down, across).flatten()
    return colour[:, None] * torch.stack([torch.ones(64), waves, waves])
