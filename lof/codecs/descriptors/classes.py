"""What a descriptor is: a number from 0 to 15 for a square of 16×16 pixels."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

NAME: Final = "descriptors"
"""Of the latent tensor, (B, 1, h, w)."""
CLASSES: Final = 16
"""Descriptors are 0 to 15; 0 leaves the filter as it is, the last one the picture."""
OFF: Final = CLASSES - 1
"""The descriptor of what no filter improves, as hard edges of graphics."""
SHORT: Final = {0: b"", OFF: bytes([OFF])}
"""Strings of maps that are all alike: of the filter as it is, and of none."""
SIDE: Final = 16
"""Pixels for which a descriptor stands, a side."""


def one_hot(chosen: Tensor) -> Tensor:
    """Descriptors, (B, 1, h, w), to one-hot vectors, (B, h, w, 16); a gradient says what the next one would bring."""
    whole = torch.round(chosen[:, 0].detach()).long().clamp(0, CLASSES - 1)
    hot = F.one_hot(whole, CLASSES).float()
    if not chosen.requires_grad:
        return hot
    following = F.one_hot((whole + 1) % CLASSES, CLASSES).float()
    return hot + (chosen[:, 0] - chosen[:, 0].detach())[..., None] * (following - hot)


def repeated(x: Tensor, times: int) -> Tensor:
    """Each place of (B, h, w, C) in so many rows and columns."""
    return x.repeat_interleave(times, 1).repeat_interleave(times, 2)
