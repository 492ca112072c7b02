"""Probabilities of descriptors: each from its neighbours above and on the left, and from how coarse the picture is.

One masked 5×5 convolution and three of 1×1, as in the paper, in fixed-point arithmetic, see
:mod:`lof.codecs.entropy.fixed`: every machine computes the same frequencies.
"""

from __future__ import annotations

import math
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lof.codecs.descriptors.classes import CLASSES
from lof.codecs.entropy.fixed import ACTIVATION_UNIT, CEILING, FixedConv
from lof.codecs.entropy.tables import WHOLE

REACH: Final = 2
"""Descriptors that a prediction sees, in rows above and in columns on both sides."""
SEEN: Final = tuple((down, right) for down in range(-REACH, 1) for right in range(-REACH, REACH + 1))[
    : -REACH - 1
]
"""Rows down and columns to the right of the 12 neighbours that are known."""
OCTAVE: Final = 32
"""Logits are read in 1/32 of a bit, 0 to 511 below the largest."""
DEEPEST: Final = 511


class Context(nn.Module):
    """The probability model. ``powers`` are 2^(-k/32) in 1/65536, stored so that no machine computes them anew.

    A picture's *level*, (B,), tells how coarse it is: a multiple of 1/4 from 0 to 7.75.
    """

    mask: Tensor
    powers: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = FixedConv(CLASSES, width, 2 * REACH + 1)
        self.join, self.mix = FixedConv(width + 1, width, 1), FixedConv(width, width, 1)
        self.leave = FixedConv(width, CLASSES, 1)
        mask = torch.zeros(2 * REACH + 1, 2 * REACH + 1)
        mask.view(-1)[: len(SEEN)] = 1
        self.register_buffer("mask", mask, persistent=False)
        powers = [round(WHOLE * 2 ** (-k / OCTAVE)) for k in range(DEEPEST + 1)]
        self.register_buffer("powers", torch.tensor(powers, dtype=torch.int32))
        with torch.no_grad():
            self.leave.weight.mul_(0.1)

    def check(self) -> None:
        """Whether frequencies can be computed from the table of powers.

        Raises:
            ValueError: it is no such table.
        """
        falling = bool((self.powers.diff() <= 0).all())
        if not (falling and int(self.powers[-1]) >= 0 and 0 < int(self.powers[0]) <= WHOLE):
            raise ValueError("its table of powers holds numbers that cannot be")

    def prices(self, descriptors: Tensor, level: Tensor) -> Tensor:
        """What each class costs at each place, in bits, (B, 16, h, w), as the places before it stand; differentiable.

        Args:
            descriptors: (B, h, w, 16), one-hot.
            level: (B,).
        """
        first = descriptors.permute(0, 3, 1, 2)
        near = F.conv2d(first, self.near.weight * self.mask, self.near.bias, padding=REACH)
        return -torch.log_softmax(self.logits(near, level) * math.log(2), 1) / math.log(2)

    def bits(self, descriptors: Tensor, level: Tensor) -> Tensor:
        """Cost of each descriptor, (B, h, w); as :meth:`prices`."""
        return (self.prices(descriptors, level) * descriptors.permute(0, 3, 1, 2)).sum(1)

    def logits(self, near: Tensor, level: Tensor) -> Tensor:
        """Logarithms of frequencies, base 2, (B, 16, h, w), from what the neighbours say."""
        everywhere = level.reshape(-1, 1, 1, 1).expand(-1, 1, *near.shape[2:])
        x = _settled(self.join(torch.cat([_settled(near), everywhere], 1)))
        return cast(Tensor, self.leave(_settled(self.mix(x))))

    def to_grid(self) -> None:
        """Put all weights on their grids: what ships and decodes is on them."""
        with torch.no_grad():
            self.near.weight.mul_(self.mask)
        for layer in self.layers().values():
            layer.to_grid()

    def layers(self) -> dict[str, FixedConv]:
        """All layers with weights, by name."""
        return {name: layer for name, layer in self.named_modules() if isinstance(layer, FixedConv)}


def _settled(x: Tensor) -> Tensor:
    """Activations on their grid; gradients pass straight through the rounding."""
    return cast(Tensor, _Settle.apply(x))


class _Settle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward((x > 0) & (x < CEILING))
        return torch.round(x.clamp(0, CEILING) * ACTIVATION_UNIT) / ACTIVATION_UNIT

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * cast(Tensor, ctx.saved_tensors[0])
