"""Graphics among the crops of a training: networks that have seen photographs alone ruin what has hard edges."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_GRAINS: Final = (1, 2, 3, 8)
"""Pixels a side of what is of one colour, in noise and patterns."""
_WHOLE: Final = 0.5
"""The share of batches whose graphics fill the crop; in others they are a rectangle in it."""


def some_graphic(images: Tensor, share: float) -> Tensor:
    """Images, (B, 3, H, W), about a share of them graphics of two colours: outlines of a photograph, noise, patterns.

    Patterns are checkerboards and lines.
    """
    (count, _, height, width), device = images.shape, images.device
    outlines = images[torch.arange(count), torch.randint(3, (count,), device=device)][:, None]
    grain = _GRAINS[int(torch.randint(len(_GRAINS), ()))]
    rows, columns = (torch.arange(side, device=device) // grain for side in (height, width))
    noise = torch.rand(count, 1, height, width, device=device)[..., rows, :][..., columns]
    lines = int(torch.randint(1, 4, ()))  # of rows, of columns, or both
    pattern = ((lines & 1) * rows[:, None] + (lines >> 1) * columns) % 2
    kind = torch.randint(3, (count, 1, 1, 1), device=device)
    field = torch.where(kind == 0, outlines, torch.where(kind == 1, noise, pattern.to(images)))
    dark, light = torch.rand(2, count, 3, 1, 1, device=device)
    graphic = torch.where(field > field.mean((2, 3), keepdim=True), light, dark)
    part = torch.ones(height, width, dtype=torch.bool, device=device)
    if float(torch.rand(())) >= _WHOLE:
        (top, bottom), (left, right) = (
            torch.randint(side + 1, (2,)).sort()[0].tolist() for side in (height, width)
        )
        part[:top], part[bottom:], part[:, :left], part[:, right:] = False, False, False, False
    chosen = torch.rand(count, 1, 1, 1, device=device) < share
    return torch.where(chosen & part, graphic, images)
