"""Rate-distortion optimal quantisation of blocks, for run-length codes: which coefficients are worth their bits.

JPEG codes a block as pairs (zeros that go before, size of the coefficient), so the price of a coefficient depends on
which of its neighbours are 0. The best block is a shortest path over the coefficients that are kept. All blocks are
searched at once, one candidate after the other.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

ZIGZAG: Final = np.array(
    sorted(range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8))
)
"""Place of a coefficient in the order of coding → its place in the block, row by row."""
_RUNS, _SIZES = 63, 12
_LONGEST_RUN = 15
_TOGETHER: Final = 1 << 12
"""Blocks that are searched at once: enough for NumPy, few enough for the caches."""


@dataclass(frozen=True)
class Prices:
    """What symbols cost, in bits.

    Attributes:
        pairs: (63, 12): a coefficient of a size (bits of its magnitude) after so many zeros, its sign and magnitude
            included.
        end: nothing but zeros follow.
    """

    pairs: Floats
    end: float


def sizes_of(magnitudes: Ints) -> Ints:
    """Bits of each magnitude: 0 for 0, 1 for 1, 2 for 2 and 3, …"""
    return np.frexp(magnitudes.astype(np.float32))[1].astype(np.int32)


def prices_of(levels: Ints) -> Prices:
    """The ideal code for these very blocks, which their Huffman tables will come near to.

    Args:
        levels: (N, 64), quantised, in the order of coding.
    """
    ac = np.abs(levels[:, 1:])
    rows, places = np.nonzero(ac)
    first = np.concatenate([[True], rows[1:] != rows[:-1]]) if len(rows) else np.zeros(0, bool)
    before = np.where(first, -1, np.concatenate([[0], places[:-1]])) if len(rows) else places
    runs, sizes = places - before - 1, sizes_of(ac[rows, places])
    last = np.full(len(ac), -1)
    last[rows] = places  # the last one written stays
    counts = np.zeros((_LONGEST_RUN + 1, _SIZES))
    np.add.at(counts, (runs % 16, sizes), 1)
    long_runs, ends = float((runs // 16).sum()), float((last < 62).sum())
    counts[:, 1:] += 0.05
    total = counts.sum() + long_runs + ends + 1
    bits = -np.log2(np.maximum(counts, 0.05) / total)
    long_run, end = -np.log2((long_runs + 0.05) / total), -np.log2((ends + 0.5) / total)
    run, size = np.mgrid[:_RUNS, :_SIZES]
    pairs = bits[run % 16, size] + run // 16 * long_run + size
    return Prices(pairs.astype(np.float32), float(end))


def quantise(values: Floats, weights: Floats, prices: Prices, threads: int = 1) -> Ints:
    """Levels of the lowest cost ``bits + Σ weight·(value - level)²``, the DC's excepted, which is rounded.

    Args:
        values: (N, 64) in quantisation steps, in the order of coding.
        weights: (N, 64), bits for each squared step.
        threads: how many CPU threads to use; the result does not depend on it.
    """
    magnitude = np.abs(values)
    nearest = np.rint(magnitude).astype(np.int32)
    nearest[:, 0] = 0
    count = (nearest > 0).sum(1)
    order = np.argsort(-count, kind="stable")
    kept = np.zeros_like(nearest)

    def part(some: Ints) -> None:
        kept[some] = _blocks(magnitude[some], nearest[some], weights[some], count[some], prices)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, np.array_split(order, max(1, len(order) // _TOGETHER))))
    kept[:, 0] = np.rint(magnitude[:, 0])
    return np.where(values < 0, -kept, kept)


def _blocks(magnitude: Floats, nearest: Ints, weights: Floats, count: Ints, prices: Prices) -> Ints:
    """:func:`quantise` of blocks sorted by their number of candidates, most first; magnitudes for levels."""
    blocks, most = len(nearest), int(count[0]) if len(count) else 0
    kept = np.zeros_like(nearest)
    if not most:
        return kept
    places = np.argsort(nearest == 0, axis=1, kind="stable")[:, :most]  # candidates first, in order
    # `cost[:, m + 1]` is that of the best path whose last coefficient is candidate m, less that of all zeros so far;
    # `[:, 0]` has none yet.
    cost = np.full((blocks, most + 1), np.inf, np.float32)
    cost[:, 0] = 0
    at = np.zeros((blocks, most + 1), np.int32)
    came = np.zeros((blocks, most), np.int8)
    level = np.zeros((blocks, most), np.int32)
    flat = prices.pairs.ravel()
    for m in range(most):
        n = int(np.searchsorted(-count, -m, side="left"))
        place = places[:n, m]
        x, w, top = (each[np.arange(n), place] for each in (magnitude, weights, nearest))
        run = (place[:, None] - at[:n, : m + 1] - 1) * _SIZES
        best = np.full(n, np.inf, np.float32)
        lower = (1 << np.maximum(sizes_of(top) - 1, 0)) - 1  # the largest that has one bit less
        for candidate, rows in (
            (top, np.arange(n)),
            (top - 1, np.flatnonzero(top > 1)),
            (lower, np.flatnonzero((lower > 0) & (lower < top - 1))),
        ):
            if not len(rows):
                continue
            paths = cost[rows, : m + 1] + flat[run[rows] + sizes_of(candidate[rows])[:, None]]
            chosen = paths.argmin(1)
            found = paths[np.arange(len(rows)), chosen] + w[rows] * np.square(x[rows] - candidate[rows])
            better = found < best[rows]
            won = rows[better]
            best[won], came[won, m] = found[better], chosen[better]
            level[won, m] = candidate[won]
        cost[:n, m + 1] = best - w * x * x
        at[:n, m + 1] = place
    ends = cost + np.where(at < 63, np.float32(prices.end), np.float32(0))
    now = ends.argmin(1)
    rows = np.arange(blocks)
    while (now > 0).any():
        here = rows[now > 0]
        m = now[here] - 1
        kept[here, places[here, m]] = level[here, m]
        now[here] = came[here, m]
    return kept
