"""The coder's tables: one for each place of the table of scales, about 0, in whole numbers.

They ship with the weights: a decoder takes them from there and computes none.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lof.codecs.entropy.tables import Tables
from lof.codecs.lapped.prior import PLACE_OF_ONE, PLACES, PLACES_PER_OCTAVE

PRECISION = 16
"""Bits of a frequency, as CompressAI's coder has it."""
REACH = 5
"""Symbols farther than so many σ from 0 are escaped."""


class Form(NamedTuple):
    """The distribution at a place of the table of scales: a mixture of two Gaussians about 0.

    Attributes:
        share: weight of the wide one, 0 to 1.
        narrow, wide: their standard deviations, as multiples of the place's σ.
    """

    share: float | Tensor
    narrow: float | Tensor
    wide: float | Tensor


GAUSSIAN = Form(0.0, 1.0, 1.0)
TYPICAL = Form(0.325, 0.82, 1.3)
"""What suits the symbols of a network best that was trained with Gaussians."""


def form_of(numbers: Tensor) -> Form:
    """A form of three numbers of any size, (3,): the share's logit, and logarithms of the two standard deviations."""
    return Form(numbers[0].sigmoid(), numbers[1].exp(), numbers[2].exp())


def numbers_of(form: Form) -> Tensor:
    """Inverse of :func:`form_of`."""
    share, narrow, wide = map(float, form)
    return torch.tensor([math.log(share / (1 - share)), math.log(narrow), math.log(wide)])


class TableBuffers(nn.Module):
    """Cumulative frequencies of all places in one row, ``cdf``, uint16, and how many each place has, ``length``, int32.

    The last frequency of a place, 65536, is left out.
    """

    cdf: Tensor
    length: Tensor

    def __init__(self, form: Form = GAUSSIAN) -> None:
        super().__init__()
        rows = [_row(2 ** ((place - PLACE_OF_ONE) / PLACES_PER_OCTAVE), form) for place in range(PLACES)]
        self.register_buffer("cdf", torch.tensor([n for row in rows for n in row], dtype=torch.uint16))
        self.register_buffer("length", torch.tensor([len(row) for row in rows], dtype=torch.int32))

    def tables(self) -> Tables:
        """As the coder takes them."""
        lengths = self.length.tolist()
        cdfs = [[*row.tolist(), 2**PRECISION] for row in self.cdf.split(lengths)]
        # A row has a number for each of 2·R + 1 symbols, and one for the escape.
        return Tables(cdfs, [length + 1 for length in lengths], [-(length // 2 - 1) for length in lengths])


def _row(sigma: float, form: Form) -> list[int]:
    reach = math.ceil(REACH * sigma)
    edges = [_below((symbol - 0.5) / sigma, form) for symbol in range(-reach, reach + 2)]
    count = len(edges)
    # Each symbol, and the escape, has one unit of its own; the others are shared by probability.
    shared = (2**PRECISION - count) / (edges[-1] - edges[0])
    return [place + math.floor((edge - edges[0]) * shared) for place, edge in enumerate(edges)]


def _below(x: float, form: Form) -> float:
    share, narrow, wide = map(float, form)
    below = [0.5 * math.erfc(-x / sigma * 0.5**0.5) for sigma in (narrow, wide)]
    return (1 - share) * below[0] + share * below[1]
