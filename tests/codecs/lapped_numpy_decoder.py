"""The symbols of a lapped string, decoded a second time: NumPy, integers, and CompressAI's rANS alone.

Written from ``lof/codecs/lapped/FORMAT.md``. Returns the symbols of z and 64 times y, rows × columns × channels, int64.
"""

import numpy as np
from compressai import ans

POWERS = [256, 262, 267, 273, 279, 285, 292, 298, 304, 311, 318, 325, 332, 339, 347, 354, 362, 370, 378, 386]
POWERS += [395, 403, 412, 421, 431, 440, 450, 459, 470, 480, 490, 501]


class NumpyDecoder:
    def __init__(self, weights, quality):
        self.weights = {key: np.asarray(value) for key, value in weights.items()}
        self.rate = int(64 * quality) - 288
        sizes = self.sizes()
        *_, self.side, self.width = sizes[:6]
        self.slices = sizes[6:]
        lengths = self.weights["tables.length"].tolist()
        rows = np.split(self.weights["tables.cdf"], np.cumsum(lengths)[:-1])
        self.cdfs = [[*row.tolist(), 65536] for row in rows]
        self.lengths = [length + 1 for length in lengths]
        self.offsets = [1 - length // 2 for length in lengths]

    def sizes(self):
        sizes = self.weights["sizes"].tolist()
        return sizes[sizes[0] == 0 :]

    def decode(self, string, rows, columns):
        self.rans = ans.RansDecoder()
        self.rans.set_stream(string)
        place = np.clip(halves_to_even(self.formula("prior.side"), 8), 0, 79)
        z = self.read(np.broadcast_to(place, (-(-rows // 4), -(-columns // 4), self.side)))
        seen = np.clip(32 * z, -2047, 2047)
        h = self.linear("prior.enter", np.concatenate([seen, np.full_like(seen[..., :1], self.rate)], -1))
        h = shuffle(self.linear("prior.up32", self.block("prior.block64", h)))
        h = shuffle(self.linear("prior.up16", self.block("prior.block32", h)))[:rows, :columns]
        scale = self.formula("prior.spread")
        y = np.zeros((rows, columns, sum(self.slices)), np.int64)
        first = 0
        for number, channels in enumerate(self.slices):
            some = np.s_[..., first : first + channels]
            h = self.slice(f"prior.slices.{number}", h, y[some], scale[some])
            first += channels
        return z, y

    def slice(self, name, h, part, e):
        """The state after a slice of y, whose values are put into ``part``."""
        even = np.indices(h.shape[:2]).sum(0) % 2 == 0
        h = self.block(f"{name}.block", h)
        part[even] = self.values(f"{name}.first", h[even], e)
        known = np.zeros_like(h)
        known[even] = self.linear(f"{name}.enter", seen_of(part[even], e))
        near = self.recall(name, h, known, self.depthwise(f"{name}.spread", known, h))
        part[~even] = self.values(f"{name}.second", self.block(f"{name}.block2", near[~even]), e)
        return self.linear(f"{name}.join", seen_of(part, e), h)

    def recall(self, name, h, known, near):
        return near

    def formula(self, name):
        a, b = self.weights[name].astype(np.int64)
        return (256 * a + b * self.rate + 128) >> 8

    def read(self, place):
        found = self.rans.decode_stream(place.ravel().tolist(), self.cdfs, self.lengths, self.offsets)
        return np.array(found, np.int64).reshape(place.shape)

    def values(self, layer, x, e):
        """64 times the values of a pass."""
        total, shift = self.sums(layer, x)
        m, octaves = np.split(total, 2, -1)
        m_shift, octaves_shift = np.split(shift, 2)
        m = np.clip(halves_to_even(m, m_shift - 2), -16383, 16383)
        mean = halves_to_even(m * multiplier(e), 12 - e // 32)
        octaves = np.clip(halves_to_even(octaves, octaves_shift), -2047, 2047)
        place = np.clip(halves_to_even(octaves + 8 * e, 5) + 26, 0, 79)
        return 64 * self.read(place) + mean

    def block(self, name, x):
        seen = self.depthwise(f"{name}.dw", x) if f"{name}.dw.weight" in self.weights else x
        p, q = np.split(self.linear(f"{name}.a", seen), 2, -1)
        gated = np.clip(halves_to_even(p * np.maximum(q, 0), 8), -2047, 2047)
        return self.linear(f"{name}.b", gated, x)

    def linear(self, layer, x, plus=0):
        total, shift = self.sums(layer, x)
        return np.clip(halves_to_even(total, shift) + plus, -2047, 2047)

    def sums(self, layer, x):
        weight = self.weights[f"{layer}.weight"].astype(np.int64)
        return x @ weight.T + self.weights[f"{layer}.bias"], self.weights[f"{layer}.shift"].astype(np.int64)

    def depthwise(self, layer, x, plus=0):
        weight = self.weights[f"{layer}.weight"].astype(np.int64)[:, 0]
        side = weight.shape[-1]
        padded = np.pad(x, ((side // 2,) * 2, (side // 2,) * 2, (0, 0)))
        total = np.zeros_like(x) + self.weights[f"{layer}.bias"]
        for row, column in np.ndindex(side, side):
            total += weight[:, row, column] * padded[row : row + x.shape[0], column : column + x.shape[1]]
        shift = self.weights[f"{layer}.shift"].astype(np.int64)
        return np.clip(halves_to_even(total, shift) + plus, -2047, 2047)


def multiplier(e):
    return np.array(POWERS)[e % 32]


def seen_of(v, e):
    """From 64 times the values."""
    inside = np.clip(v, -32767, 32767) * multiplier(-e)
    return np.clip(halves_to_even(inside, 6 - (-e) // 32), -2047, 2047)


def shuffle(x):
    rows, columns, channels = x.shape
    return (
        x.reshape(rows, columns, 2, 2, -1)
        .transpose(0, 2, 1, 3, 4)
        .reshape(2 * rows, 2 * columns, channels // 4)
    )


def halves_to_even(values, shift):
    """values / 2**shift, rounded to the nearest integer, halves to even; shifts may be negative."""
    values = values << np.maximum(0, -shift)
    shift = np.maximum(0, shift)
    down = values >> shift
    twice = 2 * (values - (down << shift))
    unit = np.int64(1) << shift
    return down + ((twice > unit) | ((twice == unit) & (down % 2 == 1)) & (shift > 0))
