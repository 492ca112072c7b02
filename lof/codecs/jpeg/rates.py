"""Quality 1 to 100 and its λ, at which a searched file has about the PSNR of libjpeg's own at that quality."""

from __future__ import annotations

import math
from itertools import pairwise

from lof.codecs.rates import Points, RatePoint

# Chosen on pictures of CID22's validation set: quality and λ, between which log λ is linear.
_KNOTS = (
    (1, 0.0001),
    (5, 0.00028),
    (10, 0.00099),
    (20, 0.0029),
    (40, 0.0068),
    (60, 0.0112),
    (80, 0.0242),
    (90, 0.0477),
    (95, 0.081),
    (100, 0.167),
)


def _lmbda(quality: int) -> float:
    (low, at_low), (high, at_high) = next(pair for pair in pairwise(_KNOTS) if quality <= pair[1][0])
    share = (quality - low) / (high - low)
    return math.exp(math.log(at_low) * (1 - share) + math.log(at_high) * share)


RATES = Points({("mse", float(quality)): RatePoint(_lmbda(quality)) for quality in range(1, 101)})
