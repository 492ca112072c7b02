"""Which part of a picture is shown."""

from __future__ import annotations

import numpy as np
import pytest

from lof.jobs.crops import read_crop, write_crop
from lof.pictures.cuts import heaviest_cut


@pytest.mark.parametrize("size", [(1, 1), (40, 700), (300, 65), (577, 613)])
def test_no_cut_on_the_grid_weighs_more(size: tuple[int, int]) -> None:
    weights = np.random.default_rng(1).integers(-50, 1000, size, np.int32)
    rows, columns = 96, 128
    found = heaviest_cut(weights, rows, columns)
    assert weights[found].shape == (min(rows, size[0]), min(columns, size[1]))
    tops, lefts = (
        {*range(0, max(1, side - cut), 32), max(0, side - cut)}
        for side, cut in zip(size, (96, 128), strict=True)
    )
    best = max(weights[t : t + rows, x : x + columns].sum() for t in tops for x in lefts)
    assert weights[found].sum() == best


def test_the_cut_is_where_the_error_fell_most(tmp_path) -> None:  # type: ignore[no-untyped-def]
    original = np.zeros((900, 700, 3), np.uint8)
    baseline, optimised = original.copy(), original.copy()
    baseline[600:700, 300:400] = 9
    optimised[100:130, 100:130] = 5  # here it rose
    write_crop(tmp_path / "cut.png", original, baseline, optimised)
    crops = read_crop(tmp_path / "cut.png")
    assert crops is not None
    assert int((crops.baseline > 0).sum()) == 3 * 100 * 100
    assert not crops.optimised.any()
