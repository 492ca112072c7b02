"""The codec's latents: tables, levels of three planes and the sampling of colour, as tensors of fixed shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lof.codecs.base import Latents
from lof.codecs.jpeg.files import Coefficients, Sampling
from lof.codecs.jpeg.planes import BLOCK, coefficients_of, ycbcr_of

PLANES: Final = ("y", "cb", "cr")


def levels_of(images: Tensor, tables: Tensor, sampling: Sampling) -> Latents:
    """Unrounded levels of images, (B, 3, H, W) in [0, 1], H and W multiples of 8; as the latents have them.

    Args:
        tables: (B, 2, 8, 8).
    """
    samples = ycbcr_of(images)
    steps = tables.flatten(2)[..., None, None]
    luma, chroma = samples[:, :1], samples[:, 1:]
    rows, columns = luma.shape[-2:]
    if sampling == Sampling.GREY:
        chroma = torch.zeros_like(chroma)
    down, across = sampling.divisors
    even = F.pad(chroma, (0, columns % (BLOCK * across), 0, rows % (BLOCK * down)), mode="replicate")
    chroma = F.avg_pool2d(even, (down, across))
    planes = [luma, chroma[:, :1], chroma[:, 1:]]
    found = {}
    for index, (name, plane) in enumerate(zip(PLANES, planes, strict=True)):
        levels = coefficients_of(plane) / steps[:, min(index, 1)]
        spare = (0, columns // BLOCK - levels.shape[3], 0, rows // BLOCK - levels.shape[2])
        found[name] = F.pad(levels, spare)
    return found


def latents_of(found: Coefficients) -> Latents:
    """What a file has, as latents of one image; their steps are the tables' own."""
    rows, columns = found.planes[0].shape[:2]
    latents = {"tables": torch.from_numpy(found.tables.astype(np.float32))[None]}
    for name, plane in zip(PLANES, found.planes, strict=False):
        levels = torch.from_numpy(plane.astype(np.float32)).flatten(2).permute(2, 0, 1)[None]
        latents[name] = F.pad(levels, (0, columns - levels.shape[3], 0, rows - levels.shape[2]))
    for name in PLANES[len(found.planes) :]:
        latents[name] = torch.zeros_like(latents["y"])
    return latents | {"halved": torch.full((1, 1, 1, 1), float(found.sampling))}


def samplings_of(halved: Tensor) -> list[Sampling]:
    """Of each image, from the latents ``halved``, (B, 1, 1, 1)."""
    return [Sampling(round(min(max(value, 0), Sampling.GREY))) for value in halved.flatten().tolist()]


def used(halved: Tensor, levels: Tensor) -> Tensor:
    """1 for the blocks of a colour plane that are in the file, 0 for the others; (B, 1, h, w)."""
    mask = torch.zeros_like(levels[:, :1])
    for index, sampling in enumerate(samplings_of(halved)):
        mask[index][used_blocks(levels, sampling)] = 1
    return mask


def used_blocks(levels: Tensor, sampling: Sampling) -> tuple[Any, ...]:
    """An index of the blocks of a colour plane among (…, h, w)."""
    rows, columns = (0, 0) if sampling == Sampling.GREY else levels.shape[-2:]
    down, across = sampling.divisors
    return ..., slice(-(-rows // down)), slice(-(-columns // across))


def coefficients_in(latents: Mapping[str, Tensor], height: int, width: int) -> Coefficients:
    """Inverse of :func:`latents_of`, for whole numbers in any dtype."""
    (sampling,) = samplings_of(latents["halved"])
    planes = []
    for name in PLANES if sampling != Sampling.GREY else PLANES[:1]:
        part = used_blocks(latents[name], Sampling.FULL if name == "y" else sampling)
        blocks = latents[name][0][part].permute(1, 2, 0)
        planes.append(blocks.reshape(*blocks.shape[:2], BLOCK, BLOCK).cpu().numpy().astype(np.int16))
    tables = latents["tables"][0].cpu().numpy().astype(np.uint16)
    return Coefficients(height, width, tuple(planes), tables, sampling)
