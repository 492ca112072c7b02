"""The standard decoder of lapped files' strings, and the encoder that is its mirror.

Needs CompressAI's rANS coder, and nothing of lof outside this folder but ``lof.codecs.entropy`` and errors.
``FORMAT.md`` says what it does so that another can be written.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from lof.codecs.entropy.fixed import exact_sums
from lof.codecs.entropy.rans import ans, is_rans, slack, uncollected
from lof.codecs.entropy.tables import Tables
from lof.codecs.lapped.config import RATE_MAX
from lof.codecs.lapped.fixed import make_exact
from lof.codecs.lapped.network import LappedNetwork, in_rows
from lof.codecs.lapped.prior import Take
from lof.codecs.lapped.synthesis import Synthesis
from lof.errors import StreamError

SYMBOL_LIMIT = 2**24 - 1
"""float32 holds all whole numbers up to here. CompressAI's coder never ends on some above 2^27."""


class Decoder:
    """Strings to images. ``net`` must be on the CPU, in float32, its probability model on its grid.

    y and z, and their symbols, are (1, rows, columns, channels).
    """

    def __init__(self, net: LappedNetwork) -> None:
        self.config, self.family, self.tables = net.config, net.family, net.tables.tables()
        self.prior = copy.deepcopy(net.prior).eval()
        make_exact(self.prior)
        self.synthesis: Callable[[Tensor, float], Tensor] = Synthesis(net.transforms)

    def decode(
        self, string: bytes, rate: int, rows: int, columns: int, *, values_alone: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Symbols of z, symbols of y and values of y, int32, int32 and float32, from a string.

        Args:
            values_alone: leave the symbols of y out; large images need less memory without them.

        Raises:
            StreamError: no encoder wrote this.
        """
        if not is_rans(string):
            raise StreamError(f"the string is not that of a {self.family} stream; compress the image again")
        decoder = ans.RansDecoder()
        elements = rows * columns * (self.config.latent_channels + self.config.side_channels)
        decoder.set_stream(string + slack(string, elements))
        z = torch.empty(0, dtype=torch.int32)
        values = torch.empty(1, rows, columns, self.config.latent_channels)
        y = None if values_alone else torch.empty(values.shape, dtype=torch.int32)

        def take(part: int, mean: Tensor | None, place: Tensor, rows: slice) -> Tensor:
            nonlocal z
            listed: list[int] = []
            for indexes, tables in self.coding(part, place):
                listed += decoder.decode_stream(indexes, tables.cdfs, tables.lengths, tables.offsets)
            # Far faster than torch.tensor, which looks at every element's type.
            found = torch.from_numpy(np.fromiter(listed, np.int32, len(listed)))
            found = found.reshape((place if mean is None else mean).shape)
            if mean is None:
                z = found
                return found.float()
            new = found + mean
            for tensor, what in ((values, new),) if y is None else ((values, new), (y, found)):
                view, which = in_rows(tensor, self.config, part, rows)
                view[:, which] = what
            return new

        self._walk(rate, (rows, columns), take)
        return z, y, values

    def encode(self, z: Tensor, y: Tensor, rate: int) -> bytes:
        """Inverse of :meth:`decode`, from the symbols, whole numbers in any dtype."""
        encoder = ans.BufferedRansEncoder()

        def take(part: int, mean: Tensor | None, place: Tensor, rows: slice) -> Tensor:
            symbols = self._part(z, y, part, rows)
            written, at = listed_of(symbols), 0
            for indexes, tables in self.coding(part, place):
                some = written[at : at + len(indexes)]
                encoder.encode_with_indexes(some, indexes, tables.cdfs, tables.lengths, tables.offsets)
                at += len(indexes)
            return symbols if mean is None else symbols + mean

        self._walk(rate, (y.shape[1], y.shape[2]), take)
        return bytes(encoder.flush())

    def symbols(self, z: Tensor, y: Tensor, rate: int) -> tuple[Tensor, Tensor]:
        """Symbols of z and y, int32, to which latents are rounded."""
        whole = torch.empty(y.shape, dtype=torch.int32)

        def take(part: int, mean: Tensor | None, place: Tensor, rows: slice) -> Tensor:
            piece = self._part(z, y, part, rows)
            residual = rounded(piece if mean is None else piece - mean)
            if mean is None:
                return residual
            view, which = in_rows(whole, self.config, part, rows)
            view[:, which] = residual.to(torch.int32)
            return residual + mean

        self._walk(rate, (y.shape[1], y.shape[2]), take)
        return rounded(z).to(torch.int32), whole

    def coding(self, part: int, place: Tensor) -> Iterator[tuple[list[int], Tables]]:
        """Each element's table, and the tables; some elements of a part at a time."""
        yield listed_of(place), self.tables

    def _part(self, z: Tensor, y: Tensor, part: int, rows: slice) -> Tensor:
        if not part:
            return z.to(torch.float32)
        view, which = in_rows(y, self.config, part, rows)
        return view[:, which].to(torch.float32)

    def synthesise(self, values: Tensor, rate: int) -> Tensor:
        """The image of y, (1, H, W, 3), neither clamped nor rounded."""
        return self.synthesis(values, rate / RATE_MAX)

    def _walk(self, rate: int, size: tuple[int, int], take: Take) -> None:
        with torch.no_grad(), exact_sums(), uncollected():
            self.prior.walk(torch.tensor([rate]), size, take)


def rounded(x: Tensor) -> Tensor:
    """The nearest symbols that can be written."""
    return torch.round(x).clamp_(-SYMBOL_LIMIT, SYMBOL_LIMIT)


def listed_of(whole: Tensor) -> list[int]:
    """All elements, whole numbers, one after another."""
    found: list[int] = whole.to(torch.int32).flatten().numpy().tolist()
    return found
