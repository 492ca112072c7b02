"""The one true cost: which distortion it counts, and what it refuses. Regions as a whole: ``test_api.py``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lof.errors import SearchError
from lof.measure import TrueCost, region_of
from lof.metrics import ms_ssim

Pixels = NDArray[np.uint8]


@pytest.fixture
def pair(photograph: Pixels) -> tuple[Pixels, Pixels]:
    """192×192 of a photograph, and the same with its upper half 10 levels darker."""
    original = np.ascontiguousarray(photograph[32:224, 128:320].clip(10))
    decoded = original.copy()
    decoded[:96] -= 10
    return original, decoded


def test_the_cost_is_bits_per_pixel_and_lambda_times_the_squared_error(pair: tuple[Pixels, Pixels]) -> None:
    measured = TrueCost(pair[0], 0.02).measure(4608, pair[1])
    assert (measured.bpp, measured.mse) == (1.0, 50.0)
    assert measured.cost == pytest.approx(1 + 0.02 * 50)


def test_a_region_counts_where_it_points(pair: tuple[Pixels, Pixels]) -> None:
    weights = np.zeros((192, 192))
    weights[:96] = 3
    upper, lower = (
        TrueCost(pair[0], 0.02, region=region_of(some, 192, 192)) for some in (weights, weights[::-1])
    )
    assert upper.measure(4608, pair[1]).cost == pytest.approx(1 + 0.02 * 100)
    assert lower.measure(4608, pair[1]).cost == pytest.approx(1)
    assert upper.measure(4608, pair[1]).mse == 50.0


def test_ms_ssim_counts_what_is_missing_to_one(pair: tuple[Pixels, Pixels]) -> None:
    similarity = ms_ssim(*pair)
    assert similarity is not None
    measured = TrueCost(pair[0], 8, "ms-ssim").measure(4608, pair[1])
    assert measured.cost == pytest.approx(1 + 8 * (1 - similarity))


def test_what_cannot_be_measured_is_refused(pair: tuple[Pixels, Pixels]) -> None:
    with pytest.raises(SearchError, match="too small for MS-SSIM"):
        TrueCost(pair[0][:64], 8, "ms-ssim").measure(1, pair[1][:64])
    measured = TrueCost(pair[0], 0.02, region=region_of(np.ones((192, 192)), 192, 192)).measure(1, pair[1])
    assert (measured.psnr_inside, measured.psnr_outside) == (None, None)  # it is the same everywhere
    with pytest.raises(SearchError, match="a region needs the metric mse"):
        TrueCost(pair[0], 8, "ms-ssim", region_of(np.ones((192, 192)), 192, 192)).measure(1, pair[1])
    with pytest.raises(ValueError, match="unknown metric 'vmaf'"):
        TrueCost(pair[0], 8, "vmaf").measure(1, pair[1])


def test_a_region_that_is_no_array_is_one_clear_error() -> None:
    for mistaken in ("face", object(), torch.ones(4, 4, device="meta"), torch.ones(4, 4).to_sparse()):
        with pytest.raises(SearchError, match=r"^region: is a \w+; give an array"):
            region_of(mistaken, 4, 4)  # type: ignore[arg-type]


def test_a_region_of_complex_numbers_is_refused() -> None:
    with pytest.raises(SearchError, match=r"^region: holds complex numbers"):
        region_of(np.ones((4, 4), np.complex64), 4, 4)


def test_a_region_may_be_a_tensor_with_a_history() -> None:
    region = region_of(torch.ones(4, 4, requires_grad=True), 4, 4)  # type: ignore[arg-type]
    assert np.array_equal(region, np.ones((4, 4)))
