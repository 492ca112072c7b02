"""A target where a search gains more than is usual: the quality moves, and meeting it costs next to nothing."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import skimage.data

import lof
from lof import Target
from lof.codecs import load_codec

MOON, CLOCK = (np.repeat(grey[..., None], 3, axis=2) for grey in (skimage.data.moon(), skimage.data.clock()))
PARTS = {"edge": MOON[100:292, 100:292], "middle": MOON[300:492, 200:392], "clock": CLOCK[100:292, 100:292]}


@lru_cache
def at_the_same_psnr(part: str) -> tuple[lof.Result, lof.Result]:
    """A search that is free, and one that is to reach what it reached."""
    free = lof.optimize(PARTS[part], codec="lapped", profile="fast")
    target = Target(psnr=round(free.optimised.psnr, 2))
    return free, lof.optimize(PARTS[part], codec="lapped", profile="fast", target=target)


@pytest.mark.parametrize(("part", "apart"), [("edge", 2), ("clock", 2)])
def test_another_quality_is_taken_where_a_search_gains_more_than_usual(part: str, apart: float) -> None:
    _, found = at_the_same_psnr(part)
    assert found.kept == "search"
    # At the quality that searches are usually best at, λ would be 2.5 times its own on the clock.
    assert 1 / apart < found.lmbda / load_codec("lapped", found.quality).lmbda < apart


@pytest.mark.parametrize(("part", "most"), [("edge", 1.02), ("middle", 1.02), ("clock", 1.01)])
def test_a_target_costs_next_to_nothing_where_a_search_gains_more_than_usual(part: str, most: float) -> None:
    free, found = at_the_same_psnr(part)
    # On the clock it would be 1.014 at the quality that searches are usually best at.
    assert found.optimised.size < most * free.optimised.size


def test_a_size_far_below_the_plain_encoding_is_met_as_another_lambda_would_meet_it() -> None:
    """The codec has one quality, and no search that goes on where another has stopped comes there."""
    picture, codec = skimage.data.astronaut()[287:351, 435:499], load_codec("tiny")
    low = lof.optimize(picture, codec=codec, profile="fast", lmbda=codec.lmbda / 256)
    found = lof.optimize(picture, codec=codec, profile="fast", target=Target(size=low.optimised.size + 2))
    assert low.optimised.size < 0.6 * low.baseline.size
    assert found.optimised.size <= low.optimised.size + 2
    assert found.optimised.psnr > low.optimised.psnr - 0.5
