"""Rate-distortion curves, and the Bjøntegaard deltas between two of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise

Curve = Sequence[tuple[float, float]]
"""Bits per pixel and PSNR in dB, by rising quality."""


def rises(curve: Curve) -> bool:
    """Whether rate and PSNR are finite and both grow from each point to the next."""
    finite = all(math.isfinite(value) for point in curve for value in point)
    return finite and all(a < b for low, high in pairwise(curve) for a, b in zip(low, high, strict=True))


def bjontegaard_deltas(anchor: Curve, test: Curve) -> tuple[float, float] | None:
    """BD-rate as a share and BD-PSNR in dB of two curves, by Akima interpolation (linear for two points).

    ``None`` where they are not defined: under two points, no rise, no overlap in rate or PSNR.
    """
    if min(len(anchor), len(test)) < 2 or not (rises(anchor) and rises(test)):
        return None
    lowest, highest = (zip(anchor[end], test[end], strict=True) for end in (0, -1))
    if any(max(low) >= min(high) for low, high in zip(lowest, highest, strict=True)):
        return None
    from bjontegaard import bd_psnr, bd_rate

    curves = [list(values) for curve in (anchor, test) for values in zip(*curve, strict=True)]
    settings = {"method": "akima", "min_overlap": 0, "require_matching_points": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where the curves share under 75 % of their range
        return float(bd_rate(*curves, **settings)) / 100, float(bd_psnr(*curves, **settings))
