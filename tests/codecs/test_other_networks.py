"""Networks with other strides than lof's own, behind its codecs of CompressAI's kind."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from other_networks import FineCodec, NearCodec, OddCodec, untrained

from lof.codecs.network import NetworkCodec
from lof.testing import CHECKS, Check

KINDS = [FineCodec, NearCodec, OddCodec]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_they_keep_the_contract(kind: type[NetworkCodec], check: Check, crop: NDArray[np.uint8]) -> None:
    check(untrained(kind), crop)
