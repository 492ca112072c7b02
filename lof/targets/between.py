"""Between two searches of one picture: latents of both, parted by a line through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from lof.codecs import Latents
from lof.targets.traded import CLOSE, PROBES
from lof.targets.trial import Trial, Trials, gap_of


def between(write: Trials, trials: Sequence[Trial]) -> list[Trial]:
    """Files with a share of one search and the rest of another, where the target lies between the two."""
    met = max((t for t in trials if t.gap <= 0 and t.latents), key=gap_of, default=None)
    missed = min((t for t in trials if t.gap > 0 and t.latents), key=gap_of, default=None)
    found: list[Trial] = []
    if met is None or missed is None:
        return found
    low, high, aimed = (0.0, missed.gap), (1.0, met.gap), -CLOSE / 2
    for _ in range(PROBES):
        if high[1] >= 2 * aimed:
            break
        share = low[0] + (high[0] - low[0]) * (low[1] - aimed) / (low[1] - high[1])
        latents = parted(missed.latents or {}, met.latents or {}, share)
        found.append(replace(write.written(met.writer, latents, met.lmbda), latents=None))
        if found[-1].gap <= 0:
            high = share, found[-1].gap
        else:
            low = share, found[-1].gap
    return found


def parted(one: Latents, other: Latents, share: float) -> Latents:
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
