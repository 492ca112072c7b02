"""The figures of every report, against independent formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pytorch_msssim import ms_ssim as reference_ms_ssim
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

from lof import metrics
from lof.errors import ImageError


def pair(height: int, width: int, noise: int = 9) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(height * width)
    a = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    b = np.clip(a.astype(int) + random.integers(-noise, noise + 1, a.shape), 0, 255).astype(np.uint8)
    return a, b


@settings(deadline=None, max_examples=50)
@given(arrays.arrays(np.uint8, st.tuples(st.just(2), st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_mse_is_the_mean_of_squared_differences(images: np.ndarray) -> None:
    a, b = images
    total = sum((int(x) - int(y)) ** 2 for x, y in zip(a.flat, b.flat, strict=True))
    assert metrics.mse(a, b) == metrics.mse(b, a) == total / a.size


def test_mse_and_psnr_agree_with_another_library() -> None:
    a, b = pair(301, 457)
    assert metrics.mse(a, b) == pytest.approx(mean_squared_error(a, b), rel=1e-12)
    assert metrics.psnr(metrics.mse(a, b)) == pytest.approx(peak_signal_noise_ratio(a, b), rel=1e-12)


def test_mse_is_exact_over_many_chunks_at_the_largest_difference() -> None:
    a = np.full((3000, 2000, 3), 255, np.uint8)
    b = np.zeros_like(a)
    assert metrics.mse(a, b) == 65025
    b[-1, -1, -1] = 255
    assert metrics.mse(a, b) == 65025 * (a.size - 1) / a.size


def test_mse_takes_views() -> None:
    a, b = pair(40, 50)
    assert metrics.mse(a[::2, ::-3], b[::2, ::-3]) == metrics.mse(a[::2, ::-3].copy(), b[::2, ::-3].copy())


def test_psnr_of_equal_images_is_infinite() -> None:
    a, _ = pair(5, 5)
    assert metrics.psnr(metrics.mse(a, a)) == math.inf
    assert metrics.psnr(65025.0) == 0
    assert metrics.psnr(650.25) == pytest.approx(20)


@pytest.mark.parametrize("size", [(161, 161), (180, 241)])
def test_ms_ssim_is_that_of_the_codecs_evaluation(size: tuple[int, int]) -> None:
    a, b = pair(*size, noise=60)
    tensors = [torch.from_numpy(image).permute(2, 0, 1)[None].float() for image in (a, b)]
    value = metrics.ms_ssim(a, b)
    assert value == pytest.approx(float(reference_ms_ssim(*tensors, data_range=255)), abs=1e-6)
    assert value is not None
    assert 0.5 < value < 0.999


def test_ms_ssim_of_equal_images_is_one() -> None:
    a, _ = pair(161, 170)
    assert metrics.ms_ssim(a, a) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [(160, 400), (400, 160), (1, 1)])
def test_small_images_have_no_ms_ssim(size: tuple[int, int]) -> None:
    assert metrics.ms_ssim(*pair(*size)) is None


def test_bits_per_pixel_count_the_whole_file() -> None:
    assert metrics.bpp(4915, 512, 768) == pytest.approx(4915 * 8 / 393216)


def test_images_of_different_sizes_are_refused() -> None:
    a, b = pair(200, 200)
    with pytest.raises(ImageError, match=r"cannot be compared; "):
        metrics.mse(a, b[1:])
    with pytest.raises(ImageError, match=r"cannot be compared; "):
        metrics.ms_ssim(a, b[:, 1:])


def test_ms_ssim_by_strips_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair(333, 502)
    whole = metrics.ms_ssim(a, b)
    monkeypatch.setattr("lof.metrics._CHUNK", 2**15)
    assert metrics.ms_ssim(a, b) == pytest.approx(whole, abs=1e-6)


def test_ssimulacra2_falls_with_damage_and_needs_eight_pixels(crop: NDArray[np.uint8]) -> None:
    pytest.importorskip("ssimulacra2")
    part = np.ascontiguousarray(crop[:64, :64])
    worse, worst = (metrics.ssimulacra2(part, part // step * step) for step in (8, 32))
    assert worse is not None
    assert worst is not None
    assert metrics.ssimulacra2(part, part) == 100 > worse > worst
    assert metrics.ssimulacra2(part[:7], part[:7]) is None
