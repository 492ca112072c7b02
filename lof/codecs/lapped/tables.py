"""The coder's tables: Gaussians about 0, one for each place of the table of scales, in whole numbers.

They ship with the weights: a decoder takes them from there and computes none.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lof.codecs.entropy.tables import Tables
from lof.codecs.lapped.prior import PLACE_OF_ONE, PLACES, PLACES_PER_OCTAVE

PRECISION = 16
"""Bits of a frequency, as CompressAI's coder has it."""
REACH = 5
"""Symbols farther than so many σ from 0 are escaped."""


class TableBuffers(nn.Module):
    """Cumulative frequencies of all places in one row, ``cdf``, uint16, and how many each place has, ``length``, int32.

    The last frequency of a place, 65536, is left out.
    """

    cdf: Tensor
    length: Tensor

    def __init__(self) -> None:
        super().__init__()
        rows = [_row(2 ** ((place - PLACE_OF_ONE) / PLACES_PER_OCTAVE)) for place in range(PLACES)]
        self.register_buffer("cdf", torch.tensor([n for row in rows for n in row], dtype=torch.uint16))
        self.register_buffer("length", torch.tensor([len(row) for row in rows], dtype=torch.int32))

    def tables(self) -> Tables:
        """As the coder takes them."""
        lengths = self.length.tolist()
        cdfs = [[*row.tolist(), 2**PRECISION] for row in self.cdf.split(lengths)]
        # A row has a number for each of 2·R + 1 symbols, and one for the escape.
        return Tables(cdfs, [length + 1 for length in lengths], [-(length // 2 - 1) for length in lengths])


def _row(sigma: float) -> list[int]:
    reach = math.ceil(REACH * sigma)
    edges = [0.5 * math.erfc(-(symbol - 0.5) / sigma * 0.5**0.5) for symbol in range(-reach, reach + 2)]
    count = len(edges)
    # Each symbol, and the escape, has one unit of its own; the others are shared by probability.
    shared = (2**PRECISION - count) / (edges[-1] - edges[0])
    return [place + math.floor((edge - edges[0]) * shared) for place, edge in enumerate(edges)]
