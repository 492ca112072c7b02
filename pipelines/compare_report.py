"""lof beside other image formats: BD-rates, bytes at equal PSNR, and their chart.

A row holds ``series`` (a label), ``variant``, ``quality``, ``image``, ``size`` (bytes), ``bpp`` and ``psnr`` of one
decoded file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from lof.report.canvas import BLUE, GREY, INK, ORANGE, canvas, png
from lof.report.figures import ABSENT, bits_per_pixel, decibels, percent
from lof.report.rate_distortion import Curve, bjontegaard_deltas
from lof.report.records import Record, distinct
from lof.training.card import PUBLISHED_ON_KODAK
from pipelines.rows import complete_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ANCHOR = "mbt2018-mean"
PUBLISHED: dict[str, Curve] = {
    ANCHOR: PUBLISHED_ON_KODAK,
    "cheng2020-anchor": (
        (0.11959, 28.582),
        (0.18380, 29.969),
        (0.27095, 31.343),
        (0.41738, 33.390),
        (0.59447, 35.119),
        (0.80574, 36.704),
    ),
    "VVC intra (VTM)": (
        (0.04824, 26.145),
        (0.11250, 28.493),
        (0.24582, 31.200),
        (0.49055, 34.262),
        (0.87481, 37.420),
        (1.43085, 40.424),
        (2.32461, 43.506),
    ),
}
"""On the 24 Kodak images, as CompressAI publishes them: bits per pixel, and PSNR in dB of RGB."""


@dataclass(frozen=True)
class Series:
    """One format, or one way to use lof: a rate-distortion curve for each picture.

    Attributes:
        curves: by picture, bits per pixel and PSNR by rising quality.
        mean: the mean curve; its variant is the one with the smaller files.
        lof: whether lof wrote it.
    """

    name: str
    curves: dict[str, list[Curve]]
    mean: Curve
    qualities: tuple[float, ...]
    lof: bool


def series_of(rows: Sequence[Record], ours: Sequence[str]) -> list[Series]:
    """Series in the order of the rows, over the pictures that all of them have at all their settings.

    Args:
        rows: at most one per series, variant, quality and picture.
        ours: the series that lof wrote.
    """
    images = complete_images(rows, "series", "variant", "quality")
    found = []
    for name in dict.fromkeys(row["series"] for row in rows):
        own = [row for row in rows if row["series"] == name and row["image"] in images]
        variants = [[r for r in own if r["variant"] == variant] for variant in distinct(own, "variant")]
        curves = {image: [_curve(rows_, image) for rows_ in variants] for image in images}
        means = [_mean(rows_) for rows_ in variants]
        best = min(means, key=lambda curve: _ratio(curve, means[:1]) or 1.0)
        found.append(Series(name, curves, best, tuple(distinct(own, "quality")), name in ours))
    return found


def bytes_at_equal_psnr(one: Series, other: Series) -> dict[float | None, float]:
    """By quality of ``one``, and under ``None`` in all: how much larger its files are than the other's, as a share.

    Geometric means over pictures. The other's size lies between its files of neighbouring quality, those of its
    best variant; pictures whose PSNR the other does not reach are left out.
    """
    by_quality: dict[float, list[float]] = {}
    for image, curves in one.curves.items():
        for quality, point in zip(one.qualities, curves[0], strict=True):
            ratio = _ratio([point], other.curves[image])
            if ratio is not None:
                by_quality.setdefault(quality, []).append(float(np.log(ratio)))
    found: dict[float | None, float] = {q: float(np.expm1(fmean(by_quality[q]))) for q in sorted(by_quality)}
    if by_quality:
        found[None] = float(np.expm1(fmean(ratio for ratios in by_quality.values() for ratio in ratios)))
    return found


def to_markdown(series: Sequence[Series], about: str, *, published: bool) -> str:
    """All tables, after a sentence that says what they are of."""
    others = [one for one in series if not one.lof]
    ours = [one for one in series if one.lof]
    lines = [about, ""]
    curves = {**(PUBLISHED if published else {}), **{one.name: one.mean for one in series}}
    anchors = [*([ANCHOR] if published else []), *(one.name for one in others[:1])]
    deltas = {name: [_bd_rate(curves[anchor], curve) for anchor in anchors] for name, curve in curves.items()}

    def by_rate(name: str) -> float:
        rate = deltas[name][0]
        return np.inf if rate is None else rate

    if anchors:
        lines.append(f"| BD-rate of mean curves | {' | '.join(f'against {name}' for name in anchors)} |")
        lines.append(f"| --- |{' ---: |' * len(anchors)}")
        for name in sorted(deltas, key=by_rate):
            cells = [ABSENT if rate is None else percent(rate) for rate in deltas[name]]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    for other in others:
        table = {one.name: bytes_at_equal_psnr(one, other) for one in ours}
        qualities = sorted({q for found in table.values() for q in found if q is not None})
        heads = [f"bytes against {other.name}", *(f"quality {q:g}" for q in qualities), "all"]
        lines += [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(qualities) + 1)}"]
        for name, found in table.items():
            cells = [percent(found[q]) if q in found else ABSENT for q in (*qualities, None)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    lines += ["| mean curve | bits per pixel, dB |", "| --- | --- |"]
    for one in series:
        points = "; ".join(f"{bits_per_pixel(rate)}, {decibels(psnr)}" for rate, psnr in one.mean)
        lines.append(f"| {one.name} | {points} |")
    return "\n".join(lines) + "\n"


def plot(series: Sequence[Series], *, published: bool, metric: str = "mse") -> bytes:
    """Size of files at equal quality against an anchor, over quality, as a PNG file; lower is smaller.

    The anchor is the published curve; where the pictures are others, AVIF or else the first series.
    """
    first = next((one for one in series if one.name.startswith("AVIF")), series[0])
    figure, axes = canvas(5)
    anchor = PUBLISHED[ANCHOR] if published else first.mean
    own = cycle(
        [{"color": BLUE, "linewidth": 2.6}, {"color": BLUE, "linewidth": 1.4, "linestyle": (0, (4, 2))}]
    )
    other = cycle(zip((ORANGE, "#b03a48", "#5b8c3e", "#8a6bb1"), strict=True))
    ends = []
    if published:
        for name, curve in PUBLISHED.items():
            ends.append(_line(axes, name, curve, anchor, {"color": GREY, "linewidth": 1}))
    for one in reversed(series):
        style: dict[str, Any] = dict(next(own)) if one.lof else {"color": next(other)[0], "linewidth": 1.6}
        ends.append(_line(axes, one.name, one.mean, anchor, style))
    low = min(p for one in series if one.lof for _, p in one.mean)
    high = max(p for one in series if one.lof for _, p in one.mean)
    axes.set_xlim(low - 0.3, high + 0.3)
    _name(axes, [end for end in ends if end is not None])
    measure = "PSNR" if metric == "mse" else "MS-SSIM"
    axes.set_xlabel(f"{measure}, dB")
    what = f"published {ANCHOR}" if published else first.name
    axes.set_ylabel(f"bytes at equal {measure} against {what}, %")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0")
    return png(figure)


def _line(
    axes: Axes, name: str, curve: Curve, anchor: Curve, style: dict[str, Any]
) -> tuple[str, Any, Any, str] | None:
    low, high = max(c[0][1] for c in (curve, anchor)), min(c[-1][1] for c in (curve, anchor))
    if low >= high:
        return None
    psnr = np.linspace(low, high, 200)
    change = 100 * np.expm1(_log_rate(curve)(psnr) - _log_rate(anchor)(psnr))
    axes.plot(psnr, change, **style)
    return name, psnr, change, style["color"]


def _name(axes: Axes, lines: Sequence[tuple[str, Any, Any, str]]) -> None:
    """Names at the right ends, apart from each other."""
    _, right = axes.get_xlim()
    places: list[tuple[float, float, str, str]] = []
    for name, psnr, change, colour in lines:
        seen = psnr <= right
        if not seen.any():
            continue
        places.append((float(change[seen][-1]), float(psnr[seen][-1]), name, colour))
    places.sort(key=lambda place: place[0])
    bottom, top = axes.get_ylim()
    gap = (top - bottom) / 24
    groups: list[list[tuple[float, float, str, str]]] = []
    for place in places:
        groups.append([place])
        # Names that would touch stand around their common middle.
        while len(groups) > 1 and _lowest(groups[-1], gap) < _lowest(groups[-2], gap) + len(groups[-2]) * gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    for group in groups:
        for index, (change, psnr, name, colour) in enumerate(group):
            axes.annotate(
                name,
                (psnr, change),
                (right + 0.15, _lowest(group, gap) + index * gap),
                color=INK if colour == GREY else colour,
                va="center",
                annotation_clip=False,
                fontsize=9,
            )


def _lowest(group: Sequence[tuple[float, float, str, str]], gap: float) -> float:
    """Where the lowest name of a group stands, so that the group is around the mean of its lines' ends."""
    return fmean(change for change, *_ in group) - gap * (len(group) - 1) / 2


def _curve(rows: Sequence[Record], image: str) -> Curve:
    return [(row["bpp"], float(row["psnr"])) for row in sorted(rows, key=_quality) if row["image"] == image]


def _mean(rows: Sequence[Record]) -> Curve:
    found = []
    for quality in distinct(rows, "quality"):
        own = [row for row in rows if row["quality"] == quality]
        found.append((fmean(row["bpp"] for row in own), fmean(float(row["psnr"]) for row in own)))
    return found


def _quality(row: Record) -> float:
    return float(row["quality"])


def _bd_rate(anchor: Curve, curve: Curve) -> float | None:
    delta = bjontegaard_deltas(_rising(anchor), _rising(curve))
    return None if delta is None else delta[0]


def _rising(curve: Curve) -> Curve:
    """The curve without points that do not rise: an encoder may give one file at two qualities."""
    rising: list[tuple[float, float]] = []
    for rate, psnr in curve:
        if not rising or psnr > rising[-1][1]:
            rising.append((rate, psnr))
    return rising


def _ratio(points: Curve, curves: Sequence[Curve]) -> float | None:
    """Size of points against that of curves at their PSNR, the smallest of the curves; ``None`` outside of them."""
    ratios = []
    for rate, psnr in points:
        inside = [c for c in curves if len(c) > 1 and c[0][1] <= psnr <= c[-1][1]]
        if inside:
            smallest = min(float(_log_rate(curve)(psnr)) for curve in inside)
            ratios.append(np.log(rate) - smallest)
    return float(np.exp(fmean(ratios))) if ratios else None


def _log_rate(curve: Curve) -> PchipInterpolator:
    """Logarithm of the rate by PSNR."""
    rates, psnrs = zip(*_rising(curve), strict=True)
    return PchipInterpolator(psnrs, np.log(rates))
