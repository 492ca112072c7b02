"""What decoding takes, counted from the layers: the same for every image but for its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from compressai.layers import GDN
from torch import nn

from lof.codecs.msp.layout import steps
from lof.codecs.msp.network import MSPNetwork

_PIXELS_PER_PLACE = 16**2


@dataclass(frozen=True)
class Cost:
    """What decoding one image costs.

    Attributes:
        evaluations: of the probability model, the factorised prior counted as one.
        parameters: of the probability model, one byte each.
        prior_macs: multiplications per pixel of the probability model, for images whose sides are multiples of
            ``16·2^levels``; the entropy coder, and with it the frequencies of mixtures, is not counted.
        synthesis_macs: multiplications per pixel of the synthesis.
    """

    evaluations: int
    parameters: int
    prior_macs: float
    synthesis_macs: float


def decoding_cost(net: MSPNetwork) -> Cost:
    """Count for the network of a tier."""
    return Cost(
        evaluations=net.config.evaluations,
        parameters=sum(p.numel() for p in net.prior.parameters()),
        prior_macs=_prior_macs(net),
        synthesis_macs=_synthesis_macs(net.g_s),
    )


def _prior_macs(net: MSPNetwork) -> float:
    total = 0.0
    for level in range(net.config.levels):
        cells = 1 / (_PIXELS_PER_PLACE * 4 ** (level + 1))
        part = net.prior.fine if level == 0 else net.prior.coarse
        total += cells * part.enter.weight.numel()
        if level < net.config.levels - 1:
            total += cells / 4 * part.up.weight.numel()  # runs on the cells of the coarser level
        used = [
            part.step(s.spatial * len(net.config.groups) + s.group)
            for s in steps(net.config)
            if s.level == level
        ]
        total += cells * sum(
            m.weight.numel() for step in used for m in step.modules() if isinstance(m, nn.Conv2d)
        )
    return total


def _synthesis_macs(synthesis: nn.Sequential) -> float:
    total, places = 0.0, 1 / _PIXELS_PER_PLACE
    for layer in synthesis:
        if isinstance(layer, nn.ConvTranspose2d):
            total += places * layer.weight.numel()
            places *= 4
        else:
            total += places * cast(GDN, layer).gamma.numel()
    return total
