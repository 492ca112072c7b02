"""Searches that start from a stream: its symbols are read back, and nothing gets worse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import lof
from lof.codecs import codec_specs, hard_rounding, load_codec
from lof.errors import StreamError
from lof.profiles import parse_profile
from lof.search import symbols_of

NOTHING = parse_profile({"name": "n", "stage": [{"kind": "relax", "evaluations": 1, "learning_rate": 1e-9}]})
SOME = parse_profile({"name": "s", "stage": [{"kind": "mean-field", "evaluations": 12, "check_every": 4}]})
ZOO = [spec.name for spec in codec_specs(hidden=True) if spec.source == "zoo"]


@pytest.mark.parametrize("name", [*ZOO, "tiny", "msp-tiny"])
def test_symbols_are_read_back_as_they_were_compressed(
    name: str, zoo_weights: Path, crop: NDArray[np.uint8]
) -> None:
    weights, quality = (zoo_weights, 1) if name in ZOO else (None, None)
    codec = load_codec(name, quality, weights=weights, device="cpu")
    image = torch.from_numpy(crop[:100, :90].copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        symbols = symbols_of(codec.code(codec.analyse(codec.pad(image)), hard_rounding, exact=True))
    found = codec.decompress(codec.compress(symbols), 100, 90).symbols
    assert sorted(found) == sorted(codec.latents)
    assert all(torch.equal(found[latent].int(), symbols[latent].int()) for latent in codec.latents)
    assert any(bool(symbols[latent].any()) for latent in codec.latents)


@pytest.mark.parametrize("codec", ["tiny", "msp-tiny"])
def test_a_warm_start_begins_with_the_cost_of_the_stream(codec: str, crop: NDArray[np.uint8]) -> None:
    cold = lof.optimize(crop, codec=codec, profile=SOME, device="cpu")
    assert cold.kept == "search"
    warm = lof.optimize(crop, codec=codec, profile=NOTHING, warm_start=cold.data, device="cpu")
    assert warm.data == cold.data
    further = lof.optimize(crop, codec=codec, profile=SOME, warm_start=cold.data, device="cpu")
    assert further.optimised.cost < cold.optimised.cost


def test_a_warm_start_of_another_codec_or_size_is_refused(crop: NDArray[np.uint8], zoo_weights: Path) -> None:
    stream = lof.optimize(crop, codec="tiny", profile=NOTHING, device="cpu").data
    with pytest.raises(StreamError, match="128×128 pixels, the image 128×64"):
        lof.optimize(crop[:64], codec="tiny", profile=NOTHING, warm_start=stream, device="cpu")
    other = load_codec(ZOO[0], 1, weights=zoo_weights, device="cpu")
    with pytest.raises(StreamError, match="of another codec"):
        lof.optimize(crop, codec=other, profile=NOTHING, warm_start=stream)
