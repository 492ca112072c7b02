"""Other formats at a wanted PSNR: between which files the answer lies, and where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from lof.errors import UsageError
from lof.metrics import mse, psnr
from lof.pictures.formats import FORMATS, bytes_at, decode, require_formats


@pytest.mark.parametrize("name", ["jpeg", "webp"])
@pytest.mark.parametrize("target", [30.0, 38.0])
def test_the_bytes_lie_between_the_files_next_to_the_psnr(
    crop: NDArray[np.uint8], name: str, target: float
) -> None:
    kind = FORMATS[name]
    found = bytes_at(crop, target, kind)
    between = []
    for variant in kind.variants:
        files = [kind.encode(crop, variant, quality) for quality in range(1, 101)]
        reached = [psnr(mse(crop, decode(data))) for data in files]
        crossings = [i for i in range(99) if reached[i] < target <= reached[i + 1]]
        between.append([(len(files[i]), len(files[i + 1])) for i in crossings])
    assert found is not None
    assert any(low <= found <= high for pairs in between for low, high in pairs)
    assert found <= min(max(high for _, high in pairs) for pairs in between if pairs)


def test_a_slow_encoder_is_asked_near_the_answer_only(crop: NDArray[np.uint8]) -> None:
    found = bytes_at(crop[:64, :64], 34.0, FORMATS["avif"])
    kind = FORMATS["avif"]
    sizes = {len(kind.encode(crop[:64, :64], variant, q)) for variant in kind.variants for q in (50, 90)}
    assert found is not None
    assert min(sizes) / 4 < found < max(sizes)


def test_where_a_format_cannot_go_there_is_no_answer(crop: NDArray[np.uint8]) -> None:
    assert bytes_at(crop, 80.0, FORMATS["webp"]) is None
    assert bytes_at(crop, math.inf, FORMATS["jpeg"]) is None
    wide = np.zeros((1, 17000, 3), np.uint8)  # WebP holds 16383 pixels on a side
    assert bytes_at(wide, 40.0, FORMATS["webp"]) is None
    assert bytes_at(wide, 40.0, FORMATS["jpeg"]) is not None
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)  # over 8 bits per pixel
    assert bytes_at(noise, 38.0, FORMATS["jpeg"]) is not None


def test_the_worst_file_stands_for_all_that_is_worse(crop: NDArray[np.uint8]) -> None:
    assert bytes_at(crop, 5.0, FORMATS["webp"]) == len(FORMATS["webp"].encode(crop, "4:2:0", 1))
    one = np.full((1, 1, 3), 7, np.uint8)
    assert bytes_at(one, math.inf, FORMATS["webp"]) is not None


def test_an_unknown_format_is_one_clear_error() -> None:
    with pytest.raises(UsageError, match=r"^--against bpg: .*; use jpeg, webp, avif, jxl$"):
        require_formats(["webp", "bpg"], "--against")


def test_jpeg_xl_has_bytes_at_a_psnr(crop: NDArray[np.uint8]) -> None:
    pytest.importorskip("pillow_jxl")
    require_formats(["jxl"], "--against")
    found = bytes_at(np.ascontiguousarray(crop[:64, :64]), 34.0, FORMATS["jxl"])
    assert found is not None
    assert 500 < found < 3000
