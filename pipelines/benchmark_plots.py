"""The two plots of a benchmark, as PNG files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lof.report.canvas import BLUE, GREY, INK, ORANGE, canvas, png, round_numbers
from pipelines.benchmark_report import PLAIN, Benchmark

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def gain_against_evaluations(benchmark: Benchmark) -> bytes:
    """Gain over gradient evaluations (logarithmic): the profiles as a line, the reference as a point."""
    figure, axes = canvas()
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
    round_numbers(axes)
    return png(figure)


def rate_distortion(benchmark: Benchmark) -> bytes:
    """Mean PSNR over mean rate, one curve per method."""
    from matplotlib import colormaps

    figure, axes = canvas()
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
    return png(figure)


def _name(axes: Axes, name: str, place: tuple[float, float], colour: str, *, above: bool) -> None:
    axes.annotate(
        name,
        place,
        xytext=(7, 3) if above else (0, -9),  # above a falling curve is to its right
        textcoords="offset points",
        ha="left" if above else "center",
        va="bottom" if above else "top",
        color=colour,
    )
