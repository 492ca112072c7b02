"""The standard decoder of MSP files' strings, and the encoder that is its mirror.

Needs CompressAI's layers and rANS coder, and nothing of lof outside this folder but ``lof.codecs.entropy`` and
errors. ``FORMAT.md`` says what it does so that another can be written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lof.codecs.entropy.fixed import exact_sums
from lof.codecs.entropy.mixture import MEAN_UNIT, MixtureTables
from lof.codecs.entropy.rans import ans, is_rans, slack
from lof.codecs.entropy.tables import Tables
from lof.codecs.msp import layout
from lof.codecs.msp.layout import Part
from lof.codecs.msp.network import MSPNetwork
from lof.codecs.msp.transforms import TiledSynthesis
from lof.errors import StreamError

STRIDE = 16
"""Pixels for each place of y, a side."""

Coding = Iterator[tuple[list[int], Tables]]
"""Each element's table, and the tables; some elements at a time."""


class Decoder:
    """Strings to images with one set of weights. ``net`` must be on the CPU, in float32, and updated."""

    def __init__(self, net: MSPNetwork) -> None:
        self.net, self.config = net, net.config
        self.factorised = Tables.of(net.entropy_bottleneck)
        self.conditional = (
            Tables.of(net.gaussian_conditional) if self.config.components == 1 else MixtureTables(net.mixture)
        )
        self.median = net.medians()
        self.synthesis = TiledSynthesis(net.g_s)
        self.names = net.order.argsort()

    def decode(self, string: bytes, height: int, width: int) -> Tensor:
        """The image in a string, (1, 3, H, W) float32, H and W the size in pixels rounded up to multiples of 16.

        Raises:
            StreamError: no encoder wrote this.
        """
        return self.synthesise(self.read(string, -(-height // STRIDE), -(-width // STRIDE))[1])

    def read(self, string: bytes, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """The symbols of y, and y as the synthesis takes it, multiples of 1/64; each (1, M, rows, columns) float32.

        Raises:
            StreamError: no encoder wrote this.
        """
        if not is_rans(string):
            raise StreamError("the string is not that of an MSP stream; compress the image again")
        decoder = ans.RansDecoder()
        decoder.set_stream(string + slack(string, rows * columns * self.config.latent_channels))
        symbols: list[Tensor] = []
        values: list[Tensor] = []

        def take(part: Part, mean: Tensor | None, form: Tensor | None) -> Tensor:
            centre, coding = self._coded_with(part, mean, form, (rows, columns))
            read: list[int] = []
            for wanted, tables in coding:
                read += decoder.decode_stream(wanted, tables.cdfs, tables.lengths, tables.offsets)
            symbols.append(_place(read, torch.zeros_like(centre), part, rows, columns))
            values.append(_place(read, centre, part, rows, columns))
            return values[-1]

        self._walk(take)
        return self._natural(symbols, rows, columns), self._natural(values, rows, columns)

    def encode(self, symbols: Tensor) -> bytes:
        """Inverse of :meth:`read`, from the symbols (1, M, rows, columns), integers in any dtype."""
        rows, columns = symbols.shape[-2:]
        ordered = layout.pad(symbols.to("cpu", torch.float32).index_select(1, self.net.order), self.config)
        inside = layout.pad(torch.ones(1, self.config.latent_channels, rows, columns), self.config)
        encoder = ans.BufferedRansEncoder()

        def take(part: Part, mean: Tensor | None, form: Tensor | None) -> Tensor:
            centre, coding = self._coded_with(part, mean, form, (rows, columns))
            piece = part.cut(ordered)
            written = _listed(_inside(piece, part, rows, columns))
            at = 0
            for wanted, tables in coding:
                some = written[at : at + len(wanted)]
                encoder.encode_with_indexes(some, wanted, tables.cdfs, tables.lengths, tables.offsets)
                at += len(wanted)
            return (piece + centre) * part.cut(inside)

        self._walk(take)
        return bytes(encoder.flush())

    def synthesise(self, values: Tensor) -> Tensor:
        """The image of y, neither clamped nor rounded."""
        return self.synthesis(values.detach())

    def _walk(self, take: layout.Take) -> None:
        with torch.no_grad(), exact_sums():
            layout.walk(self.net.prior, take)

    def _coded_with(
        self, part: Part, mean: Tensor | None, form: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Coding]:
        """Centre, and the tables of the elements that are coded."""
        if mean is not None and form is not None:
            return mean, self._conditionally(part, form, size)
        cells = [-(-side // part.cell) for side in size]
        channel = torch.arange(self.config.latent_channels, dtype=torch.float32).reshape(1, -1, 1, 1)
        indexes = _inside(channel.expand(1, -1, *cells), part, *size)
        return self.median.expand(1, -1, *cells), iter([(_listed(indexes), self.factorised)])

    def _conditionally(self, part: Part, form: Tensor, size: tuple[int, int]) -> Coding:
        if isinstance(self.conditional, Tables):
            yield _listed(_inside(form, part, *size)), self.conditional
            return
        numbers = torch.stack([_inside(n, part, *size) for n in form.chunk(self.config.form, 1)])
        numbers[: self.config.components] *= MEAN_UNIT
        for tables in self.conditional.of(numbers.long().numpy(), self.config.components):
            yield list(range(len(tables.cdfs))), tables

    def _natural(self, pieces: list[Tensor], rows: int, columns: int) -> Tensor:
        stride = 2**self.config.levels
        padded = (rows + -rows % stride, columns + -columns % stride)
        y = layout.assemble(pieces, self.config, *padded)[..., :rows, :columns]
        return y.index_select(1, self.names)


def _listed(whole: Tensor) -> list[int]:
    found: list[int] = whole.to(torch.int32).tolist()
    return found


def _inside(tensor: Tensor, part: Part, rows: int, columns: int) -> Tensor:
    """The elements that are coded, in one row: by position, channel, row and column."""
    chunks = tensor.chunk(len(part.positions), 1)
    extents = part.extents(rows, columns)
    return torch.cat([c[0, :, :h, :w].flatten() for c, (h, w) in zip(chunks, extents, strict=True)])


def _place(symbols: Sequence[int], centre: Tensor, part: Part, rows: int, columns: int) -> Tensor:
    """Values of a part from its symbols, in the order of :func:`_inside`; 0 in the padding."""
    values = torch.zeros_like(centre)
    # Far faster than torch.tensor, which looks at every element's type.
    flat = torch.from_numpy(np.fromiter(symbols, np.int32, len(symbols))).float()
    chunks = zip(values.chunk(len(part.positions), 1), centre.chunk(len(part.positions), 1), strict=True)
    start = 0
    for (target, middle), (h, w) in zip(chunks, part.extents(rows, columns), strict=True):
        count = target.shape[1] * h * w
        piece = flat[start : start + count].reshape(target.shape[1], h, w)
        target[0, :, :h, :w] = piece + middle[0, :, :h, :w]
        start += count
    return values
