"""Cumulative distributions as CompressAI's rANS coder takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from compressai.entropy_models import EntropyModel


@dataclass(frozen=True)
class Tables:
    """Cumulative distributions, each with its length and the symbol that it begins with."""

    cdfs: list[list[int]]
    lengths: list[int]
    offsets: list[int]

    @classmethod
    def of(cls, model: EntropyModel) -> Self:
        """Those of an updated entropy model."""
        lengths = model._cdf_length.tolist()
        rows = model._quantized_cdf.tolist()
        cdfs = [row[:length] for row, length in zip(rows, lengths, strict=True)]
        return cls(cdfs, lengths, model._offset.tolist())
