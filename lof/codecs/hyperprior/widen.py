"""Streams that other CPUs read too: z moves a little until no σ lies near a boundary of the coder's table of scales.

A CPU with other instructions sums σ in another order, and where that puts a σ on the other side of a boundary, all
that follows in the stream is noise. Some σ of every photograph is that near, and any step of any element of z moves
all σ around it by far more; so few steps are enough, and those that cost least are chosen. Decoders need nothing new.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from compressai.entropy_models import GaussianConditional
from torch import Tensor

if TYPE_CHECKING:
    from lof.codecs.hyperprior.codec import ScaleHyperpriorCodec

SAFE = 3e-6
"""Relative distance of σ to boundaries that is aimed at; 99.9 % of σ have been seen to differ by less."""

_REACH = 3  # a step in z reaches σ two places of z away, and is taken one place from the σ that it is for
_EDGE = 2  # and what σ is there depends on z two more places away
_CANDIDATES = 16
_PATIENCE = 40  # sets of candidates in a row of which none helps
_ROUNDS = 4  # looks at the whole image

# Bits that a squared change of y is worth where rate and distortion balance: a step Δ costs log2(1/Δ) bits and
# Δ²/12 of distortion, whose sum is least at Δ = 1 if a unit of distortion is worth 6 / ln 2.
_BITS_OF_SQUARE = 6 / math.log(2)


def widened(codec: ScaleHyperpriorCodec, symbols: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Symbols whose σ keep the distance ``SAFE`` to boundaries, or come as near to that as the patience goes.

    Args:
        symbols: rounded residuals of one image, (1, C, h, w), as for ``Codec.compress``.
    """
    median = codec.net.entropy_bottleneck._get_medians().reshape(1, -1, 1, 1)
    z = symbols["z"].to("cpu", torch.float32).contiguous() + median  # laid out as the decoder's
    y = symbols["y"].to("cpu", torch.float32) + codec._gaussian(codec.net, z)[1]
    random = torch.Generator().manual_seed(0)
    for _ in range(_ROUNDS):  # parts of an image are summed in yet another order than the whole
        near = distances(codec.net.gaussian_conditional, codec._gaussian(codec.net, z)[0]) < SAFE
        if not bool(near.any()):
            break
        failed = 0
        while failed < _PATIENCE and bool(near.any()):
            failed = 0 if _step(codec, z, y, near, random) else failed + 1
    residuals = {"z": z - median, "y": y - codec._gaussian(codec.net, z)[1]}
    return {name: torch.round(residual).to(torch.int32) for name, residual in residuals.items()}


def distances(conditional: GaussianConditional, scales: Tensor) -> Tensor:
    """Relative distance of every σ to the nearest boundary of the table, float64, in the shape of ``scales``."""
    boundaries = conditional.scale_table[:-1].double()
    scales = scales.double().clamp_min(1e-12).contiguous()
    above = torch.searchsorted(boundaries, scales).clamp(max=len(boundaries) - 1)
    below = (above - 1).clamp(min=0)
    return torch.minimum((boundaries[above] / scales - 1).abs(), (boundaries[below] / scales - 1).abs())


def _step(codec: ScaleHyperpriorCodec, z: Tensor, y: Tensor, near: Tensor, random: torch.Generator) -> bool:
    """Try steps of z around one σ that is too near; take the cheapest that helps into ``z`` and ``near``."""
    stride = near.shape[3] // z.shape[3]  # places of y beside each other in one of z
    places = near.nonzero()
    _, _, *place = places[torch.randint(len(places), (1,), generator=random)[0]].tolist()
    centre = [index // stride for index in place]
    (top, bottom), (left, right) = (
        (max(0, at - _REACH - _EDGE), min(size, at + _REACH + _EDGE + 1))
        for at, size in zip(centre, z.shape[2:], strict=True)
    )
    tried = z[..., top:bottom, left:right].repeat(_CANDIDATES + 1, 1, 1, 1)  # the last one stays as it is
    channels = torch.randint(z.shape[1], (_CANDIDATES,), generator=random)
    rows, columns = (
        (at - first + torch.randint(-1, 2, (_CANDIDATES,), generator=random)).clamp(0, last - first - 1)
        for at, first, last in zip(centre, (top, left), (bottom, right), strict=True)
    )
    signs = torch.randint(2, (_CANDIDATES,), generator=random) * 2.0 - 1
    tried[torch.arange(_CANDIDATES), channels, rows, columns] += signs
    inside = tuple(
        slice(stride * max(at - _REACH, 0), stride * min(at + _REACH + 1, size))
        for at, size in zip(centre, z.shape[2:], strict=True)
    )
    cut = tuple(
        slice(part.start - stride * first, part.stop - stride * first)
        for part, first in zip(inside, (top, left), strict=True)
    )
    scales, means = (tensor[:, :, *cut] for tensor in codec._gaussian(codec.net, tried))
    found = distances(codec.net.gaussian_conditional, scales) < SAFE
    fewer = int(near[:, :, *inside].sum()) - found[:-1].flatten(1).sum(1)
    if int(fewer.max()) <= 0:
        return False
    price = _bits(codec, tried, y[:, :, *inside], scales, means)
    best = int(torch.where(fewer > 0, (price[:-1] - price[-1]) / fewer.clamp_min(1), torch.inf).argmin())
    z[..., top:bottom, left:right] = tried[best]
    near[:, :, *inside] = found[best]
    return True


def _bits(codec: ScaleHyperpriorCodec, z: Tensor, y: Tensor, scales: Tensor, means: Tensor) -> Tensor:
    """What candidates cost, (B,): the rate of z and y, and the distortion of y in bits."""
    conditional, bottleneck = codec.net.gaussian_conditional, codec.net.entropy_bottleneck
    residual = torch.round(y - means)
    likelihood = conditional.likelihood_lower_bound(conditional._likelihood(residual, scales))
    moved = (residual + means - y).square()
    side, _, _ = bottleneck._likelihood(z.transpose(0, 1).reshape(z.shape[1], 1, -1))
    side_bits = -bottleneck.likelihood_lower_bound(side).log2().reshape(z.shape[1], len(z), -1).sum((0, 2))
    price: Tensor = (_BITS_OF_SQUARE * moved - likelihood.log2()).flatten(1).sum(1) + side_bits
    return price
