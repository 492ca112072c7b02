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
        anchors, others, back = checkerboard(h.shape[1], h.shape[2])
        flat = h.flatten(1, 2)
        query = self.settle(self.query(flat.index_select(1, others)))
        key = self.settle(self.key(flat.index_select(1, anchors)))
        value = self.settle(self.value(known.flatten(1, 2).index_select(1, anchors)))
        new = self.settle(self.leave(self._mean(query, key, value)))
        whole = torch.cat([new.new_zeros(len(new), len(anchors), new.shape[2]), new], 1)
        return cast(Tensor, whole.index_select(1, back).unflatten(1, h.shape[1:3]))

    def _mean(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Values by likeness; all are (B, places, channels)."""
        if not self.exact:
            likeness = query @ key.transpose(1, 2) / _SOFTNESS
            below = likeness.amax(-1, keepdim=True) - likeness
            share = torch.exp2(-below.clamp_max(DEEPEST / OCTAVE))
            return share @ value / share.sum(-1, keepdim=True)
        # Sums of products need more than float32's 24 bits, and less than float64's 53.
        likeness = query.double() @ key.double().transpose(1, 2)
        likeness = likeness.mul_(OCTAVE / (_SOFTNESS * UNIT**2)).round_()
        below = (likeness.amax(-1, keepdim=True) - likeness).clamp_max_(DEEPEST)
        share = _SHARES[below.long()]
        return (share @ value.double()).div_(share.sum(-1, keepdim=True)).round_().float()
