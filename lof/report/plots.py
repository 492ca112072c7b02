"""The page's two plots, as PNG files."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lof.report import figures
from lof.report.canvas import BLUE, GREY, INK, ORANGE, canvas, png
from lof.report.records import Record


def histogram(rows: Sequence[Record]) -> bytes:
    """Of the changes of rate at equal quality, in percent, with their mean; at least one record."""
    from matplotlib.ticker import MaxNLocator

    values = [100 * row["rate_change"] for row in rows]
    mean = sum(values) / len(values)
    figure, axes = canvas()
    axes.hist(values, bins=16, color=BLUE)
    axes.axvline(mean, color=ORANGE, label=f"mean {figures.percent(mean / 100)}")
    axes.set_xlabel("change of rate at equal quality, %")
    axes.set_ylabel("pictures")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper right", ncols=2, frameon=False, labelcolor=INK)
    return png(figure)


def drawable(rows: Sequence[Record]) -> list[Record]:
    """Those whose PSNR is finite before and after; that of a lossless picture is not."""
    return [row for row in rows if all(math.isfinite(y) for _, y in _ends(row))]


def scatter(rows: Sequence[Record]) -> bytes | None:
    """Rate and quality of each :func:`drawable` picture before and after, as arrows; ``None`` where there is none."""
    ends = [_ends(row) for row in drawable(rows)]
    if not ends:
        return None
    figure, axes = canvas()
    before, after = zip(*ends, strict=True)
    x, y = zip(*before, strict=True)
    moved = [(b[0] - a[0], b[1] - a[1]) for a, b in ends]
    axes.quiver(
        x, y, *zip(*moved, strict=True), angles="xy", scale_units="xy", scale=1, width=0.003, color=BLUE
    )
    axes.plot(x, y, "o", color=GREY, markerfacecolor="none", markersize=4, label="plain")
    axes.plot(*zip(*after, strict=True), "o", color=BLUE, markersize=2, label="optimised")
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel("PSNR, dB")
    figure.legend(loc="outside upper right", ncols=2, frameon=False, labelcolor=INK)
    return png(figure)


def _ends(row: Record) -> tuple[tuple[float, float], tuple[float, float]]:
    """Bits per pixel and PSNR, before and after."""
    before, after = ((row[side]["bpp"], float(row[side]["psnr"])) for side in ("baseline", "optimised"))
    return before, after
