"""Damaged strings, and what a decoder may make of them."""

from __future__ import annotations

import numpy as np
import pytest

from lof.codecs import Codec
from lof.errors import StreamError


def check_damaged(codec: Codec, string: bytes, height: int, width: int, name: str) -> None:
    """Damaged strings end in one error, which says ``name``, or in an image.

    Args:
        string: the only one of a picture, whole.
        name: a regular expression.
    """
    for damaged in ([], [string, string], [b""], [string[:7]], [string[:-1]], [bytes(len(string))]):
        with pytest.raises(StreamError, match=name):
            codec.decompress(damaged, height, width)
    random = np.random.default_rng(0)
    for _ in range(20):
        noise = bytearray(string)
        for at in random.integers(8, len(noise), 5):
            noise[at] = int(random.integers(256))
        image = codec.decompress([bytes(noise)], height, width).image
        assert bool(((image >= 0) & (image <= 1)).all())
