"""The serial context in waves, as a search walks it, against the standard decoder's order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lof.codecs import hard_rounding, load_codec
from lof.codecs.autoregressive import _REACH, _waves


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (7, 1), (4, 9), (9, 4)])
def test_waves_visit_every_place_once_and_after_all_that_its_window_sees(height: int, width: int) -> None:
    wave_of = torch.full((height, width), -1)
    for number, (rows, columns) in enumerate(_waves(height, width)):
        assert len(rows) > 0
        assert bool((wave_of[rows, columns] == -1).all())
        wave_of[rows, columns] = number
    assert bool((wave_of >= 0).all())
    for row in range(height):
        for column in range(width):
            above = wave_of[max(0, row - _REACH) : row, max(0, column - _REACH) : column + _REACH + 1]
            left = wave_of[row, max(0, column - _REACH) : column]
            seen = torch.cat([above.flatten(), left])
            assert bool((seen < wave_of[row, column]).all())


def test_waves_predict_what_the_standard_order_predicts(crop: NDArray[np.uint8], zoo_weights: Path) -> None:
    codec = load_codec("mbt2018", 1, weights=zoo_weights, device="cpu", precision="fp32")
    images = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
    latents = codec.analyse(torch.cat([images, images.flip(3)]))
    serial = codec.code(latents, hard_rounding, exact=True)["y"]
    waves = codec.code(latents, hard_rounding)["y"]
    assert len(serial.residual.unique()) >= 3
    # Where a residual lies at a half, another order of summation may round it the other way.
    assert float((waves.residual != serial.residual).float().mean()) < 1e-3
    assert torch.allclose(waves.bits.sum(), serial.bits.sum(), rtol=1e-3)
    context_matters = serial.value[..., 1:, 1:] - serial.residual[..., 1:, 1:]
    assert float(context_matters.std()) > 0
