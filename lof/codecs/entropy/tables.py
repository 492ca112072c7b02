"""Cumulative distributions as CompressAI's rANS coder takes them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from compressai.entropy_models import EntropyBottleneck, EntropyModel, GaussianConditional
from torch import nn

WHOLE = 2**16
"""The sum of all frequencies of a distribution."""
FARTHEST = 2**24
"""No distribution begins farther than this from 0."""
WIDEST = 2**13
"""No quantile of a factorised prior is farther from 0: a longer table has no room for its symbols' frequencies."""


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


def check_quantiles(net: nn.Module) -> None:
    """Whether tables can be computed for the factorised priors of a network.

    Raises:
        ValueError: one would be absurdly long.
    """
    for model in net.modules():
        if isinstance(model, EntropyBottleneck) and not bool((model.quantiles.abs() <= WIDEST).all()):
            raise ValueError("a factorised prior is wider than any latent")


def check_tables(net: nn.Module) -> None:
    """:meth:`Tables.check` for all of CompressAI's entropy models in an updated network.

    Raises:
        ValueError: the coder cannot work with one.
    """
    for model in net.modules():
        if isinstance(model, EntropyBottleneck | GaussianConditional):
            wanted = model.channels if isinstance(model, EntropyBottleneck) else model.scale_table.numel()
            dimensions = model._quantized_cdf.ndim, model._cdf_length.ndim, model._offset.ndim
            if dimensions != (2, 1, 1) or not (
                wanted == len(model._quantized_cdf) == model._cdf_length.numel() == model._offset.numel()
            ):
                raise ValueError("it has not one table of frequencies for each distribution")
            Tables.of(model).check()
