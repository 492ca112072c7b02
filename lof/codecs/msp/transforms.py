"""The image's way in and out: CompressAI's layers, four stages of stride 2 each way."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from compressai.layers import GDN
from compressai.models.utils import conv, deconv
from torch import Tensor, nn


def analysis(width: int, latent_channels: int) -> nn.Sequential:
    """Image to y, as in CompressAI's ``MeanScaleHyperprior``."""
    return nn.Sequential(
        conv(3, width),
        GDN(width),
        conv(width, width),
        GDN(width),
        conv(width, width),
        GDN(width),
        conv(width, latent_channels),
    )


def synthesis(width: int, latent_channels: int) -> nn.Sequential:
    """y to an image, as in CompressAI's ``MeanScaleHyperprior``."""
    return nn.Sequential(
        deconv(latent_channels, width),
        GDN(width, inverse=True),
        deconv(width, width),
        GDN(width, inverse=True),
        deconv(width, width),
        GDN(width, inverse=True),
        deconv(width, 3),
    )


def by_phases(net: nn.Module) -> nn.Module:
    """A synthesis with its transposed convolutions written as convolutions at the input's resolution.

    Equal up to the order of summation. The CPU's kernels for convolutions are several times as fast.
    """
    return nn.Sequential(*(_Phased(m) if isinstance(m, nn.ConvTranspose2d) else m for m in net.children()))


class _Phased(nn.Module):
    """``ConvTranspose2d(5, stride=2, padding=2, output_padding=1)``: each output phase is a 3×3 convolution.

    Output row 2i + p sums input row i + 1 - t with the kernel's row 2t + p, where that is in 0..4.
    """

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__()
        kernel = layer.weight.detach()  # (in, out, 5, 5)
        inputs, outputs = kernel.shape[:2]
        phased = kernel.new_zeros(outputs, 2, 2, inputs, 3, 3)
        padded = F.pad(kernel, (0, 1, 0, 1))
        for row in range(2):
            for column in range(2):
                taps = padded[:, :, row::2, column::2].flip(2, 3)
                phased[:, row, column] = taps.transpose(0, 1)
        self.weight = nn.Parameter(phased.reshape(4 * outputs, inputs, 3, 3), requires_grad=False)
        bias = cast(Tensor, layer.bias).detach()
        self.bias = nn.Parameter(bias.repeat_interleave(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(F.conv2d(x, self.weight, self.bias, padding=1), 2)
