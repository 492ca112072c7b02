"""The two plots of a benchmark, as PNG files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from lof.report.benchmark import PLAIN, Benchmark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID, BLUE, ORANGE, GREY = "#333333", "#e4e4e4", "#1f5fa8", "#d1701c", "#8a8a8a"


def gain_against_evaluations(benchmark: Benchmark) -> bytes:
    """Gain over gradient evaluations (logarithmic): the profiles as a line, the reference as a point."""
    figure, axes = _canvas()
    places = {
        method.name: (max(1.0, method.evaluations), 100 * gain)
        for method in sorted(benchmark.methods, key=lambda method: method.evaluations)
        if method.name != PLAIN and (gain := benchmark.gain(method)) is not None
    }
    reference = places.pop(str(benchmark.reference), None)
    if reference is not None:
        axes.axhline(reference[1], color=ORANGE, linewidth=1, linestyle=(0, (4, 4)), alpha=0.7)
        axes.plot(*reference, "D", color=ORANGE, markersize=7, zorder=3)
        _name(axes, str(benchmark.reference), reference, ORANGE, above=False)
    if places:
        axes.plot(
            *zip(*places.values(), strict=True), "-o", color=BLUE, linewidth=1.8, markersize=6, zorder=3
        )
    for name, place in places.items():
        _name(axes, name, place, BLUE, above=True)
    axes.set_xscale("log")
    axes.set_xlabel("gradient evaluations per image")
    measure = "BD-rate" if benchmark.has_bd else "Rate change at equal quality"
    axes.set_ylabel(f"{measure} against plain encoding, %")
    axes.margins(x=0.12, y=0.16)
    _round_numbers(axes)
    return _png(figure)


def rate_distortion(benchmark: Benchmark) -> bytes:
    """Mean PSNR over mean rate, one curve per method."""
    from matplotlib import colormaps

    figure, axes = _canvas()
    searched = [method for method in benchmark.methods if method.name not in (PLAIN, benchmark.reference)]
    shades = colormaps["Blues"]
    colours: dict[str, Any] = {
        m.name: shades(0.45 + 0.5 * i / max(1, len(searched) - 1)) for i, m in enumerate(searched)
    }
    colours |= {PLAIN: GREY, str(benchmark.reference): ORANGE}
    for method in benchmark.methods:
        dashed = "--" if method.name == benchmark.reference else "-"
        axes.plot(
            [point.bpp for point in method.points],
            [point.psnr for point in method.points],
            dashed,
            marker="o",
            markersize=4.5,
            linewidth=1.5,
            color=colours[method.name],
            label=method.name,
        )
    axes.set_xlabel("bits per pixel, files as written")
    axes.set_ylabel("PSNR of the decoded 8-bit image, dB")
    axes.legend(frameon=False, labelcolor=INK)
    return _png(figure)


def _canvas() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK, which="both")
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _name(axes: Axes, name: str, place: tuple[float, float], colour: str, *, above: bool) -> None:
    axes.annotate(
        name,
        place,
        xytext=(0, 9 if above else -9),
        textcoords="offset points",
        ha="center",
        va="bottom" if above else "top",
        color=colour,
    )


def _round_numbers(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
