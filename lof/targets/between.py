"""Between two searches of one picture: latents of both, parted by a line through it."""

from __future__ import annotations

import torch

from lof.codecs import Latents


def between(one: Latents, other: Latents, share: float) -> Latents:
    """``other`` in a share of the places, row by row from the top, and ``one`` in the rest.

    Two searches for nearly the same target are equally good everywhere, so that a part of each is as good as either,
    and its size and its error lie between theirs.

    Args:
        one, other: (1, C, h, w) by name, the same shapes in both.
        share: 0 to 1.
    """
    found = {}
    for name, tensor in one.items():
        rows, columns = tensor.shape[2:]
        places = torch.arange(rows * columns, device=tensor.device).reshape(rows, columns)
        found[name] = torch.where(places < round(share * rows * columns), other[name], tensor)
    return found
