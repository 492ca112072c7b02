"""What symbols cost under mixtures of Gaussians, as a function with gradients."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from lof.codecs.entropy.mixture import PRECISION
from lof.codecs.lapped.prior import PLACE_OF_ONE, PLACES_PER_OCTAVE

REACH: Final = 4
"""Symbols farther than so many σ from every component are escaped. Tables are short, and tails have a component."""
_UNIT: Final = 2**-PRECISION
"""Each symbol of a table has one unit of frequency of its own."""


def mixture_bits_of(residual: Tensor, form: Tensor, components: int) -> Tensor:
    """Cost in bits of each residual from its centre; differentiable by both.

    Args:
        residual: (..., channels).
        form: (..., 3·J·channels), as :func:`lof.codecs.entropy.mixture.centre_and_form` has it.
        components: J.
    """
    offset, place, weight = (part.unflatten(-1, (components, -1)) for part in form.chunk(3, -1))
    sigma = torch.exp2((place - PLACE_OF_ONE) / PLACES_PER_OCTAVE)
    size, factor = (residual.unsqueeze(-2) - offset).abs(), -(2**-0.5) / sigma
    mass = 0.5 * (torch.erfc((0.5 - size) * factor) - torch.erfc((-0.5 - size) * factor))
    p = (weight * mass).sum(-2) / weight.sum(-2)
    with torch.no_grad():
        low, high = (offset - REACH * sigma).amin(-2), (offset + REACH * sigma).amax(-2)
        share = (1 - _UNIT * (high - low + 3)).clamp_min(_UNIT)
    inside = torch.log2(p * share + _UNIT)
    # What is escaped takes fours of bits, one of which says how many.
    excess = torch.maximum(low - residual, residual - high).sub(0.5).clamp_min(0)
    return torch.log2(1 + excess) + 7 * excess.clamp_max(1) - inside
