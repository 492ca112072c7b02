"""What a comparison of codecs amounts to: rate against decoding time, plain and searched.

A row holds ``codec`` (a label), ``method``, ``quality``, ``image``, ``bpp`` and ``psnr`` of one decoded file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lof.report.canvas import BLUE, GREY, INK, canvas, png, round_numbers
from lof.report.figures import ABSENT, percent
from lof.report.rate_distortion import bjontegaard_deltas
from lof.report.records import Record, distinct
from pipelines.benchmark_report import PLAIN
from pipelines.rows import complete_images


@dataclass(frozen=True)
class Point:
    """One rate point of a codec; means over images, each counting once."""

    quality: float
    bpp: float
    psnr: float


@dataclass(frozen=True)
class Compared:
    """One codec under one method.

    Attributes:
        seconds: to decode the timed image; ``None`` where it was not timed.
        bd_rate: of the mean curve against the first codec's plain encoding, as a share; ``None`` where there is
            no curve.
    """

    codec: str
    method: str
    points: tuple[Point, ...]
    seconds: float | None
    bd_rate: float | None


def compare(rows: Sequence[Record], seconds: Mapping[str, float]) -> list[Compared]:
    """Curves of every codec and method, over the images that all of them have at all their rate points.

    Args:
        rows: at most one per codec, method, quality and image; the first codec is the anchor.
        seconds: decoding time by codec.
    """
    images = complete_images(rows, "codec", "method", "quality")
    found: list[Compared] = []
    for codec in dict.fromkeys(row["codec"] for row in rows):
        for method in dict.fromkeys(row["method"] for row in rows):
            own = [r for r in rows if (r["codec"], r["method"]) == (codec, method) and r["image"] in images]
            if not own:
                continue
            points = tuple(
                Point(q, *(fmean(float(r[key]) for r in own if r["quality"] == q) for key in ("bpp", "psnr")))
                for q in distinct(own, "quality")
            )
            curve = [(p.bpp, p.psnr) for p in points]
            anchor = [(p.bpp, p.psnr) for p in found[0].points] if found else curve
            delta = bjontegaard_deltas(anchor, curve)
            rate = None if delta is None else delta[0]
            found.append(Compared(codec, method, points, seconds.get(codec), rate))
    return found


def table(compared: Sequence[Compared]) -> str:
    """Markdown: a line for each codec and method."""
    qualities = sorted({p.quality for c in compared for p in c.points})
    head = ["codec", "search", "BD-rate", "decoding", *(f"q{q}: bpp, dB" for q in qualities)]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for c in compared:
        at = {p.quality: f"{p.bpp:.4f}, {p.psnr:.2f}" for p in c.points}
        rate = ABSENT if c.bd_rate is None else percent(c.bd_rate)
        time = ABSENT if c.seconds is None else f"{c.seconds:.3f} s"
        cells = [c.codec, c.method, rate, time, *(at.get(q, ABSENT) for q in qualities)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(compared: Sequence[Compared]) -> bytes:
    """BD-rate over decoding time, as a PNG file: open marks are plain, filled ones searched."""
    figure, axes = canvas()
    style: dict[str, Any] = {"markersize": 8, "linestyle": "none", "zorder": 3}
    for codec in dict.fromkeys(c.codec for c in compared):
        own = {
            c.method: (c.seconds, 100 * c.bd_rate)
            for c in compared
            if c.codec == codec and c.seconds is not None and c.bd_rate is not None
        }
        for method, place in own.items():
            plain = method == PLAIN
            axes.plot(*place, "o", color=BLUE, markerfacecolor="white" if plain else BLUE, **style)
            if not plain and PLAIN in own:
                axes.plot(*zip(own[PLAIN], place, strict=True), color=GREY, linewidth=1)
        if own:
            place = own.get(PLAIN, next(iter(own.values())))
            beside: dict[str, Any] = {"xytext": (-9, 0), "textcoords": "offset points", "ha": "right"}
            axes.annotate(codec, place, color=INK, va="center", **beside)
    axes.set_xscale("log")
    axes.set_xlabel("decoding time, s (open: plain encoding; filled: after a search)")
    axes.set_ylabel("BD-rate, %")
    axes.margins(x=0.2, y=0.12)
    round_numbers(axes)
    return png(figure)
