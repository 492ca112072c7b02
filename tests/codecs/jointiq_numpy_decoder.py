"""The symbols of a JointIQ string, decoded a second time: NumPy, integers, and CompressAI's rANS alone.

Written from ``lof/codecs/lapped/jointiq/FORMAT.md``; what lapped and MSP have too is theirs.
"""

import lapped_numpy_decoder as lapped
import msp_numpy_decoder as msp
import numpy as np
from lapped_numpy_decoder import halves_to_even, multiplier, seen_of


class NumpyDecoder(lapped.NumpyDecoder):
    cumulative, phi = msp.NumpyDecoder.cumulative, msp.NumpyDecoder.phi

    def sizes(self):
        sizes = self.weights["sizes"].tolist()
        self.components, _, _, self.window, _, self.serial = sizes[:6]
        return sizes[14:]

    def slice(self, name, h, part, e):
        if not self.serial:
            return super().slice(name, h, part, e)
        h = self.block(f"{name}.block", h)
        rows, columns, _ = h.shape
        wave = np.arange(columns) + 3 * np.arange(rows)[:, None]
        known = np.zeros_like(h)
        for number in range(wave.max() + 1):
            now = wave == number
            near = self.depthwise(f"{name}.spread", known, h)[now]
            for index, (row, column) in enumerate(np.argwhere(now)):
                if self.window:
                    inside = np.zeros_like(now)
                    top, left = (at // self.window * self.window for at in (row, column))
                    inside[top : top + self.window, left : left + self.window] = True
                    before = inside & (wave < number)
                    more = self.recalled(name, h[row, column][None], h[before], known[before])
                    near[index] = np.clip(near[index] + more[0], -2047, 2047)
            part[now] = self.values(f"{name}.second", self.block(f"{name}.block2", near), e)
            known[now] = self.linear(f"{name}.enter", seen_of(part[now], e))
        return self.linear(f"{name}.join", seen_of(part, e), h)

    def recall(self, name, h, known, near):
        if not self.window:
            return near
        rows, columns, _ = h.shape
        near = near.copy()
        for top in range(0, rows, self.window):
            for left in range(0, columns, self.window):
                inside = np.s_[top : top + self.window, left : left + self.window]
                odd = np.indices(h[inside].shape[:2]).sum(0) % 2 == 1
                more = self.recalled(name, h[inside][odd], h[inside][~odd], known[inside][~odd])
                near[inside][odd] = np.clip(near[inside][odd] + more, -2047, 2047)
        return near

    def recalled(self, name, asking, there, known):
        name = f"{name}.recalled"
        query, key = self.linear(f"{name}.query", asking), self.linear(f"{name}.key", there)
        mean = np.zeros_like(query)
        if len(key):
            likeness = halves_to_even(query @ key.T, 14)
            below = np.minimum(likeness.max(1, keepdims=True) - likeness, 511)
            share = np.rint(65536 * 2.0 ** (-below / 32)).astype(np.int64)
            mean = quotient(share @ self.linear(f"{name}.value", known), share.sum(1, keepdims=True))
        return self.linear(f"{name}.leave", mean)

    def values(self, layer, x, e):
        if f"{layer}_more.weight" not in self.weights:
            return super().values(layer, x, e)
        channels, name = len(e), layer.rpartition(".")[0]
        first = self.fine(layer, x).reshape(len(x), 2, channels)
        more = self.fine(f"{layer}_more", x)
        others = more[:, channels:].reshape(len(x), self.components - 1, 3, channels)
        told = [np.stack([*first.swapaxes(0, 1), more[:, :channels]], 1)]
        for other in others.swapaxes(0, 1):
            told.append(other + np.pad(first, ((0, 0), (0, 1), (0, 0))))
        for index, one in enumerate(told):
            refinement = f"{name}.refinement.{index}"
            if f"{refinement}.a.weight" in self.weights:
                seen = np.clip(halves_to_even(one, 2), -2047, 2047).reshape(len(x), 3 * channels)
                p, q = np.split(self.linear(f"{refinement}.a", np.concatenate([x, seen], 1)), 2, -1)
                gated = np.clip(halves_to_even(p * np.maximum(q, 0), 8), -2047, 2047)
                told[index] = one + self.fine(f"{refinement}.b", gated).reshape(one.shape)
        m, octaves, weight = np.stack(told).transpose(2, 0, 1, 3)
        mean = halves_to_even(np.clip(m, -16383, 16383) * multiplier(e), 12 - e // 32)
        octaves = np.clip(halves_to_even(octaves, 2), -2047, 2047)
        place = np.clip(halves_to_even(octaves + 8 * e, 5) + 26, 0, 79)
        weight = np.clip(halves_to_even(weight, 5), 1, 255)
        found = np.zeros((len(x), channels), np.int64)
        for at in np.ndindex(len(x), channels):
            means, places, weights = (part[:, *at].tolist() for part in (mean, place, weight))
            if places[0] <= 10:
                centre, table = means[0], (places[0], self.cdfs, self.lengths, self.offsets)
            else:
                centre = means[weights.index(max(weights))]
                start, cdf = self.cumulative([m - centre for m in means], places, weights)
                table = (0, [cdf], [len(cdf)], [start])
            found[at] = 64 * self.rans.decode_stream([table[0]], *table[1:])[0] + centre
        return found

    def fine(self, layer, x):
        """In 1/4 of an activation's unit."""
        total, shift = self.sums(layer, x)
        return np.clip(halves_to_even(total, shift - 2), -16383, 16383)


def quotient(a, b):
    """a / b, rounded to the nearest integer, halves to even."""
    down = a // b
    twice = 2 * (a - down * b)
    return down + ((twice > b) | ((twice == b) & (down % 2 == 1)))
