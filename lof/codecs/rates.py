"""The qualities of a codec, as the registry has them: data, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lof.containers.base import METRICS
from lof.containers.lof import MAX_QUALITY, QUALITY_UNIT
from lof.errors import UnknownCodecError

Key = tuple[str, float]
"""A rate point's name inside its codec: (metric, quality)."""


@dataclass(frozen=True)
class RatePoint:
    """One trained rate.

    Attributes:
        lmbda: λ of the training loss ``bpp + λ·D``; D is ``255²·MSE``, or ``1 - MS-SSIM``.
        fingerprint: SHA-256 of the weights that ship (hexadecimal), checked at every load; ``None`` for
            weights that come from elsewhere, and for codecs without weights.
    """

    lmbda: float
    fingerprint: str | None = None


@dataclass(frozen=True)
class Points:
    """Rates of a codec that has a network for each of a few qualities, or one for all of them.

    Attributes:
        one_network: whether the same weights serve all.
    """

    points: Mapping[Key, RatePoint]
    one_network: bool = False

    def at(self, codec: str, metric: str, quality: float) -> RatePoint:
        """The rate point of that name.

        Raises:
            UnknownCodecError: there is none; the message lists those that exist.
        """
        if (metric, quality) in self.points:
            return self.points[metric, quality]
        metrics = sorted({known for known, _ in self.points})
        if metric not in metrics:
            raise UnknownCodecError(f"codec {codec}: no metric {metric!r}; it has {', '.join(metrics)}")
        known = sorted(quality for m, quality in self.points if m == metric)
        gapless = len(known) > 9 and known[-1] - known[0] == len(known) - 1
        ends = f"{known[0]:.10g} to {known[-1]:.10g}"
        qualities = ends if gapless else ", ".join(f"{q:.10g}" for q in known)
        raise UnknownCodecError(f"codec {codec}: no quality {quality:.10g}; it has {qualities}")

    def qualities(self, metric: str) -> list[float]:
        """Every quality that there is for a metric, lowest first."""
        return sorted(quality for known, quality in self.points if known == metric)

    def listed(self) -> dict[Key, RatePoint]:
        """All rate points, in the order in which they were registered."""
        return dict(self.points)


@dataclass(frozen=True)
class Continuous:
    """Rates of a codec whose one network serves every quality from ``lowest`` to ``highest``.

    Attributes:
        lmbda: λ at the lowest and at the highest quality; between them log λ is linear in the quality.
        fingerprint: as in :class:`RatePoint`; one for all qualities.
    """

    lowest: float
    highest: float
    lmbda: tuple[float, float]
    metric: str = "mse"
    fingerprint: str | None = None
    one_network: ClassVar[bool] = True

    def at(self, codec: str, metric: str, quality: float) -> RatePoint:
        """The rate point at a quality.

        Raises:
            UnknownCodecError: the quality is out of range or no multiple of 1/64, or the codec was not trained for
                the metric.
        """
        if metric != self.metric:
            raise UnknownCodecError(f"codec {codec}: no metric {metric!r}; it has {self.metric}")
        if not self.lowest <= quality <= self.highest or quality * QUALITY_UNIT % 1:
            raise UnknownCodecError(
                f"codec {codec}: no quality {quality:.10g}; it has every multiple of 1/{QUALITY_UNIT} "
                f"from {self.lowest:.10g} to {self.highest:.10g}"
            )
        share = (quality - self.lowest) / ((self.highest - self.lowest) or 1)
        low, high = map(math.log, self.lmbda)
        return RatePoint(math.exp(low + share * (high - low)), self.fingerprint)

    def qualities(self, metric: str) -> list[float]:
        """Every quality that there is for a metric, lowest first."""
        ends = math.ceil(self.lowest * QUALITY_UNIT), math.floor(self.highest * QUALITY_UNIT)
        return [n / QUALITY_UNIT for n in range(ends[0], ends[1] + 1)] if metric == self.metric else []

    def listed(self) -> dict[Key, RatePoint]:
        """Rate points at the whole qualities, or at the lowest where there is none, for lists and examples."""
        every = self.qualities(self.metric)
        whole = [quality for quality in every if quality % 1 == 0]
        return {(self.metric, quality): self.at("", self.metric, quality) for quality in whole or every[:1]}


def check_rates(rates: Points | Continuous) -> None:
    """Refuse qualities that no file can state, and λ that no search can work with.

    Raises:
        ValueError: there are some, or no qualities at all.
    """
    if isinstance(rates, Continuous):
        ends = zip((rates.lowest, rates.highest), rates.lmbda, strict=True)
        points = [(rates.metric, quality, lmbda) for quality, lmbda in ends]
    else:
        points = [(metric, quality, point.lmbda) for (metric, quality), point in rates.points.items()]
    for metric, quality, lmbda in points:
        if metric not in METRICS:
            raise ValueError(f"metric {metric!r}: no file can state it; it is {' or '.join(METRICS)}")
        whole = isinstance(rates, Continuous) or quality * QUALITY_UNIT % 1 == 0
        if not (1 / QUALITY_UNIT <= quality <= MAX_QUALITY and whole):
            raise ValueError(
                f"quality {quality:.10g}: no file can state it; take multiples of 1/{QUALITY_UNIT}, "
                f"from 1/{QUALITY_UNIT} to {MAX_QUALITY}"
            )
        if not 0 < lmbda < math.inf:
            raise ValueError(f"quality {quality:.10g}: its λ must be a positive number, not {lmbda:.10g}")
    if not any(map(rates.qualities, METRICS)):
        raise ValueError(f"has no quality that is a multiple of 1/{QUALITY_UNIT}")
