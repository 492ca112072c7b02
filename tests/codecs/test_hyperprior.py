"""Scales and the boundaries of the coder's table: how near they are, and how to move away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lof.codecs import Codec, hard_rounding, load_codec
from lof.search import symbols_of


def plain(codec: Codec, pixels: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    return symbols_of(codec.code(codec.analyse(codec.pad(image)), hard_rounding, exact=True))


def test_scale_margin_is_the_distance_to_the_nearest_boundary(crop: NDArray[np.uint8]) -> None:
    codec = load_codec("tiny", device="cpu")
    strings = codec.compress(plain(codec, crop))
    margin = codec.scale_margin(strings, 128, 128)
    net = codec.net  # type: ignore[attr-defined]
    z_hat = net.entropy_bottleneck.decompress([strings[1]], (2, 2))
    scales = net.h_s(z_hat).chunk(2, 1)[0].double().clamp_min(1e-12).reshape(-1, 1)
    boundaries = net.gaussian_conditional.scale_table[:-1].double()
    assert margin == pytest.approx(float((boundaries / scales - 1).abs().min()), rel=1e-9)


@pytest.mark.parametrize("name", ["mean-scale-96", "msp-tiny"])
def test_widened_symbols_keep_clear_of_boundaries_and_stay_nearly_the_same(
    name: str, photograph: NDArray[np.uint8]
) -> None:
    codec = load_codec(name, device="cpu")
    image = torch.from_numpy(photograph[:500, :490]).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        found = codec.code(codec.analyse(codec.pad(image)), hard_rounding, exact=True)
    symbols = {latent: coded.residual.to(torch.int32) for latent, coded in found.items()}
    before = {latent: tensor.clone() for latent, tensor in symbols.items()}
    wide = codec.widen(symbols)
    strings, other = codec.compress(symbols), codec.compress(wide)
    assert all(torch.equal(symbols[latent], before[latent]) for latent in codec.latents)
    narrow, margin = codec.scale_margin(strings, 500, 490), codec.scale_margin(other, 500, 490)
    if codec.portable:
        assert (other, margin) == (strings, None)
        return
    assert narrow is not None
    assert margin is not None
    assert narrow < 3e-6 <= margin
    assert 0 < int((wide["z"] != symbols["z"]).sum()) < 30
    assert sum(map(len, other)) < 1.005 * sum(map(len, strings))
    error = [
        float((codec.decompress(some, 500, 490).image - image[0]).square().mean())
        for some in (strings, other)
    ]
    assert error[1] < 1.01 * error[0]
