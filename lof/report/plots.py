"""Geometry of the page's two plots; the template draws it as SVG, so that both colour schemes style it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from lof.report import figures
from lof.report.records import Record, number

WIDTH, HEIGHT = 400, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 22, 44


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis, in pixels of the drawing."""

    at: float
    label: str


@dataclass(frozen=True)
class Bar:
    """A bar of the histogram: left edge, top, width, height; and what it says when pointed at."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Histogram:
    """How the changes of rate are spread; ``mean`` is a position on the x axis."""

    bars: list[Bar]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    mean: Tick


@dataclass(frozen=True)
class Arrow:
    """One picture, from its plain encoding to the optimised one."""

    x1: float
    y1: float
    x2: float
    y2: float
    title: str

    @property
    def moves(self) -> bool:
        """Whether the two ends are apart in the drawing."""
        return (self.x1, self.y1) != (self.x2, self.y2)


@dataclass(frozen=True)
class Scatter:
    """Bits per pixel against PSNR. ``left_out`` pictures are lossless and have no finite PSNR."""

    arrows: list[Arrow]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    left_out: int


def histogram(rows: Sequence[Record]) -> Histogram:
    """Histogram of the changes of rate at equal quality, in percent; takes at least one record."""
    values = np.array([100 * row["rate_change"] for row in rows])
    edges = _ticks(*_widened(values.min(), values.max(), 1.0), bins=16)
    heights, _ = np.histogram(values, edges)
    levels = _ticks(0, max(1, int(heights.max())), bins=4, integer=True)
    x, y = _x_axis(edges[0], edges[-1]), _y_axis(0, levels[-1])
    bars = [
        Bar(x(low), y(n), x(high) - x(low), y(0) - y(n), f"{_range(low, high)}: {n} picture{'s' * (n != 1)}")
        for low, high, n in zip(edges[:-1], edges[1:], map(int, heights), strict=True)
        if n
    ]
    return Histogram(
        bars,
        [Tick(x(value), _label(value)) for value in _within(_ticks(edges[0], edges[-1], bins=6), edges)],
        [Tick(y(value), _label(value)) for value in levels],
        Tick(x(values.mean()), figures.percent(values.mean() / 100)),
    )


def scatter(rows: Sequence[Record]) -> Scatter | None:
    """Rate and quality of each picture before and after; ``None`` where no PSNR is finite."""
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
        Arrow(x(x1), y(y1), x(x2), y(y2), figures.printable(f"{name}: {_point(x1, y1)} → {_point(x2, y2)}"))
        for (name, _), (x1, y1, x2, y2) in zip(points, values.tolist(), strict=True)
    ]
    return Scatter(
        arrows,
        [Tick(x(value), _label(value)) for value in x_values],
        [Tick(y(value), _label(value)) for value in y_values],
        len(rows) - len(points),
    )


class _Axis:
    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._start, self._scale = low, start, (end - start) / (high - low)

    def __call__(self, value: float) -> float:
        return round(float(self._start + (value - self._low) * self._scale), 1)


def _x_axis(low: float, high: float) -> _Axis:
    return _Axis(low, high, LEFT, WIDTH - RIGHT)


def _y_axis(low: float, high: float) -> _Axis:
    return _Axis(low, high, HEIGHT - BOTTOM, TOP)


def _ticks(low: float, high: float, *, bins: int, integer: bool = False) -> list[float]:
    """Round values that enclose ``low`` and ``high``."""
    locator = MaxNLocator(nbins=bins, steps=[1, 2, 5, 10], integer=integer, min_n_ticks=2)
    return [float(value) for value in locator.tick_values(low, high)]


def _within(values: Sequence[float], edges: Sequence[float]) -> list[float]:
    return [value for value in values if edges[0] - 1e-9 <= value <= edges[-1] + 1e-9]


def _widened(low: float, high: float, least: float) -> tuple[float, float]:
    """A range at least ``least`` wide around equal or nearly equal values."""
    missing = max(0.0, least - (high - low)) / 2
    return float(low - missing), float(high + missing)


def _label(value: float) -> str:
    return f"{round(value, 6):g}".replace("-", "−")


def _range(low: float, high: float) -> str:
    return f"{_label(low)} to {_label(high)} %"


def _point(rate: float, quality: float) -> str:
    return f"{figures.bits_per_pixel(rate)} bpp, {figures.decibels(quality)} dB"
