"""Bjøntegaard deltas: where there are none."""

from __future__ import annotations

import math

import pytest

from lof.report.rate_distortion import Curve, bjontegaard_deltas


@pytest.mark.parametrize(
    "curve",
    [
        [(0.1, 30.0)],
        [(0.1, 30.0), (0.1, 31.0)],
        [(0.1, 30.0), (0.2, math.inf)],
        [(0.1, 40.0), (0.2, 42.0)],
        [(0.3, 30.0), (0.4, 33.0)],
    ],
    ids=["one point", "a rate that stays", "lossless", "other PSNRs", "other rates"],
)
def test_curves_without_a_delta_have_none(curve: Curve) -> None:
    anchor = [(0.1, 30.0), (0.2, 33.0)][: len(curve)]
    assert bjontegaard_deltas(anchor, curve) is None
