"""A target where a search gains more than is usual: the quality moves, and meeting it costs next to nothing."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import skimage.data

import lof
from lof import Target
from lof.codecs import load_codec

CLOCK = np.repeat(skimage.data.clock()[100:292, 100:292, None], 3, axis=2)


@lru_cache
def at_the_same_psnr() -> tuple[lof.Result, lof.Result]:
    """A search that is free, and one that is to reach what it reached."""
    free = lof.optimize(CLOCK, codec="lapped", profile="fast")
    target = Target(psnr=round(free.optimised.psnr, 2))
    return free, lof.optimize(CLOCK, codec="lapped", profile="fast", target=target)


def test_another_quality_is_taken_where_a_search_gains_more_than_usual() -> None:
    _, found = at_the_same_psnr()
    assert found.kept == "search"
    # At the quality that searches are usually best at, λ would be 2.5 times its own.
    assert 1 / 2 < found.lmbda / load_codec("lapped", found.quality).lmbda < 2


def test_a_target_costs_next_to_nothing_where_a_search_gains_more_than_usual() -> None:
    free, found = at_the_same_psnr()
    assert found.optimised.size < 1.01 * free.optimised.size  # else it would be 1.014
