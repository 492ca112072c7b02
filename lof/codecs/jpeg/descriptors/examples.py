"""JPEGs to train the filter on, of all qualities: libjpeg's own, and what the search makes with the filter as it is.

The search here is that of :mod:`lof.codecs.jpeg.search` for squared errors, without a look at the files: each crop has
a λ of its own, and tables that suit it.
"""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lof.codecs.base import Latents
from lof.codecs.descriptors.classes import SIDE
from lof.codecs.graphics import some_graphic
from lof.codecs.jpeg import files
from lof.codecs.jpeg.descriptors.codec import DescriptorCodec
from lof.codecs.jpeg.descriptors.filter import Filter
from lof.codecs.jpeg.descriptors.pictures import coefficients_of_planes, picture_of
from lof.codecs.jpeg.files import Sampling
from lof.codecs.jpeg.latents import PLANES, levels_of, used_blocks
from lof.codecs.jpeg.planes import gains
from lof.codecs.jpeg.search import LARGEST_STEP, STEP, TURNS, Point, about, quantised
from lof.codecs.rates import Points
from lof.codecs.registry import codec_spec

_CUT: Final = 0.3
"""The share of batches that are cut and not scaled down: photographs are softer at their full size than smaller."""
_GRAPHIC: Final = 0.06
"""The share of crops with graphics."""
QUALITIES: Final = (5, 95)
"""The lowest and the highest that are trained."""
_LOW: Final = 1.5
"""Low qualities are drawn more often: there is more to repair."""
_SEARCHED: Final = 0.4
"""The share of JPEGs that are searched."""
_STEEPER: Final = 0.92
"""λ of libjpeg's own JPEGs over that of searched ones: the bits that its next quality pays for a squared error less."""
_FULL: Final = 0.2
"""The share of batches of 4:4:4; the others are 4:2:0."""


class Jpegs(NamedTuple):
    """JPEGs of crops.

    Attributes:
        images: what they were made of, (B, 3, H, W) in [0, 1].
        coefficients, tables, divisors: what the filter takes, (B, h, w, 192), (B, 2, 64) and (B, 2).
        lmbda: of the curve that each is on, (B,).
    """

    images: Tensor
    coefficients: Tensor
    tables: Tensor
    divisors: Tensor
    lmbda: Tensor


def crops_of(images: Tensor) -> Tensor:
    """Examples of half the side, (B, 3, h, h) from (B, 3, H, W): cut or scaled down, and some of them made graphics."""
    return some_graphic(_scaled(images), _GRAPHIC)


@torch.no_grad()
def jpegs_of(images: Tensor, filter: Filter, codec: str) -> Jpegs:
    """JPEGs of images, (B, 3, H, W) in [0, 1], of random qualities; the first ones are searched.

    Args:
        filter: in the loop of the search.
        codec: whose qualities have the λ.
    """
    low, high = QUALITIES
    sampling = Sampling.FULL if float(torch.rand(())) < _FULL else Sampling.HALF
    quality = low + (high + 1 - low) * torch.rand(len(images), device=images.device) ** _LOW
    annex, lambdas = (each.to(images.device)[quality.long().clamp_max(high)] for each in _known(codec))
    count = round(_SEARCHED * len(images))
    found = [_searched(images[:count], lambdas[:count], sampling, filter)] if count else []
    levels = levels_of(images[count:], annex[count:].reshape(-1, 2, 8, 8), sampling)
    whole = {name: levels[name].round() for name in PLANES}
    found.append(_jpegs(images[count:], whole, annex[count:], sampling, _STEEPER * lambdas[count:]))
    return Jpegs(*map(torch.cat, zip(*found, strict=True)))


def _searched(images: Tensor, lmbda: Tensor, sampling: Sampling, filter: Filter) -> Jpegs:
    # Bits for a squared error of one grey level in a coefficient, (B, 3, 64).
    costs = gains(sampling.divisors).to(lmbda) * lmbda[:, None, None] / 3
    both = torch.stack([costs[:, 0], 0.5 * (costs[:, 1] + costs[:, 2])], 1)
    tables = (DescriptorCodec.coarser * STEP["mse"] / both.sqrt()).round().clamp(1, LARGEST_STEP)
    weights = {
        name: (costs[:, plane] * tables[:, min(plane, 1)].square())[..., None, None]
        for plane, name in enumerate(PLANES)
    }
    levels = levels_of(images, tables.reshape(-1, 2, 8, 8), sampling)
    weights = {name: weights[name].expand_as(levels[name]) for name in PLANES}
    halved = torch.full((len(images), 1, 1, 1), float(sampling))
    point = quantised(Point(about(levels) | {"halved": halved}, weights), levels)
    for names in TURNS:
        leaves = {name: point.latents[name].clone().requires_grad_() for name in names}
        with torch.enable_grad():
            made = _jpegs(images, point.latents | leaves, tables, sampling, lmbda)
            decoded = picture_of(made.coefficients + filter(*made[1:4]))
            errors = (255 * (decoded.clamp(0, 1) - images)).square().sum((1, 2, 3))
            slopes = torch.autograd.grad((lmbda / 3 * errors).sum(), list(leaves.values()))
        lowest = {
            name: point.latents[name] - 0.5 * slope / weights[name]
            for name, slope in zip(names, slopes, strict=True)
        }
        point = quantised(point, lowest)
    return _jpegs(images, point.latents, tables, sampling, lmbda)


def _jpegs(images: Tensor, levels: Latents, tables: Tensor, sampling: Sampling, lmbda: Tensor) -> Jpegs:
    planes = [levels[name] * tables[:, min(index, 1), :, None, None] for index, name in enumerate(PLANES)]
    part = used_blocks(planes[1], sampling)
    coefficients = coefficients_of_planes(planes[0], [plane[part] for plane in planes[1:]], sampling.divisors)
    divisors = torch.tensor([sampling.divisors], dtype=torch.float32, device=images.device)
    return Jpegs(images, coefficients, tables, divisors.expand(len(images), -1), lmbda)


@cache
def _known(codec: str) -> tuple[Tensor, Tensor]:
    """By quality, 0 to 100: libjpeg's own tables, (101, 2, 64), and λ."""
    dot, rates = np.zeros((8, 8, 3), np.uint8), codec_spec(codec).rates
    assert isinstance(rates, Points)
    tables = [files.read(files.plain_file(dot, max(1, quality))).tables for quality in range(101)]
    lambdas = [rates.at(codec, "mse", max(1.0, float(quality))).lmbda for quality in range(101)]
    return torch.from_numpy(np.stack(tables).astype(np.float32)).flatten(2), torch.tensor(lambdas)


def _scaled(images: Tensor) -> Tensor:
    """Squares of half the side, (B, 3, h, h) from (B, 3, H, W): cut, or sharper, scaled down by up to 2."""
    side = max(SIDE, images.shape[2] // 2 // SIDE * SIDE)
    if float(torch.rand(())) < _CUT:
        return images[..., :side, :side]
    part = int(torch.randint(side, images.shape[2] + 1, ()))
    scaled = F.interpolate(images[..., :part, :part], (side, side), mode="bicubic", antialias=True)
    return scaled.clamp(0, 1)
