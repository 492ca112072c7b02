"""Descriptors as a string, and back: rANS with the frequencies of the context model.

Descriptors are coded in the order of ``column + 3·row``, those of one sum by their rows: all that a prediction sees
comes before it, and those of one sum need nothing of each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lof.codecs.descriptors.classes import CLASSES, SHORT
from lof.codecs.descriptors.context import DEEPEST, OCTAVE, REACH, SEEN, Context
from lof.codecs.entropy.fixed import ACTIVATION_UNIT, CEILING
from lof.codecs.entropy.rans import ans, is_rans, slack
from lof.codecs.entropy.tables import WHOLE
from lof.errors import StreamError

Whole = NDArray[np.int64]
_SLOPE: Final = REACH + 1
_OUTSIDE: Final = CLASSES
"""Stands for a descriptor outside of the picture."""


class Coder:
    """Codes maps of descriptors, (rows, columns) int64, with a context whose weights are on their grids.

    All numbers are multiples of small powers of two, so that float64 holds them and their sums exactly.
    """

    def __init__(self, context: Context) -> None:
        weights = {
            name: layer.weight.detach().double().cpu().numpy() for name, layer in context.layers().items()
        }
        biases: dict[str, Any] = {
            name: layer.bias.detach().double().cpu().numpy()  # type: ignore[union-attr]
            for name, layer in context.layers().items()
        }
        near = np.stack([weights["near"][:, :, REACH + down, REACH + right].T for down, right in SEEN])
        # What each neighbour says by its class: nothing where it lies outside.
        self.near = np.pad(near, ((0, 0), (0, 1), (0, 0)))
        self.start = biases["near"]
        self.layers = [
            (weights[name][:, :, 0, 0].T.copy(), biases[name]) for name in ("join", "mix", "leave")
        ]
        self.powers = context.powers.cpu().numpy().astype(np.int64)

    def encode(self, descriptors: Whole, level: float) -> bytes:
        """The string; a short one where all are 0, or all leave the picture as it is.

        Args:
            level: as :class:`Context` has it.
        """
        for number, string in SHORT.items():
            if (descriptors == number).all():
                return string
        waves = list(_waves(*descriptors.shape))
        rows, columns = (np.concatenate(part) for part in zip(*waves, strict=True))
        cdfs = self._cdfs(_padded(descriptors), rows, columns, level)
        encoder = ans.BufferedRansEncoder()
        encoder.encode_with_indexes(descriptors[rows, columns].tolist(), *_arguments(cdfs))
        # Nothing, at next to no cost: CompressAI's coder writes beyond its memory where there are one or two symbols.
        encoder.encode_with_indexes([0] * 4, [0] * 4, [[0, WHOLE - 1, WHOLE]], [3], [0])
        return bytes(encoder.flush())

    def decode(self, string: bytes, rows: int, columns: int, level: float) -> Whole:
        """Inverse of :meth:`encode`.

        Raises:
            StreamError: no encoder wrote this.
        """
        padded = _padded(np.zeros((rows, columns), np.int64))
        found = padded[REACH:, REACH:-REACH]
        for number, short in SHORT.items():
            if string == short:
                found[:] = number
                return found
        if not is_rans(string):
            raise StreamError("its descriptors are no such string; encode the picture again")
        decoder = ans.RansDecoder()
        decoder.set_stream(string + slack(string, rows * columns))
        for at in _waves(rows, columns):
            found[at] = decoder.decode_stream(*_arguments(self._cdfs(padded, *at, level)))
            if found[at].min() < 0 or found[at].max() >= CLASSES:
                raise StreamError("its descriptors are beyond 0 to 15; encode the picture again")
        return found

    def _cdfs(self, padded: Whole, rows: Whole, columns: Whole, level: float) -> list[list[int]]:
        """A cumulative distribution for each place; the coder wants one symbol more, of frequency 1, for all others."""
        x = np.repeat(self.start[None], len(rows), 0)
        for (down, right), said in zip(SEEN, self.near, strict=True):
            x += said[padded[REACH + rows + down, REACH + columns + right]]
        x = np.concatenate([_settled(x), np.full((len(x), 1), level)], 1)
        for number, (weight, bias) in enumerate(self.layers):
            x = (_settled(x) if number else x) @ weight + bias
        whole = np.rint(x * OCTAVE).astype(np.int64)
        shares = self.powers[np.minimum(whole.max(1, keepdims=True) - whole, DEEPEST)]
        frequencies = 1 + shares * (WHOLE - 1 - CLASSES) // shares.sum(1, keepdims=True)
        frequencies[np.arange(len(x)), frequencies.argmax(1)] += WHOLE - 1 - frequencies.sum(1)
        return [[0, *row, WHOLE] for row in frequencies.cumsum(1).tolist()]


def _arguments(cdfs: list[list[int]]) -> tuple[list[int], list[list[int]], list[int], list[int]]:
    return list(range(len(cdfs))), cdfs, [CLASSES + 2] * len(cdfs), [0] * len(cdfs)


def _settled(x: NDArray[np.float64]) -> NDArray[np.float64]:
    settled: NDArray[np.float64] = np.rint(x.clip(0, CEILING) * ACTIVATION_UNIT) / ACTIVATION_UNIT
    return settled


def _padded(descriptors: Whole) -> Whole:
    return np.pad(descriptors, ((REACH, 0), (REACH, REACH)), constant_values=_OUTSIDE)


def _waves(rows: int, columns: int) -> Iterator[tuple[Whole, Whole]]:
    """Rows and columns of the places that are coded together, one wave after another."""
    for wave in range(columns + _SLOPE * (rows - 1)):
        first, end = max(0, -(-(wave - columns + 1) // _SLOPE)), min(rows, wave // _SLOPE + 1)
        if first < end:  # in narrow pictures some sums are no place's
            at = np.arange(first, end)
            yield at, wave - _SLOPE * at
