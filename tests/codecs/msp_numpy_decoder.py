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
        sizes = self.weights["sizes"].tolist()
        _, self.channels, self.levels, self.spatial, self.width, self.depth, *rest = sizes
        self.groups = []
        while sum(self.groups) < self.channels:
            self.groups.append(rest.pop(0))
        (self.components,) = rest or [1]

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
                parts = 2 if self.components == 1 else 3
                totals, shifts = np.split(total, parts), np.split(shift, parts)
                mean = round_shift(totals[0] * 64, shifts[0] + 5)
                table = np.clip(round_shift(totals[1], shifts[1] + 2), 0, 63)
                if self.components == 1:
                    self.read("gaussian_conditional", y, positions, stride, cell, first, table, mean)
                else:
                    weight = np.clip(round_shift(totals[2], shifts[2]), 1, 255)
                    self.read_mixtures(y, positions, stride, cell, first, mean, table, weight)
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

    def read_mixtures(self, y, positions, stride, cell, first, *predicted):
        """As ``read``, element by element."""
        split = [p.reshape(self.components, len(positions), -1, *p.shape[1:]) for p in predicted]
        for index, (row, column) in enumerate(positions):
            h = len(range(row * stride, self.rows, cell))
            w = len(range(column * stride, self.columns, cell))
            for channel, i, j in np.ndindex(split[0].shape[2], h, w):
                means, tables, weights = (p[:, index, channel, i, j].tolist() for p in split)
                centre = means[weights.index(max(weights))]
                start, cdf = self.cumulative([m - centre for m in means], tables, weights)
                (symbol,) = self.rans.decode_stream([0], [cdf], [len(cdf)], [start])
                y[first + channel, row * stride + i * cell, column * stride + j * cell] = 64 * symbol + centre

    def cumulative(self, offsets, tables, weights):
        """First symbol and cumulative frequencies of one element."""
        reach = self.weights["mixture.reach"].tolist()
        first = max(-reach[-1], min(d // 64 - reach[t] for d, t in zip(offsets, tables, strict=True)))
        last = min(reach[-1], max(-(-d // 64) + reach[t] for d, t in zip(offsets, tables, strict=True)))
        edges = 64 * np.arange(first, last + 2) - 32
        mass = sum(w * self.phi(edges - d, t) for d, t, w in zip(offsets, tables, weights, strict=True))
        count = len(edges)
        cdf = np.arange(count) + (mass - mass[0]) * (65536 - count) // (sum(weights) << 24)
        return first, [*cdf.tolist(), 65536]

    def phi(self, u, table):
        at = np.minimum(abs(u) * int(self.weights["mixture.inverse"][table]), (1536 << 20) - 1)
        phi = self.weights["mixture.phi"].astype(np.int64)
        low, high = phi[at >> 20], phi[(at >> 20) + 1]
        value = low + ((high - low) * (at % 2**20) >> 20)
        return np.where(u >= 0, value, 2**24 - value)

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
