"""Networks with other strides than lof's own, behind its codecs of CompressAI's kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from other_networks import FineCodec, NearCodec, OddCodec, untrained

from lof.codecs.network import NetworkCodec
from lof.testing import CHECKS, Check

KINDS = [FineCodec, NearCodec, OddCodec]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_they_keep_the_contract(kind: type[NetworkCodec], check: Check, crop: NDArray[np.uint8]) -> None:
    check(untrained(kind), crop)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_beyond_a_string_that_ends_early_is_as_long_as_all_symbols_of_y(
    kind: type[NetworkCodec],
) -> None:
    codec = untrained(kind)
    symbols = codec.symbols(codec.analyse(torch.zeros(1, 3, 768, 768)))
    room = len(codec._slack(b"", symbols[codec.latents[0]].shape[-2:]))
    assert room >= 4 * symbols["y"].numel()


def test_scales_are_moved_away_from_boundaries(photograph: NDArray[np.uint8]) -> None:
    codec = untrained(NearCodec)
    pixels = torch.from_numpy(photograph[:320, 128:448].copy()).permute(2, 0, 1)[None].float() / 255
    symbols = codec.symbols(codec.analyse(pixels))
    with torch.no_grad():
        string = codec.compress(symbols)[1]
        z = codec.net.entropy_bottleneck.decompress([string], symbols["z"].shape[-2:])
        scales = codec.net.h_s(z)[:, :24].flatten()
    some = scales[scales > 0.2][-1000::300]  # near the lower edge
    table = codec.net.gaussian_conditional.scale_table
    codec.net.update(scale_table=torch.cat([table, some]).unique(), force=True)
    assert codec.scale_margin(codec.compress(symbols), 320, 320) == 0
    wide = codec.widen(symbols)
    assert codec.scale_margin(codec.compress(wide), 320, 320) > 3e-6
    assert 0 < int((wide["z"] != symbols["z"]).sum()) < 10
