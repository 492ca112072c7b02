"""Codecs that no profile was chosen for, made of those at hand: what makes any fixed step size wrong.

A codec under a variant is as valid as ever: its encoder, entropy model and decoder agree, and its files are read back.

| variant | what it is |
| --- | --- |
| ``z*8``, ``z/8`` | z on a grid 8 times finer, coarser: 8 times, an eighth of the steps for the same range |
| ``gains2`` | steps of y that differ by channel, spread at random over 2 octaves |
| ``lambda*4``, ``lambda/4`` | a λ that is not the codec's own |
| ``ms-ssim`` | the search wants MS-SSIM of a codec that was trained for the squared error |
"""

from __future__ import annotations

import copy
import re

import torch
import torch.nn.functional as F
from compressai.models import MeanScaleHyperprior
from torch import Tensor

from lof.codecs import Codec, load_codec
from lof.errors import UsageError


def variant(text: str, *, device: str = "auto", precision: str = "auto") -> Codec:
    """The codec that ``NAME:QUALITY`` or ``NAME:QUALITY:VARIANT`` names; several variants are applied in turn.

    Raises:
        UsageError: the text has no quality, or a variant that there is not, or not for this codec.
        UnknownCodecError: no such codec or quality.
    """
    name, _, rest = text.partition(":")
    quality, *variants = rest.split(":")
    try:
        point = float(quality)
    except ValueError:
        raise UsageError(
            f"codec {text}: write NAME:QUALITY or NAME:QUALITY:VARIANT, as in lapped:4"
        ) from None
    codec = load_codec(name, point, device=device, precision=precision)
    for one in variants:
        codec = _varied(codec, one)
    return codec


def _varied(codec: Codec, text: str) -> Codec:
    if text == "ms-ssim":
        changed = copy.copy(codec)
        changed.lmbda, changed.metric = codec.lambda_for("ms-ssim"), "ms-ssim"
        return changed
    found = re.fullmatch(r"(lambda|z)([*/])(\d+\.?\d*)|(gains)(\d+\.?\d*)", text)
    if found is None:
        raise UsageError(f"variant {text}: write z*N, z/N, gainsN, lambda*N, lambda/N or ms-ssim")
    what = found[1] or found[4]
    number = float(found[3] or found[5])
    if what == "lambda":
        changed = copy.copy(codec)
        changed.lmbda = codec.lmbda * number if found[2] == "*" else codec.lmbda / number
        return changed
    net = getattr(codec, "net", None)
    if not isinstance(net, MeanScaleHyperprior):
        raise UsageError(f"variant {text}: {codec.name} is no mean-scale hyperprior of CompressAI")
    net = copy.deepcopy(net)
    with torch.no_grad():
        if what == "z":
            scale_z(net, number if found[2] == "*" else 1 / number)
        else:
            scale_y(net, number)
    settings = {
        key: getattr(codec, key) for key in ("name", "quality", "metric", "lmbda", "device", "precision")
    }
    return type(codec)(net, **settings)  # type: ignore[call-arg]


def scale_z(net: MeanScaleHyperprior, factor: float) -> None:
    """Give z ``factor`` times as many steps for the same range, and its prior the same shape over them."""
    net.h_a[-1].weight.mul_(factor)
    net.h_a[-1].bias.mul_(factor)
    net.h_s[0].weight.div_(factor)
    # The first layer of the prior's cumulative is softplus(matrix) @ z.
    first = net.entropy_bottleneck.matrices[0]
    first.copy_(_softplus_inverse(F.softplus(first.double()) / factor))
    net.entropy_bottleneck.quantiles.mul_(factor)
    net.update(force=True)


def scale_y(net: MeanScaleHyperprior, octaves: float) -> None:
    """Give each channel of y its own number of steps for the same range: ``octaves`` apart at most, at random."""
    channels = net.g_s[0].weight.shape[0]
    draws = torch.rand(channels, generator=torch.Generator().manual_seed(0))
    gains = torch.exp2(octaves * (draws - 0.5))
    net.g_a[-1].weight.mul_(gains.reshape(-1, 1, 1, 1))
    net.g_a[-1].bias.mul_(gains)
    net.g_s[0].weight.div_(gains.reshape(-1, 1, 1, 1))
    net.h_a[0].weight.div_(gains.reshape(1, -1, 1, 1))
    # Scales come first, then means; a last layer of them is linear.
    net.h_s[-1].weight.mul_(gains.repeat(2).reshape(-1, 1, 1, 1))
    net.h_s[-1].bias.mul_(gains.repeat(2))


def _softplus_inverse(value: Tensor) -> Tensor:
    return torch.log(torch.expm1(value))
