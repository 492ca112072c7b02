"""The serial context in waves, as a search walks it, against the standard decoder's order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lof.codecs import hard_rounding, load_codec
from lof.codecs.hyperprior.serial import _REACH, _waves


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


def test_a_place_informs_what_its_window_reaches_and_nothing_else(
    crop: NDArray[np.uint8], zoo_weights: Path
) -> None:
    codec = load_codec("mbt2018", 1, weights=zoo_weights, device="cpu", precision="fp32")
    latents = codec.analyse(torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255)
    changed = {name: tensor.clone() for name, tensor in latents.items()}
    changed["y"][:, :, 3, 3] += 20

    def means(values: dict[str, torch.Tensor], *, exact: bool) -> torch.Tensor:
        coded = codec.code(values, lambda _, residual: residual, exact=exact)["y"]
        return (coded.value - coded.residual)[0].sum(0)

    # Without rounding a value is the latent itself, so that nothing is handed on beyond one window.
    reached = torch.zeros(8, 8, dtype=torch.bool)
    reached[3, 4:6] = reached[4:6, 1:6] = True
    for exact in (True, False):
        moved = (means(latents, exact=exact) - means(changed, exact=exact)).abs()
        assert torch.equal(moved > 1e-3, reached)
