"""The global context: for each place a weighted summary of what is decoded in its window, near or far.

An image is cut into windows, so that time grows with its size and memory does not. How much each place of reference
counts is learned: it follows from the likeness of states.
"""

from __future__ import annotations

from typing import Final, cast

import torch
from torch import Tensor

from lof.codecs.lapped.fixed import UNIT, FixedLinear, FixedModule
from lof.codecs.lapped.prior import checkerboard

OCTAVE: Final = 32
"""Exactly, likeness is a whole number of 1/32 of an octave."""
DEEPEST: Final = 511
"""What is less alike than the likest place, by more of them, counts as if it were by so many."""
_SOFTNESS: Final = 8
"""Products of states for an octave."""
_UNLIKE, _NOTHING = -(2.0**40), 2.0**-20
_SHARES = torch.tensor([round(2**16 * 2 ** (-k / OCTAVE)) for k in range(DEEPEST + 1)], dtype=torch.float64)


class Recall(FixedModule):
    """What the first pass brought at places like this one.

    Args:
        width: channels of the state.
        window: places a side, even.
        channels: of queries, keys and values.
    """

    def __init__(self, width: int, window: int, channels: int) -> None:
        super().__init__()
        self.window = window
        self.query, self.key = FixedLinear(width, channels), FixedLinear(width, channels)
        self.value, self.leave = FixedLinear(width, channels), FixedLinear(channels, width)
        with torch.no_grad():
            self.leave.weight.zero_()
            self.leave.bias.zero_()

    def forward(self, h: Tensor, known: Tensor) -> Tensor:
        """What to add to the state at the places of the second pass; 0 at those of the first.

        Args:
            h: the state, (B, rows, columns, width).
            known: what the first pass brought, of the same shape.
        """
        side = self.window
        rows = [
            torch.cat(
                [self._of_window(*pair) for pair in zip(*(x.split(side, 2) for x in strip), strict=True)], 2
            )
            for strip in zip(h.split(side, 1), known.split(side, 1), strict=True)
        ]
        return torch.cat(rows, 1)

    def _of_window(self, h: Tensor, known: Tensor) -> Tensor:
        anchors, others, back = checkerboard(h.shape[1], h.shape[2], h.device)
        flat = h.flatten(1, 2)
        query = self.settle(self.query(flat.index_select(1, others)))
        key = self.settle(self.key(flat.index_select(1, anchors)))
        value = self.settle(self.value(known.flatten(1, 2).index_select(1, anchors)))
        new = self.settle(self.leave(self.mean(query, key, value)))
        whole = torch.cat([new.new_zeros(len(new), len(anchors), new.shape[2]), new], 1)
        return cast(Tensor, whole.index_select(1, back).unflatten(1, h.shape[1:3]))

    def memory(self, h: Tensor) -> Memory:
        """What recalls while places are decoded one after another; ``h`` as for :meth:`forward`."""
        return Memory(self, h)

    def mean(self, query: Tensor, key: Tensor, value: Tensor, there: Tensor | None = None) -> Tensor:
        """Values by likeness, 0 where there is none.

        Args:
            query, key, value: (B, places, channels).
            there: which keys count for which query, (queries, keys); all if ``None``.
        """
        if not self.exact:
            likeness = _only(query @ key.transpose(1, 2) / _SOFTNESS, there)
            below = likeness.amax(-1, keepdim=True) - likeness
            share = torch.exp2(-below.clamp_max(DEEPEST / OCTAVE))
            share = share if there is None else share * there
            return share @ value / share.sum(-1, keepdim=True).clamp_min(_NOTHING)
        # Sums of products need more than float32's 24 bits, and less than float64's 53.
        likeness = query.double() @ key.double().transpose(1, 2)
        likeness = _only(likeness.mul_(OCTAVE / (_SOFTNESS * UNIT**2)).round_(), there)
        below = (likeness.amax(-1, keepdim=True) - likeness).clamp_max_(DEEPEST)
        share = _SHARES[below.long()]
        share = share if there is None else share * there
        return (
            (share @ value.double()).div_(share.sum(-1, keepdim=True).clamp_min_(_NOTHING)).round_().float()
        )


class Memory:
    """What is decoded so far, for places that are decoded one after another."""

    def __init__(self, recall: Recall, h: Tensor) -> None:
        self.of, flat, side = recall, h.flatten(1, 2), recall.window
        self.query, self.key = (recall.settle(layer(flat)) for layer in (recall.query, recall.key))
        self.value = torch.zeros_like(self.key)
        self.known = torch.zeros(flat.shape[1], dtype=torch.bool, device=h.device)
        rows, columns = (torch.arange(n, device=h.device) // side for n in h.shape[1:3])
        self.window = (rows[:, None] * len(columns) + columns).flatten()

    def recall(self, places: Tensor) -> Tensor:
        """What to add to the state at places, (B, places, width), from what is known in their windows."""
        there = (self.window[places][:, None] == self.window) & self.known
        mean = self.of.mean(self.query[:, places], self.key, self.value, there)
        return self.of.settle(self.of.leave(mean))

    def add(self, places: Tensor, new: Tensor) -> None:
        """What has become known at places, (B, places, width)."""
        value = self.of.settle(self.of.value(new))
        self.value = self.value.index_put(
            (torch.arange(len(value), device=value.device)[:, None], places), value
        )
        self.known[places] = True


def _only(likeness: Tensor, there: Tensor | None) -> Tensor:
    return likeness if there is None else likeness.masked_fill(~there, _UNLIKE)
