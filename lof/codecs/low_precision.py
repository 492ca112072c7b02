"""Passes of three layers in low precision, written for the CPU: the same gradients in less time.

Measured for a mean-scale hyperprior (N=96, crops of 128, bfloat16): 1.3 times as many steps. oneDNN sums the
bias gradient of a transposed convolution more slowly than it computes its weight gradient; and autograd walks
a GDN layer's large tensors about twice as often as is needed. The convolutions of MSP's probability model see few
places and many channels, where products of matrices take a quarter of the time of oneDNN's convolutions.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from compressai.layers import GDN
from torch import Tensor, nn

from lof.codecs.entropy.fixed import FixedConv


def speed_up(net: nn.Module, dtype: torch.dtype) -> None:
    """Take over the transposed convolutions, GDN and fixed-point layers of a network that trains in ``dtype``.

    Gradients differ by no more than rounding in ``dtype``; parameters and ``state_dict`` stay as they are.
    """
    for module in net.modules():
        if type(module) is nn.ConvTranspose2d and module.bias is not None and module.groups == 1:
            module.forward = functools.partial(_deconvolve, module, dtype)  # type: ignore[method-assign]
        elif type(module) is GDN:
            module.forward = functools.partial(_normalise, module, dtype)
        elif type(module) is FixedConv and module.kernel_size == (3, 3):
            module.forward = functools.partial(_convolve, module, dtype)  # type: ignore[method-assign]


def _deconvolve(module: nn.ConvTranspose2d, dtype: torch.dtype, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        geometry = (module.stride, module.padding, module.output_padding, module.dilation)
        return _Deconvolution.apply(x.to(dtype), module.weight.to(dtype), module.bias, geometry)  # type: ignore


def _normalise(module: GDN, dtype: torch.dtype, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        gamma = module.gamma_reparam(module.gamma).to(dtype)[:, :, None, None]
        return _Gdn.apply(x.to(dtype), gamma, module.beta_reparam(module.beta), module.inverse)  # type: ignore


def _convolve(module: FixedConv, dtype: torch.dtype, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return _Convolution.apply(x.to(dtype), module.weight.to(dtype), module.bias)  # type: ignore


class _Convolution(torch.autograd.Function):
    """A 3×3 convolution as one product of matrices: a row for each place, with its neighbours side by side."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows = _neighbours(x)
        matrix = weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])
        ctx.save_for_backward(rows, weight)
        return _as_image(torch.addmm(bias.to(x.dtype), rows, matrix), x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        rows, weight = ctx.saved_tensors
        outputs, inputs = weight.shape[:2]
        flat = grad.permute(0, 2, 3, 1).reshape(-1, outputs)
        grad_weight = (rows.t() @ flat).reshape(3, 3, inputs, outputs).permute(3, 2, 0, 1)
        turned = weight.flip(2, 3).permute(2, 3, 0, 1).reshape(-1, inputs)
        grad_x = _as_image(_neighbours(grad) @ turned, grad)
        return grad_x, grad_weight, _sum_per_channel(grad)


def _neighbours(x: Tensor) -> Tensor:
    """(B, C, h, w) to (B·h·w, 9·C)."""
    batch, channels, height, width = x.shape
    padded = x.new_zeros(batch, height + 2, width + 2, channels)
    padded[:, 1:-1, 1:-1] = x.permute(0, 2, 3, 1)
    rows = padded.unfold(1, 3, 1).unfold(2, 3, 1)  # (B, h, w, C, 3, 3)
    return rows.permute(0, 1, 2, 4, 5, 3).reshape(batch * height * width, 9 * channels)


def _as_image(rows: Tensor, like: Tensor) -> Tensor:
    batch, _, height, width = like.shape
    return rows.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


class _Deconvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, geometry: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        stride, padding, output_padding, dilation = geometry
        return F.conv_transpose2d(x, weight, bias.to(x.dtype), stride, padding, output_padding, 1, dilation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        stride, padding, output_padding, dilation = ctx.geometry
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, stride, padding, dilation, True, output_padding, 1, (True, True, False)
        )
        return grad_x, grad_weight, _sum_per_channel(grad), None


class _Gdn(torch.autograd.Function):
    """``x·n`` with ``n = (β + γ·x²)^∓½``; the inverse layer has the plus."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, inverse: bool) -> Tensor:
        norm = F.conv2d(x * x, gamma, beta.to(x.dtype))
        norm = norm.sqrt_() if inverse else norm.rsqrt_()
        ctx.save_for_backward(x, norm, gamma)
        ctx.inverse = inverse
        return x * norm

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, norm, gamma = ctx.saved_tensors
        inner = grad * x
        if ctx.inverse:
            inner.div_(norm).mul_(0.5)
        else:
            inner.mul_(norm).mul_(norm).mul_(norm).mul_(-0.5)
        grad_square, grad_gamma, _ = torch.ops.aten.convolution_backward(
            inner, x * x, gamma, None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1, (True, True, False)
        )
        grad_x = grad_square.mul_(x).mul_(2).addcmul_(grad, norm)
        return grad_x, grad_gamma, _sum_per_channel(inner), None


def _sum_per_channel(x: Tensor) -> Tensor:
    """Over all but the channels, float32: as a product with ones, which has the fastest kernel."""
    rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    return (torch.ones(1, rows.shape[0], dtype=x.dtype) @ rows)[0].float()
