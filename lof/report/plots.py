"""Geometry of the page's two plots; the template draws it as SVG, so that both colour schemes style it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from lof.report import figures
from lof.report.records import Record, number

WIDTH, HEIGHT = 400, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 22, 44


Drawing = dict[str, Any]
"""What the template needs of a plot; ticks have a position ``at`` and a label, all positions are in pixels."""


def histogram(rows: Sequence[Record]) -> Drawing:
    """Of the changes of rate at equal quality, in percent: bars, ticks and the mean; at least one record."""
    values = np.array([100 * row["rate_change"] for row in rows])
    edges = _ticks(*_widened(values.min(), values.max(), 1.0), bins=16)
    heights, _ = np.histogram(values, edges)
    levels = _ticks(0, max(1, int(heights.max())), bins=4, integer=True)
    x, y = _x_axis(edges[0], edges[-1]), _y_axis(0, levels[-1])
    bars = [
        {
            "x": x(low),
            "y": y(n),
            "width": x(high) - x(low),
            "height": y(0) - y(n),
            "title": f"{_label(low)} to {_label(high)} %: {figures.plural(n, 'picture')}",
        }
        for low, high, n in zip(edges[:-1], edges[1:], map(int, heights), strict=True)
        if n
    ]
    inside = [v for v in _ticks(edges[0], edges[-1], bins=6) if edges[0] - 1e-9 <= v <= edges[-1] + 1e-9]
    return {
        "bars": bars,
        "x_ticks": _labelled(inside, x),
        "y_ticks": _labelled(levels, y),
        "mean": {"at": x(values.mean()), "label": figures.percent(values.mean() / 100)},
    }


def scatter(rows: Sequence[Record]) -> Drawing | None:
    """Rate and quality of each picture before and after, as arrows; ``None`` where no PSNR is finite.

    ``left_out`` pictures are lossless and have no finite PSNR.
    """
    points = []
    for row in rows:
        before, after = row["baseline"], row["optimised"]
        ends = (before["bpp"], number(before["psnr"]), after["bpp"], number(after["psnr"]))
        if all(end is not None and math.isfinite(end) for end in ends):
            points.append((row["source"], ends))
    if not points:
        return None
    values = np.array([ends for _, ends in points], dtype=float)
    x_values = _ticks(*_widened(values[:, ::2].min(), values[:, ::2].max(), 0.02), bins=6)
    y_values = _ticks(*_widened(values[:, 1::2].min(), values[:, 1::2].max(), 0.5), bins=5)
    x, y = _x_axis(x_values[0], x_values[-1]), _y_axis(y_values[0], y_values[-1])
    arrows = [
        {
            "start": (x(x1), y(y1)),
            "end": (x(x2), y(y2)),
            "title": figures.printable(f"{name}: {_point(x1, y1)} → {_point(x2, y2)}"),
        }
        for (name, _), (x1, y1, x2, y2) in zip(points, values.tolist(), strict=True)
    ]
    return {
        "arrows": arrows,
        "x_ticks": _labelled(x_values, x),
        "y_ticks": _labelled(y_values, y),
        "left_out": len(rows) - len(points),
    }


_Axis = Callable[[float], float]


def _axis(low: float, high: float, start: float, end: float) -> _Axis:
    return lambda value: round(float(start + (value - low) * (end - start) / (high - low)), 1)


def _x_axis(low: float, high: float) -> _Axis:
    return _axis(low, high, LEFT, WIDTH - RIGHT)


def _y_axis(low: float, high: float) -> _Axis:
    return _axis(low, high, HEIGHT - BOTTOM, TOP)


def _labelled(values: Sequence[float], axis: _Axis) -> list[Drawing]:
    return [{"at": axis(value), "label": _label(value)} for value in values]


def _ticks(low: float, high: float, *, bins: int, integer: bool = False) -> list[float]:
    """Round values that enclose ``low`` and ``high``."""
    locator = MaxNLocator(nbins=bins, steps=[1, 2, 5, 10], integer=integer, min_n_ticks=2)
    return [float(value) for value in locator.tick_values(low, high)]


def _widened(low: float, high: float, least: float) -> tuple[float, float]:
    """A range at least ``least`` wide around equal or nearly equal values."""
    missing = max(0.0, least - (high - low)) / 2
    return float(low - missing), float(high + missing)


def _label(value: float) -> str:
    return f"{round(value, 6):g}".replace("-", "−")


def _point(rate: float, quality: float) -> str:
    return f"{figures.bits_per_pixel(rate)} bpp, {figures.decibels(quality)} dB"
