"""Which part of a picture to show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_STEP = 32


def heaviest_cut(weights: NDArray[Any], rows: int, columns: int) -> tuple[slice, slice]:
    """The cut of up to ``rows``×``columns`` with the greatest sum of weights, (H, W), on a grid of 32 pixels."""
    # Sums over all that is above and to the left, of which four give that of any cut.
    sums = np.pad(weights.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    height, width = weights.shape
    tops = np.minimum(np.arange(0, max(1, height - rows + _STEP), _STEP), max(0, height - rows))[:, None]
    lefts = np.minimum(np.arange(0, max(1, width - columns + _STEP), _STEP), max(0, width - columns))
    bottoms, rights = np.minimum(tops + rows, height), np.minimum(lefts + columns, width)
    found = sums[bottoms, rights] - sums[tops, rights] - sums[bottoms, lefts] + sums[tops, lefts]
    row, column = np.unravel_index(found.argmax(), found.shape)
    top, left = int(tops[row, 0]), int(lefts[column])
    return slice(top, min(top + rows, height)), slice(left, min(left + columns, width))
