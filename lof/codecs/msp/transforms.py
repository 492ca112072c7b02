"""The image's way in and out: CompressAI's layers, four stages of stride 2 each way."""

from __future__ import annotations

import copy
from itertools import product
from typing import cast

import torch
import torch.nn.functional as F
from compressai.layers import GDN
from compressai.models.utils import conv, deconv
from torch import Tensor, nn

from lof.codecs.exact import one_thread_each


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


class TiledSynthesis:
    """A synthesis for decoding, which makes one tile of one image at a time, each tile on a single thread.

    Its result has the same bits for every number of threads and batch size, which the CPU's kernels alone don't
    promise; and it takes half the time for images of megapixels, whose largest tensors fit in no cache. Tiles
    overlap by what the layers see beyond them, so that there are no seams. Equal to the network up to the order
    of summation.
    """

    TILE, HALO = 32, 2
    """Places of y a side; a tile's result depends on so many beyond its edge."""

    def __init__(self, net: nn.Sequential) -> None:
        net = copy.deepcopy(net).eval().requires_grad_(False)
        layers = [_Rescaled(layer) if isinstance(layer, GDN) else layer for layer in net]
        self._start = nn.Sequential(*layers[:4]).to(memory_format=torch.channels_last)
        finish = nn.Sequential(*layers[4:6], _Phased(cast(nn.ConvTranspose2d, layers[6])))
        self._finish = finish.to(memory_format=torch.channels_last)

    def __call__(self, y: Tensor) -> Tensor:
        """(B, M, h, w) float32 to (B, 3, 16·h, 16·w), on the CPU, without gradients."""
        batch, _, height, width = y.shape
        image = y.new_empty(batch, 3, 16 * height, 16 * width)
        corners = product(range(batch), range(0, height, self.TILE), range(0, width, self.TILE))
        with one_thread_each() as pool:
            for _ in pool.map(lambda corner: self._make(y, image, *corner), corners):
                pass
        return image

    @torch.inference_mode()
    def _make(self, y: Tensor, image: Tensor, index: int, top: int, left: int) -> None:
        height, width = y.shape[-2:]
        bottom, right = min(top + self.TILE, height), min(left + self.TILE, width)
        above, before = max(0, top - self.HALO), max(0, left - self.HALO)
        seen = y[index : index + 1, :, above : bottom + self.HALO, before : right + self.HALO]
        x = self._start(seen.contiguous(memory_format=torch.channels_last))
        # The layers that follow see two places beyond the tile, now at four times the resolution.
        above, before = 4 * (top - above), 4 * (left - before)
        upper, lefter = min(above, 2), min(before, 2)
        x = x[:, :, above - upper :, before - lefter :]
        x = x[:, :, : upper + 4 * (bottom - top) + 2, : lefter + 4 * (right - left) + 2]
        tile = self._finish(x.contiguous(memory_format=torch.channels_last))
        rows, columns = 16 * (bottom - top), 16 * (right - left)
        tile = tile[0, :, 4 * upper : 4 * upper + rows, 4 * lefter : 4 * lefter + columns]
        image[index, :, 16 * top : 16 * bottom, 16 * left : 16 * right] = tile


class _Rescaled(nn.Module):
    """An inverse ``GDN`` that overwrites its input, channels-last, in blocks that stay in the cache."""

    BLOCK = 2048
    """Places at once."""
    gamma: Tensor
    beta: Tensor

    def __init__(self, layer: GDN) -> None:
        super().__init__()
        gamma = layer.gamma_reparam(layer.gamma).detach()
        self.register_buffer("gamma", gamma.t().contiguous())
        self.register_buffer("beta", layer.beta_reparam(layer.beta).detach())

    def forward(self, x: Tensor) -> Tensor:
        for block in x.permute(0, 2, 3, 1).view(-1, x.shape[1]).split(self.BLOCK):
            block.mul_(torch.addmm(self.beta, block * block, self.gamma).sqrt_())
        return x


class _Phased(nn.Module):
    """``ConvTranspose2d(5, stride=2, padding=2, output_padding=1)`` as a convolution at the input's resolution.

    Twice as fast where there are few output channels. Each phase of the output is a 3×3 convolution: output
    row 2i + p sums input row i + 1 - t with the kernel's row 2t + p, where that is in 0..4.
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
