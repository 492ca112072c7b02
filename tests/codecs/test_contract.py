"""The codec contract, walked for every registered codec by the suite that lof ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lof.codecs import Codec, codec_specs, load_codec
from lof.testing import CHECKS, Check

ALL = [(spec.name, spec.source) for spec in codec_specs(hidden=True)]


@pytest.fixture(params=ALL, ids=[name for name, _ in ALL])
def codec(request: pytest.FixtureRequest, zoo_weights: Path) -> Codec:
    name, source = request.param
    if source == "zoo":
        return load_codec(name, 1, weights=zoo_weights, device="cpu")
    return load_codec(name, device="cpu")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_registered_codec_keeps_the_contract(
    codec: Codec, check: Check, photograph: NDArray[np.uint8]
) -> None:
    check(codec, np.ascontiguousarray(photograph[64:256, 128:320]))
