"""Which part of a picture to show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_STEP = 32
_ROWS = 256  # of a large picture at a time


def heaviest_cut(weights: NDArray[Any], rows: int, columns: int) -> tuple[slice, slice]:
    """The cut of up to ``rows``×``columns`` with the greatest sum of weights, (H, W), on a grid of 32 pixels."""
    height, width = weights.shape
    tops = np.minimum(np.arange(0, max(1, height - rows + _STEP), _STEP), max(0, height - rows))[:, None]
    lefts = np.minimum(np.arange(0, max(1, width - columns + _STEP), _STEP), max(0, width - columns))
    bottoms, rights = np.minimum(tops + rows, height), np.minimum(lefts + columns, width)
    # Sums over all that is above and to the left, of which four give that of any cut; only where cuts begin and end.
    edges = np.unique([lefts, rights])
    sums = np.zeros((height + 1, len(edges)))
    for top in range(0, height, _ROWS):
        strip = weights[top : top + _ROWS].cumsum(1, dtype=np.float64)
        sums[top + 1 : top + 1 + len(strip)] = np.pad(strip, ((0, 0), (1, 0)))[:, edges]
    sums.cumsum(0, out=sums)
    left, right = np.searchsorted(edges, lefts), np.searchsorted(edges, rights)
    found = sums[bottoms, right] - sums[tops, right] - sums[bottoms, left] + sums[tops, left]
    row, column = np.unravel_index(found.argmax(), found.shape)
    above, before = int(tops[row, 0]), int(lefts[column])
    return slice(above, min(above + rows, height)), slice(before, min(before + columns, width))
