"""The codec's latents: tables, levels of three planes and whether colour is halved, as tensors of fixed shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lof.codecs.base import Latents
from lof.codecs.jpeg.files import Coefficients
from lof.codecs.jpeg.planes import BLOCK, coefficients_of, ycbcr_of

PLANES: Final = ("y", "cb", "cr")


def levels_of(images: Tensor, tables: Tensor, *, halved: bool) -> Latents:
    """Unrounded levels of images, (B, 3, H, W) in [0, 1], H and W multiples of 8; as the latents have them.

    Args:
        tables: (B, 2, 8, 8).
    """
    samples = ycbcr_of(images)
    steps = tables.flatten(2)[..., None, None]
    luma, chroma = samples[:, :1], samples[:, 1:]
    rows, columns = luma.shape[-2:]
    if halved:
        even = F.pad(chroma, (0, columns % 16, 0, rows % 16), mode="replicate")
        chroma = F.avg_pool2d(even, 2)
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
    for name, plane in zip(PLANES, found.planes, strict=True):
        levels = torch.from_numpy(plane.astype(np.float32)).flatten(2).permute(2, 0, 1)[None]
        latents[name] = F.pad(levels, (0, columns - levels.shape[3], 0, rows - levels.shape[2]))
    return latents | {"halved": torch.full((1, 1, 1, 1), float(found.halved))}


def used(halved: Tensor, levels: Tensor) -> Tensor:
    """1 for the blocks of a colour plane that are in the file, 0 for the others; (B, 1, h, w)."""
    quarter = torch.zeros_like(levels[:1, :1])
    quarter[used_blocks(levels, True)] = 1
    return torch.where(halved.detach() > 0.5, quarter, torch.ones_like(quarter))


def used_blocks(levels: Tensor, halved: object) -> tuple[Any, ...]:
    """An index of those blocks among (…, h, w)."""
    rows, columns = levels.shape[-2:]
    return (..., slice(-(-rows // 2)), slice(-(-columns // 2))) if halved else (...,)


def coefficients_in(latents: Mapping[str, Tensor], height: int, width: int) -> Coefficients:
    """Inverse of :func:`latents_of`, for whole numbers in any dtype."""
    halved = bool(latents["halved"].flatten()[0] > 0.5)
    planes = []
    for name in PLANES:
        blocks = latents[name][0][used_blocks(latents[name], halved and name != "y")].permute(1, 2, 0)
        planes.append(blocks.reshape(*blocks.shape[:2], BLOCK, BLOCK).cpu().numpy().astype(np.int16))
    tables = latents["tables"][0].cpu().numpy().astype(np.uint16)
    return Coefficients(height, width, (planes[0], planes[1], planes[2]), tables, halved)
