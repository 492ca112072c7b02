"""The symbols of an MSP string, decoded a second time: NumPy, integers, and CompressAI's rANS alone.

Written from ``lof/codecs/msp/FORMAT.md``. Returns 64 times y, (M, rows, columns) int64.
"""

import numpy as np
from compressai import ans

POSITIONS = {
    1: [[(1, 1), (0, 1), (1, 0)]],
    2: [[(1, 1)], [(0, 1), (1, 0)]],
    3: [[(1, 1)], [(0, 1)], [(1, 0)]],
}


class NumpyDecoder:
    def __init__(self, weights):
        self.weights = {key: np.asarray(value) for key, value in weights.items()}
        _, self.channels, self.levels, self.spatial, self.width, self.depth, *self.groups = self.weights[
            "sizes"
        ]

    def decode(self, string, rows, columns):
        self.rows, self.columns = rows, columns
        self.rans = ans.RansDecoder()
        self.rans.set_stream(string)
        coarsest = 2**self.levels
        y = np.zeros(
            (self.channels, -(-rows // coarsest) * coarsest, -(-columns // coarsest) * coarsest), np.int64
        )
        median = np.rint(64 * self.weights["entropy_bottleneck.quantiles"][:, 0, 1]).astype(np.int64)
        table = np.broadcast_to(np.arange(self.channels)[:, None, None], y[:, ::coarsest, ::coarsest].shape)
        mean = np.broadcast_to(median[:, None, None], table.shape)
        self.read("entropy_bottleneck", y, [(0, 0)], coarsest, coarsest, 0, table, mean)
        state = None
        for level in reversed(range(self.levels)):
            state = self.decode_level(y, level, state)
        natural = np.empty_like(y)
        natural[self.weights["order"]] = y
        return natural[:, :rows, :columns]

    def decode_level(self, y, level, above):
        name = "prior.fine" if level == 0 else "prior.coarse"
        stride, cell = 2**level, 2 ** (level + 1)
        known = y[:, ::cell, ::cell]
        if above is None:
            shuffled = np.zeros((self.width // 2, *known.shape[1:]), np.int64)
        else:
            up = settle(self.conv(f"{name}.up", above))
            _, h, w = up.shape
            parts = up.reshape(-1, 2, 2, h, w).transpose(0, 3, 1, 4, 2)
            shuffled = parts.reshape(-1, 2 * h, 2 * w)
        state = settle(self.conv(f"{name}.enter", np.concatenate([self.seen(known, 0), shuffled])))
        number, new = 0, None
        for positions in POSITIONS[int(self.spatial)]:
            first = 0
            for size in self.groups:
                step = f"{name}.steps.{number}"
                if new is not None:
                    state = settle(state + self.conv(f"{step}.join", np.concatenate([state, *new])))
                for block in range(self.depth):
                    inner = settle(self.conv(f"{step}.blocks.{block}.0", state))
                    state = settle(state + self.conv(f"{step}.blocks.{block}.1", inner))
                features = settle(self.conv(f"{step}.features", state))
                total, shift = self.sums(f"{step}.head", features)
                half = len(total) // 2
                mean = round_shift(total[:half] * 64, shift[:half] + 5)
                table = np.clip(round_shift(total[half:], shift[half:] + 2), 0, 63)
                self.read("gaussian_conditional", y, positions, stride, cell, first, table, mean)
                new = [
                    self.seen(y[first : first + size, r * stride :: cell, c * stride :: cell], first)
                    for r, c in positions
                ]
                first, number = first + size, number + 1
        return state

    def read(self, model, y, positions, stride, cell, first, table, mean):
        """Decode one step's symbols into ``y``."""
        size = len(table) // len(positions)
        wanted, places = [], []
        for index, (row, column) in enumerate(positions):
            h = len(range(row * stride, self.rows, cell))
            w = len(range(column * stride, self.columns, cell))
            wanted.append(table[index * size : (index + 1) * size, :h, :w])
            places.append(
                (row * stride, column * stride, h, w, mean[index * size : (index + 1) * size, :h, :w])
            )
        lengths = self.weights[f"{model}._cdf_length"].tolist()
        cdfs = self.weights[f"{model}._quantized_cdf"].tolist()
        offsets = self.weights[f"{model}._offset"].tolist()
        indexes = np.concatenate([part.ravel() for part in wanted]).tolist()
        symbols = np.array(self.rans.decode_stream(indexes, cdfs, lengths, offsets), np.int64)
        at = 0
        for top, left, h, w, centre in places:
            piece = symbols[at : at + size * h * w].reshape(size, h, w)
            at += piece.size
            y[first : first + size, top::cell, left::cell][:, :h, :w] = 64 * piece + centre

    def seen(self, values, first):
        """32·v / spread for v = values / 64; the spreads are powers of two."""
        shift = np.log2(self.weights["prior.spread"][first : first + len(values)]).astype(np.int64) + 1
        return np.clip(round_shift(values, shift), -255, 255)

    def conv(self, layer, x):
        return round_shift(*self.sums(layer, x))

    def sums(self, layer, x):
        weight = self.weights[f"{layer}.weight"].astype(np.int64)
        side = weight.shape[-1] // 2
        padded = np.pad(x, ((0, 0), (side, side), (side, side)))
        _, h, w = x.shape
        total = np.zeros((len(weight), h, w), np.int64) + self.weights[f"{layer}.bias"][:, None, None]
        for row in range(weight.shape[2]):
            for column in range(weight.shape[3]):
                seen = padded[:, row : row + h, column : column + w]
                total += np.einsum("oi,ihw->ohw", weight[:, :, row, column], seen)
        return total, self.weights[f"{layer}.shift"].astype(np.int64)


def settle(x):
    return np.clip(x, 0, 255)


def round_shift(values, shift):
    """values / 2**shift per channel, rounded to the nearest integer, halves to even; shifts may be negative."""
    shift = shift[:, None, None]
    values = values << np.maximum(0, -shift)
    shift = np.maximum(0, shift)
    down = values >> shift
    twice = 2 * (values - (down << shift))
    unit = np.int64(1) << shift
    return down + ((twice > unit) | ((twice == unit) & (down % 2 == 1)) & (shift > 0))
