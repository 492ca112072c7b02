"""Layers of fixed-point arithmetic, carried by float32.

Weights are whole multiples of ``2**-shift`` of their output channel, at most 127 of them; activations are whole
multiples of 1/256, at most 2047 of them; no sum of products reaches 2^24 units. Every partial sum is then exact, so
that every order of summation, number of threads and machine gives the same result (Ballé et al. 2019, "Integer
networks for data compression with latent-variable models").

A network of such layers computes in one of three ways:

- in training, in real units, with rounding switched on, gradients passing straight through it;
- for searches, in real units, without rounding of activations;
- exactly (:func:`make_exact`), in whole units, as the decoder does.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNIT = 256
LIMIT = 2047
CEILING = LIMIT / UNIT
WEIGHT_LIMIT = 127
SUM_LIMIT = 2**24
MIN_SHIFT, MAX_SHIFT = -8, 20
POWERS = torch.tensor(
    [2.0**shift for shift in range(MIN_SHIFT, MAX_SHIFT + 1)]
)  # torch.pow need not be exact


class FixedModule(nn.Module):
    """What knows in which of the three ways it computes."""

    exact = False

    def settle(self, x: Tensor) -> Tensor:
        """Round to the grid of activations and clamp to its ends; may overwrite ``x``."""
        if self.exact:
            return x.round_().clamp_(-LIMIT, LIMIT)
        if self.training:
            return cast(Tensor, _Settle.apply(x))
        return F.hardtanh(x, -CEILING, CEILING)

    def add(self, x: Tensor, new: Tensor) -> Tensor:
        """Activations and the result of a layer, on the grid; may overwrite ``new``."""
        return self.settle(new.round_().add_(x) if self.exact else x + new)

    def gate(self, x: Tensor) -> Tensor:
        """p·relu(q) of activations [p, q]; may overwrite ``x``."""
        p, q = x.chunk(2, -1)
        if self.exact:
            return self.settle(p.mul_(q.clamp_min_(0)).mul_(1 / UNIT))
        return self.settle(p * F.relu(q))


class FixedLinear(FixedModule, nn.Linear):
    """A linear layer whose sums are exact."""

    shift: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("shift", torch.zeros(outputs, dtype=torch.int8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) to (…, outputs)."""
        weight, bias = on_grid(self.weight, self.bias) if self.training else (self.weight, self.bias)
        return F.linear(x, weight, bias)


class FixedDepthwise(FixedModule, nn.Conv2d):
    """A filter for each channel whose sums are exact; outside of the image is zero."""

    shift: Tensor

    def __init__(self, channels: int, side: int) -> None:
        super().__init__(channels, channels, side, padding=side // 2, groups=channels)
        self.register_buffer("shift", torch.zeros(channels, dtype=torch.int8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        weight, bias = self.weight, cast(Tensor, self.bias)
        if self.training:
            weight, bias = on_grid(weight, bias)
        return cast(Tensor, self._conv_forward(x.permute(0, 3, 1, 2), weight, bias)).permute(0, 2, 3, 1)


class FixedBlock(FixedModule):
    """``x + b(p·relu(q))``, p and q linear in x, or in a depthwise filter of x."""

    def __init__(self, channels: int, side: int = 0) -> None:
        super().__init__()
        inner = channels + channels // 4
        if side:
            self.dw = FixedDepthwise(channels, side)
        self.a, self.b = FixedLinear(channels, 2 * inner), FixedLinear(inner, channels)
        self.spatial = bool(side)
        with torch.no_grad():
            self.b.weight.mul_(0.1)
            self.b.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) to the same shape."""
        seen = self.settle(self.dw(x)) if self.spatial else x
        return self.add(x, self.b(self.gate(self.settle(self.a(seen)))))


def on_grid(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest weights and biases on their grids; gradients pass straight through."""
    unit = POWERS.to(weight.device)[shifts(weight, bias).long() - MIN_SHIFT]
    with torch.no_grad():
        wide = _wide(unit, weight)
        by = torch.round(weight * wide) / wide - weight
        bias_by = torch.round(bias * (unit * UNIT)) / (unit * UNIT) - bias
    return weight + by, bias + bias_by


@torch.no_grad()
def shifts(weight: Tensor, bias: Tensor) -> Tensor:
    """The finest grid of each output channel, (outputs,) int8: weights fit in 8 bits, and sums stay exact."""
    size = weight.abs().flatten(1)
    # Rounding adds at most half a unit to each weight, and to the bias.
    room = SUM_LIMIT - 2 - LIMIT * size.shape[1] / 2
    most = torch.minimum(WEIGHT_LIMIT / size.amax(1), room / (LIMIT * size.sum(1) + UNIT * bias.abs()))
    _, exponent = torch.frexp(most.clamp(2.0**MIN_SHIFT, 2.0**MAX_SHIFT))
    return (exponent - 1).to(torch.int8)


def layers_of(module: nn.Module) -> dict[str, FixedLinear | FixedDepthwise]:
    """All layers with weights, by name."""
    return {n: m for n, m in module.named_modules() if isinstance(m, FixedLinear | FixedDepthwise)}


@torch.no_grad()
def to_grid(module: nn.Module) -> None:
    """Put all weights on their grids: what ships and decodes is on them."""
    for layer in layers_of(module).values():
        weight, bias = on_grid(layer.weight, cast(Tensor, layer.bias))
        layer.shift = shifts(layer.weight, cast(Tensor, layer.bias))
        layer.weight.copy_(weight)
        cast(Tensor, layer.bias).copy_(bias)


@torch.no_grad()
def counts(layer: FixedLinear | FixedDepthwise) -> dict[str, Tensor]:
    """A layer on its grid: weights as int8 counts of ``2**-shift``, biases as int32 counts of ``2**-shift / 256``."""
    unit = POWERS[layer.shift.long() - MIN_SHIFT]
    weight = torch.round(layer.weight * _wide(unit, layer.weight))
    bias = torch.round(cast(Tensor, layer.bias) * unit * UNIT)
    return {"weight": weight.to(torch.int8), "bias": bias.int(), "shift": layer.shift}


def from_counts(weight: Tensor, bias: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and biases, float32, from :func:`counts`, without loss."""
    unit = POWERS[shift.long() - MIN_SHIFT]
    return weight.float() / _wide(unit, weight), bias.float() / unit / UNIT


def _wide(unit: Tensor, weight: Tensor) -> Tensor:
    return unit.reshape(-1, *[1] * (weight.dim() - 1))


@torch.no_grad()
def make_exact(module: nn.Module) -> None:
    """Compute in whole units from now on. All weights must be on their grids."""
    for part in module.modules():
        if isinstance(part, FixedModule):
            part.exact = True
    for layer in layers_of(module).values():
        cast(Tensor, layer.bias).mul_(UNIT)


class _Settle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.abs() <= CEILING)
        return torch.round(x * UNIT).clamp_(-LIMIT, LIMIT).mul_(1 / UNIT)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * cast(Tensor, ctx.saved_tensors[0])
