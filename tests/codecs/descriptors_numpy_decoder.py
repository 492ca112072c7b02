"""A string of descriptors, decoded a second time: NumPy and whole numbers alone, the entropy coder too.

Written from ``lof/codecs/descriptors/FORMAT.md``, and from what the texts of the codecs and of ``jpeg_side.py`` say of
where the string stands and of its level. Levels are counted in quarters here, 0 to 31.
"""

import math
import zlib

import numpy as np
from lapped_numpy_decoder import halves_to_even

NEIGHBOURS = [(down, right) for down in (-2, -1, 0) for right in (-2, -1, 0, 1, 2)][:12]


class NumpyDecoder:
    """
    Args:
        prefix: with which the names of the layers begin.
    """

    def __init__(self, weights, prefix):
        own = {key: value for key, value in weights.items() if key.startswith(prefix)}
        self.weights = {key[len(prefix) :]: np.asarray(value).astype(np.int64) for key, value in own.items()}

    def decode(self, string, rows, columns, level):
        """(rows, columns) int64. What no encoder writes is a ValueError."""
        if string in (b"", b"\x0f"):
            return np.full((rows, columns), 15 if string else 0)
        rans, known = Rans(string), {}
        for row, column in sorted(np.ndindex(rows, columns), key=lambda at: (at[1] + 3 * at[0], at[0])):
            known[row, column] = rans.read(self.frequencies(known, row, column, level))
            if known[row, column] == 16:
                raise ValueError("a symbol that never comes")
        rans.finish()
        return np.array([known[at] for at in np.ndindex(rows, columns)]).reshape(rows, columns)

    def frequencies(self, known, row, column, level):
        weight, bias, shift = (self.weights[f"near.{leaf}"] for leaf in ("weight", "bias", "shift"))
        total = bias.copy()
        for down, right in NEIGHBOURS:
            there = row + down, column + right
            if there in known:
                total += 32 * weight[:, known[there], 2 + down, 2 + right]
        a = settled(total, shift)
        b = settled(*self.sums("join", np.append(a, 8 * level)))  # all in units of 1/32
        c = settled(*self.sums("mix", b))
        logit = halves_to_even(*self.sums("leave", c))
        share = self.weights["powers"][np.minimum(logit.max() - logit, 511)]
        frequencies = 1 + share * (65535 - 16) // share.sum()
        frequencies[np.argmax(frequencies)] += 65535 - frequencies.sum()
        return [*frequencies.tolist(), 1]

    def sums(self, layer, x):
        """In units of 1/32 of 2**-shift, and the shifts."""
        weight = self.weights[f"{layer}.weight"][:, :, 0, 0]
        return weight @ x + self.weights[f"{layer}.bias"], self.weights[f"{layer}.shift"]


def settled(total, shift):
    return np.clip(halves_to_even(total, shift), 0, 255)


class Rans:
    def __init__(self, string):
        if len(string) < 8 or len(string) % 4:
            raise ValueError("no whole words")
        low, high, *self.words = np.frombuffer(string, "<u4").tolist()
        self.state = low + (high << 32)

    def read(self, frequencies):
        place, start, symbol = self.state % 65536, 0, 0
        while place >= start + frequencies[symbol]:
            start += frequencies[symbol]
            symbol += 1
        self.state = frequencies[symbol] * (self.state // 65536) + place - start
        if self.state < 2**31:
            if not self.words:
                raise ValueError("ends too early")
            self.state = (self.state << 32) + self.words.pop(0)
        return symbol

    def finish(self):
        if any(self.read([65535, 1]) for _ in range(4)) or self.words or self.state != 2**31:
            raise ValueError("does not end as strings do")


def of_rate(rate):
    """The level of a JointIQ stream."""
    return (31 * (224 - rate) + 224) // 448


def in_jpeg(data):
    """The codec's name, the string, its rows and columns and its level, of a whole file."""
    parts, tables, at = [], {}, 2
    while data[at + 1] != 0xDA:
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        content = data[at + 4 : at + 2 + length]
        at += 2 + length
        if kind == 0xEA and content[:4] == b"lof\0":
            parts.append(content[7:])
            assert content[4:6] == bytes([1, len(parts)])
            count = content[6]
        elif kind in (0xC0, 0xC1, 0xC2):
            height, width = (int.from_bytes(content[i : i + 2], "big") for i in (1, 3))
        while kind == 0xDB and content:
            size = 2 if content[0] >> 4 else 1
            steps = [int.from_bytes(content[1 + i * size :][:size], "big") for i in range(64)]
            tables[content[0] & 15] = steps
            content = content[1 + 64 * size :]
    assert count == len(parts)
    body = b"".join(parts)
    assert zlib.crc32(body[:-4]) == int.from_bytes(body[-4:], "big")
    name, rest = body[1 : 1 + body[0]], body[1 + body[0] : -4]
    level = min(31, max(0, round(4 * math.log2(max(64, sum(tables[0])) / 64))))
    rows, columns = (((side + 7) // 8 + 1) // 2 for side in (height, width))
    return name.decode(), rest[8:], rows, columns, level
