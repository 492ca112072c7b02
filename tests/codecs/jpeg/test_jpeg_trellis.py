"""Rate-distortion optimal quantisation of blocks, against a search through everything."""

from __future__ import annotations

from itertools import product

import numpy as np

from lof.codecs.jpeg.trellis import ZIGZAG, Floats, Ints, Prices, prices_of, quantise, sizes_of


def prices() -> Prices:
    """Long runs and large coefficients cost more."""
    run, size = np.mgrid[:63, :12]
    return Prices((2 + 0.7 * run + 1.9 * size).astype(np.float32), 3.0)


def cost(values: Floats, weights: Floats, levels: Ints, code: Prices) -> float:
    """Bits and weighted errors of one block's AC coefficients."""
    total, last = 0.0, 0
    for place in np.flatnonzero(levels[1:]) + 1:
        total += code.pairs[place - last - 1, sizes_of(np.abs(levels))[place]]
        last = place
    return total + (code.end if last < 63 else 0) + float((weights * np.square(values - levels))[1:].sum())


def test_no_choice_of_levels_costs_less() -> None:
    random = np.random.default_rng(5)
    for _ in range(12):
        values = np.zeros((1, 64), np.float32)
        places = random.choice(np.arange(1, 64), 5, replace=False)
        values[0, places] = random.normal(0, 2, 5)
        weights = random.uniform(0.5, 6, (1, 64)).astype(np.float32)
        found = quantise(values, weights, prices())
        best = np.inf
        near = [range(min(0, int(np.rint(v))), max(0, int(np.rint(v))) + 1) for v in values[0, places]]
        for choice in product(*near):
            levels = np.zeros(64, np.int32)
            levels[places] = choice
            best = min(best, cost(values[0], weights[0], levels, prices()))
        assert cost(values[0], weights[0], found[0], prices()) <= best + 1e-3


def test_where_errors_cost_much_all_is_rounded_and_where_they_cost_nothing_all_is_0() -> None:
    values = np.random.default_rng(1).normal(0, 3, (50, 64)).astype(np.float32)
    exact = quantise(values, np.full_like(values, 1e4), prices())
    assert np.array_equal(exact, np.rint(values))
    assert np.array_equal(exact, quantise(values, np.full_like(values, 1e4), prices(), threads=2))
    nothing = quantise(values, np.full_like(values, 1e-4), prices())
    assert not nothing[:, 1:].any()
    assert np.array_equal(nothing[:, 0], np.rint(values[:, 0]))


def test_prices_are_those_of_an_ideal_code() -> None:
    levels = np.zeros((1000, 64), np.int32)
    levels[:500, 1] = 1
    code = prices_of(levels)
    # 500 pairs and 1000 ends of block
    assert abs(code.pairs[0, 1] - (1 + np.log2(1500 / 500))) < 0.1
    assert abs(code.end - np.log2(1500 / 1000)) < 0.1
    assert code.pairs[0, 2] > 8


def test_the_order_of_coding_is_the_standards() -> None:
    assert ZIGZAG[:10].tolist() == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]
    assert sorted(ZIGZAG.tolist()) == list(range(64))
