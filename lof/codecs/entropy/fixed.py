"""Convolutions whose results are exact: fixed-point arithmetic carried by float32.

Weights are whole multiples of ``2**-shift`` of their output channel, activations whole multiples of 1/32 of at most
255/32, and no sum of products reaches 2^24 units. Every partial sum is then exact, so that every order of summation,
number of threads, batch size and machine gives the same result (Ballé et al. 2019, "Integer networks for data
compression with latent-variable models").
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATION_UNIT = 32
"""Activations are multiples of 1/32."""
CEILING = 255 / ACTIVATION_UNIT
WEIGHT_LIMIT = 127
SUM_LIMIT = 2**24
MIN_SHIFT, MAX_SHIFT, UNSET = -8, 16, -128


class FixedConv(nn.Conv2d):
    """A convolution that keeps its input's size, and whose weights can be put on a fixed-point grid.

    ``shift`` is :data:`UNSET` in the channels of weights that are on no grid yet.
    """

    shift: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.register_buffer("shift", torch.full((outputs,), UNSET, dtype=torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, rows, columns) to (B, outputs, rows, columns)."""
        if self.kernel_size != (1, 1):
            return super().forward(x)
        # The same as a product of matrices: faster where there are few places.
        return F.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)

    @torch.no_grad()
    def to_grid(self) -> None:
        """Round weights and biases to the finest grid on which no sum of products leaves float32's integers."""
        weight, bias = self.weight.double(), cast(Tensor, self.bias).double()
        shift = torch.full_like(self.shift, MIN_SHIFT)
        for candidate in range(MIN_SHIFT + 1, MAX_SHIFT + 1):
            shift[_fits(weight, bias, 2.0**candidate)] = candidate
        unit = powers_of_two(shift)
        self.weight.copy_(torch.round(weight * unit.reshape(-1, 1, 1, 1)) / unit.reshape(-1, 1, 1, 1))
        self.bias.copy_(torch.round(bias * unit * ACTIVATION_UNIT) / (unit * ACTIVATION_UNIT))  # type: ignore
        self.shift.copy_(shift)

    def counts(self) -> dict[str, Tensor]:
        """Weights (int8) and biases (int32) as counts of their grid's unit: ``2**-shift``, and 1/32 of it."""
        unit = powers_of_two(self.shift)
        weight = torch.round(self.weight.double() * unit.reshape(-1, 1, 1, 1))
        bias = torch.round(cast(Tensor, self.bias).double() * unit * ACTIVATION_UNIT)
        return {"weight": weight.to(torch.int8), "bias": bias.to(torch.int32)}

    @staticmethod
    def from_counts(weight: Tensor, bias: Tensor, shift: Tensor) -> dict[str, Tensor]:
        """Inverse of :meth:`counts`, without loss."""
        unit = powers_of_two(shift)
        return {
            "weight": (weight.double() / unit.reshape(-1, 1, 1, 1)).float(),
            "bias": (bias.double() / (unit * ACTIVATION_UNIT)).float(),
        }


@contextmanager
def exact_sums() -> Iterator[None]:
    """No arithmetic that leaves the grid: no autocast, and none of NNPACK's transformed convolutions."""
    before = torch.backends.nnpack.set_flags(False)
    try:
        with torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.backends.nnpack.set_flags(*before)


def powers_of_two(exponents: Tensor) -> Tensor:
    """``2**exponents``, float64 of the same shape, exact."""
    # torch.pow need not be exact, not even here.
    return torch.tensor([2.0**e for e in exponents.tolist()], dtype=torch.float64, device=exponents.device)


def _fits(weight: Tensor, bias: Tensor, unit: float) -> Tensor:
    """(channels,): whether 8-bit weights and exact sums are possible on the grid of ``1 / unit``."""
    units = torch.round(weight * unit).abs().flatten(1)
    offset = torch.round(bias * unit * ACTIVATION_UNIT).abs()
    return (units.amax(1) <= WEIGHT_LIMIT) & (255 * units.sum(1) + offset < SUM_LIMIT)
