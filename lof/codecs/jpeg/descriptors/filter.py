"""The filter: what a decoder adds to a JPEG's picture, as its coefficients, tables and descriptors tell.

A trunk sees the JPEG alone; descriptors multiply the input of the last blocks (Ma, Liu, Wu 2020). The trunk that ships
is :mod:`.patches`, the paper's is :mod:`.edsr`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from lof.codecs.descriptors.classes import CLASSES, OFF, repeated
from lof.codecs.jpeg.descriptors.config import CELL, FREQUENCIES, Config
from lof.codecs.jpeg.descriptors.pictures import transposed, transposed_tables

PLAUSIBLE: Final = 1.25
"""Steps by which a coefficient of luma is changed at most, unless the filter has lost its way. What a JPEG rounds off
is half a step."""


Seen = Sequence[tuple[Tensor, Tensor]]
"""Of each view of a picture, what no descriptor changes: features, and what else :meth:`Filter.added` takes."""


class Filter(nn.Module, ABC):
    """See the module.

    Attributes:
        first, last: blocks of the trunk, and those that descriptors steer.
        steer: what each descriptor but 0 adds to factors of 1: of each channel, for the last blocks and what follows.
        precision: of the products in the blocks; coefficients come and go in float32.
        bytes_per_pixel, decoding_bytes_per_pixel: of memory, about what a search and decoding need.
    """

    first: nn.ModuleList
    last: nn.ModuleList
    bytes_per_pixel: int
    decoding_bytes_per_pixel: int

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.channels, self.views, self.precision = config.channels, config.views, torch.float32
        self.steer = nn.Parameter(0.1 * torch.randn(CLASSES - 1, (config.steered + 1) * config.channels))

    def forward(
        self, coefficients: Tensor, tables: Tensor, divisors: Tensor, descriptors: Tensor | None = None
    ) -> Tensor:
        """What to add to the coefficients, (B, h, w, 192): one place for a block of 8×8 pixels.

        Args:
            coefficients: of Y, Cb and Cr at full size, (B, h, w, 192), in grey levels.
            tables: (B, 2, 64) steps of luma and of chroma.
            divisors: (B, 2), by what rows and columns of colour were divided, 1 or 2.
            descriptors: (B, ⌈h/2⌉, ⌈w/2⌉, 16), one-hot; all 0 if ``None``.
        """
        return self.head(self.trunk(coefficients, tables, divisors), tables, descriptors)

    def trunk(self, coefficients: Tensor, tables: Tensor, divisors: Tensor) -> Seen:
        """The picture's features and, with two views, those of its transpose."""
        seen = [self.features(coefficients, tables, divisors)]
        if self.views == 2:
            seen.append(self.features(transposed(coefficients), transposed_tables(tables), divisors.flip(1)))
        return seen

    def head(self, seen: Seen, tables: Tensor, descriptors: Tensor | None = None) -> Tensor:
        """What to add, from what :meth:`trunk` returns."""
        added = self.added(*seen[0], tables, descriptors)
        if self.views == 2:
            turned = None if descriptors is None else descriptors.transpose(1, 2)
            added = 0.5 * (added + transposed(self.added(*seen[1], transposed_tables(tables), turned)))
        # Where the filter has lost its way, the JPEG stands alone.
        most = (added[..., :FREQUENCIES] / tables[:, None, None, 0]).abs().amax(-1, keepdim=True)
        added = added * (2 - most / PLAUSIBLE).clamp(0, 1)
        if descriptors is None:
            return added
        kept = 1 - descriptors[..., OFF:]
        return added * repeated(kept, CELL)[:, : added.shape[1], : added.shape[2]]

    @abstractmethod
    def features(self, coefficients: Tensor, tables: Tensor, divisors: Tensor) -> tuple[Tensor, Tensor]:
        """See :data:`Seen`."""

    @abstractmethod
    def added(self, x: Tensor, beside: Tensor, tables: Tensor, descriptors: Tensor | None) -> Tensor:
        """As :meth:`head` for one view, whatever the last descriptor means."""

    def factors(self, descriptors: Tensor | None, each: int, rows: int, columns: int) -> list[Tensor]:
        """For each steered block and what follows them, (B, rows, columns, C).

        Args:
            each: rows and columns of features for which a descriptor stands.
        """
        if descriptors is None:
            return [self.steer.new_ones(1)] * (len(self.last) + 1)
        factors = repeated(1 + descriptors[..., 1:] @ self.steer, each)[:, :rows, :columns]
        return list(factors.split(self.channels, -1))

    def reduced(self, x: Tensor) -> torch.autocast:
        """Products in :attr:`precision`."""
        return torch.autocast(x.device.type, self.precision, enabled=self.precision != torch.float32)
