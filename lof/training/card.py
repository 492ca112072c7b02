"""The model card beside exported weights: what they are, how they came about, what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jinja2

from lof.codecs import codec_spec
from lof.report.rate_distortion import bjontegaard_deltas
from lof.training.measure import Means

Point = tuple[float, float]

PUBLISHED_ON_KODAK: tuple[Point, ...] = (
    (0.12392, 27.699),
    (0.19798, 29.359),
    (0.30724, 31.129),
    (0.46061, 32.951),
    (0.66167, 34.968),
    (0.91440, 36.911),
    (1.23421, 38.838),
    (1.61909, 40.633),
)
"""``mbt2018-mean`` of CompressAI's zoo as published, quality 1 to 8: bits per pixel and PSNR in dB."""

MIN_OVERLAP_DB = 1.0


@dataclass(frozen=True)
class Exported:
    """One rate point of weights on disk.

    Attributes:
        one_network: the file serves all rates.
        fingerprint: SHA-256 of the reloaded network, hexadecimal, as the registry wants it.
        history: of the training, in words.
        about: architecture, storage and decoding, in Markdown sentences.
        summary: means over the measured pictures; ``None`` if there were none.
    """

    path: Path
    codec: str
    metric: str
    quality: float
    lmbda: float
    one_network: bool
    fingerprint: str
    history: Mapping[str, str]
    about: str
    summary: Means | None

    @property
    def registry_line(self) -> str:
        """What the family's registration says of these weights."""
        if self.one_network:
            return f'fingerprint="{self.fingerprint}",'
        return f'("{self.metric}", {self.quality:.10g}): RatePoint({self.lmbda!r}, "{self.fingerprint}"),'


def model_card(exported: Sequence[Exported], measured_on: str | None, kodak: bool) -> str:
    """Markdown for all rate points of a codec.

    Args:
        measured_on: what the measured folder is called; ``None`` if nothing was measured.
        kodak: whether it holds the Kodak images, so that published figures may stand beside.
    """
    template = (files("lof.training") / "card.md.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    comparable = kodak and exported[0].metric == "mse"
    points = [(e.summary.bpp, e.summary.psnr) for e in exported if e.summary]
    return environment.from_string(template).render(
        points=exported,
        first=exported[0],
        spec=codec_spec(exported[0].codec),
        history_keys=list(dict.fromkeys(key for e in exported for key in e.history)),
        files={e.path.name: e.fingerprint for e in exported},
        measured_on=measured_on,
        images=exported[0].summary.images if exported[0].summary else 0,
        published=dict(enumerate(PUBLISHED_ON_KODAK, start=1)) if comparable else {},
        bd_rate=bd_rate(points) if comparable else None,
    )


def bd_rate(points: Sequence[Point], anchor: Sequence[Point] = PUBLISHED_ON_KODAK) -> float | None:
    """Mean difference of rate at equal PSNR against ``anchor`` in per cent; negative is smaller.

    Bjøntegaard delta over the range of PSNR that both have, with Akima interpolation, which
    follows few points without overshooting.

    Returns:
        ``None`` where it would mean nothing: under two points, a curve that does not rise, or less than 1 dB
        in common.
    """
    points, anchor = sorted(points), sorted(anchor)
    if not points or min(points[-1][1], anchor[-1][1]) - max(points[0][1], anchor[0][1]) < MIN_OVERLAP_DB:
        return None
    deltas = bjontegaard_deltas(anchor, points)
    return None if deltas is None else 100 * deltas[0]
