"""Cumulative distributions as CompressAI's rANS coder takes them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from compressai.entropy_models import EntropyModel

WHOLE = 2**16
"""The sum of all frequencies of a distribution."""
FARTHEST = 2**24
"""No distribution begins farther than this from 0."""


@dataclass(frozen=True)
class Tables:
    """Cumulative distributions, each with its length and the symbol that it begins with."""

    cdfs: list[list[int]]
    lengths: list[int]
    offsets: list[int]

    @classmethod
    def of(cls, model: EntropyModel) -> Self:
        """Those of an updated entropy model."""
        lengths = model._cdf_length.reshape(-1).tolist()
        rows = model._quantized_cdf.tolist()
        cdfs = [row[:length] for row, length in zip(rows, lengths, strict=True)]
        return cls(cdfs, lengths, model._offset.reshape(-1).tolist())

    def check(self) -> None:
        """Whether the coder, which divides by frequencies and trusts lengths, can work with them.

        Raises:
            ValueError: it cannot.
        """
        for cdf, length, offset in zip(self.cdfs, self.lengths, self.offsets, strict=True):
            if not 3 <= length == len(cdf) or cdf[0] != 0 or cdf[-1] != WHOLE or abs(offset) > FARTHEST:
                raise ValueError("a table of frequencies has another length, sum or place than can be")
            if any(low >= high for low, high in pairwise(cdf)):
                raise ValueError("a table of frequencies has a symbol without any")
