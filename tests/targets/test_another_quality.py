"""A target where a search gains more than is usual: the quality moves, and meeting it costs next to nothing."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import skimage.data

import lof
from lof import Target
from lof.codecs import load_codec

MOON = np.repeat(skimage.data.moon()[..., None], 3, axis=2)
PARTS = {"edge": (slice(100, 292), slice(100, 292)), "middle": (slice(300, 492), slice(200, 392))}


@lru_cache
def at_the_same_psnr(part: str) -> tuple[lof.Result, lof.Result]:
    """A search that is free, and one that is to reach what it reached."""
    free = lof.optimize(MOON[PARTS[part]], codec="lapped", profile="fast")
    target = Target(psnr=round(free.optimised.psnr, 2))
    return free, lof.optimize(MOON[PARTS[part]], codec="lapped", profile="fast", target=target)


@pytest.mark.parametrize(("part", "apart"), [("edge", 3), ("middle", 2)])
def test_another_quality_is_taken_where_a_search_gains_more_than_usual(part: str, apart: float) -> None:
    _, found = at_the_same_psnr(part)
    assert found.kept == "search"
    # At the quality that searches are usually best at, λ would be 3.7 times its own in the second part.
    assert 1 / apart < found.lmbda / load_codec("lapped", found.quality).lmbda < apart


@pytest.mark.parametrize("part", ["edge", "middle"])
def test_a_target_costs_next_to_nothing_where_a_search_gains_more_than_usual(part: str) -> None:
    free, found = at_the_same_psnr(part)
    assert found.optimised.size < 1.02 * free.optimised.size
