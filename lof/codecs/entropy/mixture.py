"""Mixtures of Gaussians: what they cost, and their cumulative distributions in integers.

An element's mixture is told by its *form*, 3·J numbers for J components: the components' means less the centre,
their places in the table of scales, and their weights. The centre, about which the element is rounded, is the mean
of the component with the largest weight: the likeliest value keeps a symbol of its own, as with one Gaussian.

The coder's frequencies come from integers alone, by a table of Φ that ships with the weights, so that every machine
finds the same. They are computed for each element anew: no table of mixtures could hold them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lof.codecs.entropy.tables import Tables

SCALE_MIN, SCALE_MAX, SCALES = 0.11, 256.0, 64
SCALE_STEP = math.log(SCALE_MAX / SCALE_MIN) / (SCALES - 1)
"""Logarithmic distance of neighbours in CompressAI's table of scales."""
CONVENTIONAL = tuple(SCALE_MIN * math.exp(SCALE_STEP * index) for index in range(SCALES))
"""σ at each place of that table."""
MEAN_UNIT = 64
"""Means, and so all values of latents, are multiples of 1/64."""
WEIGHT_UNIT, WEIGHT_MAX = 32, 255
"""Weights are predicted in units of this, and are whole numbers from 1."""

PRECISION = 16
"""Bits of a frequency, as CompressAI's coder has it."""
PHI_BITS, PLACES, REACH, FRACTION_BITS = 24, 256, 6, 20
"""Φ is in units of 2^-24, for each 256th of σ up to 6 σ; between, it is interpolated by 2^-20 of a place."""
LEAST_LIKELIHOOD = 1e-9

Integers = NDArray[np.int64]


def scale_of(index: Tensor) -> Tensor:
    """σ at a (fractional) place of the table of scales."""
    return SCALE_MIN * torch.exp(SCALE_STEP * index)


def weight_of(predicted: Tensor, *, exact: bool) -> Tensor:
    """Weights, 1 to 255, whole if ``exact``; at the bounds only a gradient that leads back inside passes."""
    if exact:
        return torch.round(WEIGHT_UNIT * predicted).clamp(1, WEIGHT_MAX)
    from compressai.ops.bound_ops import LowerBoundFunction  # all of compressai, which takes seconds

    weight = WEIGHT_UNIT * predicted
    low = LowerBoundFunction.apply(weight, weight.new_ones(()))
    return -cast(Tensor, LowerBoundFunction.apply(-low, weight.new_full((), -WEIGHT_MAX)))


def centre_and_form(
    mean: Tensor, index: Tensor, weight: Tensor, components: int, dim: int = 1
) -> tuple[Tensor, Tensor]:
    """Centres, (B, n, …), and forms, (B, 3·J·n, …), of n elements.

    Args:
        mean, index, weight: (B, J·n, …), component by component.
        components: J.
        dim: where the elements are.
    """
    means, weights = mean.chunk(components, dim), weight.chunk(components, dim)
    centre, largest = means[0], weights[0]
    for other, its in zip(means[1:], weights[1:], strict=True):
        # Among equals the first one: said here, since argmax leaves it to the device.
        centre = torch.where(its > largest, other, centre)
        largest = torch.maximum(largest, its)
    offset = torch.cat([other - centre for other in means], dim)
    return centre, torch.cat([offset, index, weight], dim)


class MixtureConditional(nn.Module):
    """Takes the place of CompressAI's ``GaussianConditional`` where elements have mixtures.

    The buffers are what the coder computes with; they ship with the weights. ``phi``: Φ(i / 256) in units of 2^-24;
    ``inverse``: 2^22/σ, and ``reach``: 6·σ, or less, in whole symbols, at each place of the table of scales.

    Args:
        sigmas: σ at each place, rising, at most 256.
        reach: symbols farther than so many σ from every component are escaped; at most 6.
    """

    phi: Tensor
    inverse: Tensor
    reach: Tensor

    def __init__(self, sigmas: Sequence[float] = CONVENTIONAL, reach: int = REACH) -> None:
        super().__init__()
        phi = [1 - 0.5 * math.erfc(i / PLACES * 0.5**0.5) for i in range(REACH * PLACES + 1)]
        unit = 2**FRACTION_BITS * PLACES / MEAN_UNIT
        self.register_buffer("phi", _integers([round(2**PHI_BITS * p) for p in phi]))
        self.register_buffer("inverse", _integers([round(unit / sigma) for sigma in sigmas]))
        self.register_buffer("reach", _integers([math.ceil(reach * sigma) for sigma in sigmas]))

    def check(self) -> None:
        """Whether tables can be computed from the buffers.

        Raises:
            ValueError: they are no table of Φ, or of no scales.
        """
        likely = (
            bool((self.phi.diff() >= 0).all()) and 0 <= int(self.phi[0]) < int(self.phi[-1]) <= 2**PHI_BITS
        )
        scales = bool((self.inverse > 0).all()) and bool((self.reach > 0).all())
        if not (likely and scales and int(self.reach.max()) <= REACH * math.ceil(SCALE_MAX)):
            raise ValueError("its tables of mixtures hold numbers that cannot be")

    def forward(
        self, y: Tensor, centre: Tensor, offset: Tensor, scale: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Latents (B, M, h, w) rounded about their centres, and the likelihood of that, each (B, M, h, w)."""
        residual = torch.round(y - centre)
        return residual + centre, self.likelihood(residual, offset, scale, weight)

    def likelihood(self, residual: Tensor, offset: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        """Probability of symbols.

        Args:
            residual: (B, M, h, w) float32, from the centre.
            offset, scale, weight: (B, J, M, h, w), of each component.

        Returns:
            (B, M, h, w), at least 1e-9, differentiable by all.
        """
        from compressai.ops.bound_ops import LowerBoundFunction

        size = (residual.unsqueeze(1) - offset).abs()
        # In the tail where erfc is small differences keep their digits, as CompressAI has it.
        mass = _upper((size - 0.5) / scale) - _upper((size + 0.5) / scale)
        likelihood = (weight * mass).sum(1) / weight.sum(1)
        return cast(Tensor, LowerBoundFunction.apply(likelihood, likelihood.new_full((), LEAST_LIKELIHOOD)))


class MixtureTables:
    """The coder's tables of elements, one each, in integers."""

    BOUNDARIES = 2**15
    """At most about so many are computed at a time, so that they stay in the cache; an element has 4 to 3074."""

    def __init__(self, model: MixtureConditional) -> None:
        self.phi, self.inverse, self.reach = (
            buffer.cpu().numpy().astype(np.int64) for buffer in (model.phi, model.inverse, model.reach)
        )
        self.rise = np.diff(self.phi)

    def of(self, form: Integers, components: int) -> Iterator[Tables]:
        """Tables of n elements in order, some at a time.

        Args:
            form: (3·J, n), the offsets in units of 1/64.
            components: J.
        """
        offset, index, weight = form.reshape(3, components, -1)
        reach, most = self.reach[index], self.reach[-1]
        first = np.maximum(((offset >> 6) - reach).min(0), -most)
        last = np.minimum((reach - (-offset >> 6)).max(0), most)
        if not first.size:
            return
        sums = np.cumsum(last - first + 2)
        cuts = np.flatnonzero(np.diff(sums // self.BOUNDARIES)) + 1
        for some in np.split(np.arange(first.size), cuts):
            yield self._tables(offset[:, some], index[:, some], weight[:, some], first[some], last[some])

    def _tables(
        self, offset: Integers, index: Integers, weight: Integers, first: Integers, last: Integers
    ) -> Tables:
        # The boundaries of all elements in one row: supports differ by a factor of a thousand.
        count = last - first + 2
        starts = np.cumsum(count) - count
        place = np.arange(count.sum()) - np.repeat(starts, count)
        edge = MEAN_UNIT * (place + np.repeat(first, count)) - MEAN_UNIT // 2
        mass = np.zeros_like(edge)
        for d, t, w in zip(offset, self.inverse[index], weight, strict=True):
            mass += np.repeat(w, count) * self._cumulative(edge - np.repeat(d, count), np.repeat(t, count))
        mass -= np.repeat(mass[starts], count)
        # Each symbol, and the escape, has one unit of its own; the others are shared by probability.
        shared = 2**PRECISION - count
        cdf = place + mass * np.repeat(shared, count) // np.repeat(weight.sum(0) << PHI_BITS, count)
        # Each element's last frequency is that of nothing beyond.
        flat, ends = np.insert(cdf, starts + count, 2**PRECISION).tolist(), np.cumsum(count + 1).tolist()
        cdfs = [flat[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        return Tables(cdfs, (count + 1).tolist(), first.tolist())

    def _cumulative(self, distance: Integers, inverse: Integers) -> Integers:
        """Φ(distance / (64·σ)) in units of 2^-24."""
        at = np.minimum(np.abs(distance) * inverse, (REACH * PLACES << FRACTION_BITS) - 1)
        place = at >> FRACTION_BITS
        rest = at & ((1 << FRACTION_BITS) - 1)
        value = self.phi[place] + (self.rise[place] * rest >> FRACTION_BITS)
        return np.where(distance < 0, (1 << PHI_BITS) - value, value)


def _upper(x: Tensor) -> Tensor:
    """1 - Φ(x)."""
    return 0.5 * torch.erfc(x * 0.5**0.5)


def _integers(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)
