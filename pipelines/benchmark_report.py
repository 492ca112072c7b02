"""What a benchmark amounts to: mean curves, Bjøntegaard deltas, and their tables.

A row is ``Result.record()`` with ``image`` (its name) and ``method``; ``plain`` is the plain encoding, which
all other methods are measured against. Only images that have a row of every method at every rate point count,
and none that is stored without loss, so that all means are over the same images.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from lof.report import figures
from lof.report.rate_distortion import Curve, bjontegaard_deltas
from lof.report.records import Record, distinct, number

PLAIN = "plain"


@dataclass(frozen=True)
class Point:
    """One method at one rate point; means over images, each counting once.

    Attributes:
        ms_ssim: over the images that have one, else ``None``.
        rate_change: change of rate at equal quality, as a share.
        seconds: per image.
    """

    quality: float
    bpp: float
    psnr: float
    ms_ssim: float | None
    rate_change: float
    evaluations: float
    seconds: float


@dataclass(frozen=True)
class Method:
    """One method over all rate points; all Bjøntegaard deltas are against the plain encoding, by PSNR.

    Attributes:
        bd_rate, bd_psnr: as a share and in dB, of each image's own curve, then the mean over images; ``None``
            where there is no curve.
        curve_bd_rate, curve_bd_psnr: of the mean curve.
        bd_images: how many images have a curve that the deltas are defined for: at least two rate points,
            rate and PSNR both rising.
        rate_change, evaluations, seconds: means over images and rate points.
        kept_plain: how many files are the plain encoding because the search did not win.
    """

    name: str
    points: list[Point]
    bd_rate: float | None
    bd_psnr: float | None
    curve_bd_rate: float | None
    curve_bd_psnr: float | None
    bd_images: int
    rate_change: float
    evaluations: float
    seconds: float
    kept_plain: int


@dataclass(frozen=True)
class Benchmark:
    """Methods side by side on the same ``images``; ``reference`` names the one they are compared with."""

    methods: list[Method]
    images: list[str]
    qualities: list[float]
    reference: str | None

    @property
    def has_bd(self) -> bool:
        """Whether there are Bjøntegaard deltas; one rate point has none."""
        return any(method.bd_rate is not None for method in self.methods)

    def gain(self, method: Method) -> float | None:
        """A method in one figure: its BD-rate; where no method has one, its change of rate."""
        return method.bd_rate if self.has_bd else method.rate_change

    def to_reference(self, method: Method, figure: Callable[[Method], float | None]) -> float | None:
        """A figure of ``method`` as a share of the reference's; ``None`` for itself and for ``plain``."""
        reference = next((figure(m) for m in self.methods if m.name == self.reference), None)
        own = figure(method)
        if not reference or own is None or method.name in (PLAIN, self.reference):
            return None
        return own / reference


def complete_images(rows: Sequence[Record], methods: Sequence[str]) -> list[str]:
    """Names of the images that have a row of every method at every rate point that ``rows`` hold, sorted.

    An image that one of them stores without loss has no PSNR to compare, and is left out.
    """
    lossy = [row for row in rows if math.isfinite(float(row["optimised"]["psnr"]))]
    there = {(row["image"], row["method"], row["quality"]) for row in lossy}
    qualities = distinct(rows, "quality")
    return [
        image
        for image in distinct(rows, "image")
        if all((image, method, quality) in there for method in methods for quality in qualities)
    ]


def summarise(rows: Sequence[Record], methods: Sequence[str], reference: str | None) -> Benchmark | None:
    """Means and Bjøntegaard deltas, or ``None`` where no image is complete.

    Args:
        rows: at most one per image, method and quality.
        methods: names in the order of the tables, ``plain`` among them.
        reference: the method that gains, evaluations and times are compared with.
    """
    images, qualities = complete_images(rows, methods), distinct(rows, "quality")
    if not images:
        return None
    by_place = {(row["method"], row["quality"], row["image"]): row for row in rows}

    def of(method: str) -> dict[float, list[Record]]:
        return {quality: [by_place[method, quality, image] for image in images] for quality in qualities}

    plain = of(PLAIN)
    return Benchmark([_method(name, of(name), plain) for name in methods], images, qualities, reference)


def summary_table(benchmark: Benchmark) -> Table:
    """One row per method: gain, gradient evaluations and time; fits 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    columns = _summary_columns(benchmark)
    for index, (header, _) in enumerate(columns):
        table.add_column(header.replace(", ", "\n"), no_wrap=True, justify="right" if index else "left")
    for method in benchmark.methods:
        table.add_row(*(Text(cell(method)) for _, cell in columns))
    return table


def points_table(benchmark: Benchmark, *, ms_ssim: bool = False) -> Table:
    """One row per rate point and method; fits 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    columns = _point_columns(ms_ssim)
    for index, (header, _) in enumerate(columns):
        table.add_column(header, no_wrap=True, justify="left" if index == 1 else "right")
    for number_, _quality in enumerate(benchmark.qualities):
        for method in benchmark.methods:
            table.add_row(*(Text(cell(method, method.points[number_])) for _, cell in columns))
        table.add_section()
    return table


def to_markdown(benchmark: Benchmark, settings: str, *, ms_ssim: bool = False) -> str:
    """Both tables, with ``settings`` (one sentence) before and the notes after them."""
    summary, points = _summary_columns(benchmark), _point_columns(ms_ssim)
    lines = [settings, "", *_markdown_head([header for header, _ in summary], left=0)]
    lines += [markdown_row([cell(method) for _, cell in summary]) for method in benchmark.methods]
    lines += ["", *_markdown_head([header for header, _ in points], left=1)]
    for index in range(len(benchmark.qualities)):
        lines += [markdown_row([cell(m, m.points[index]) for _, cell in points]) for m in benchmark.methods]
    return "\n".join([*lines, "", *notes(benchmark)]) + "\n"


def to_csv(rows: Sequence[Record]) -> str:
    """One line per image, rate point and method; empty where there is no such figure."""
    measures = {"bytes": "size", "bpp": "bpp", "psnr_db": "psnr", "ms_ssim": "ms_ssim", "cost_bpp": "cost"}
    plain = ("image", "quality", "method", "width", "height", "lambda", "evaluations", "seconds", "kept")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*plain, *measures, "rate_change_percent"])
    for row in rows:
        figures_ = [row["optimised"][key] for key in measures.values()]
        writer.writerow([*(row[key] for key in plain), *figures_, 100 * row["rate_change"]])
    return buffer.getvalue()


def notes(benchmark: Benchmark) -> list[str]:
    """What a reader must know to read the tables right, a sentence each."""
    count = len(benchmark.images)
    images = f"{count} image{'s' * (count != 1)}"
    if benchmark.has_bd:
        how = "Akima" if len(benchmark.qualities) > 2 else "linear: two rate points"
        said = [f"BD ({how}) against plain, by PSNR: mean of {images}; 'curve': of the mean curve."]
    elif len(benchmark.qualities) == 1:
        said = [f"One rate point: no BD-rate. Rate change at equal quality, mean of {images}."]
    else:
        said = [f"No BD-rate: the curves do not rise. Rate change at equal quality, mean of {images}."]
    for method in benchmark.methods:
        if benchmark.has_bd and method.name != PLAIN and method.bd_images < count:
            said.append(f"{method.name}: BD of {method.bd_images} of {images}; the other curves do not rise.")
        if method.kept_plain and method.name != PLAIN:
            files = f"{method.kept_plain} file{'s' * (method.kept_plain != 1)}"
            said.append(f"{method.name}: {files} kept the plain encoding.")
    return said


def _method(name: str, by_quality: dict[float, list[Record]], plain: dict[float, list[Record]]) -> Method:
    points = [_point(quality, rows) for quality, rows in by_quality.items()]
    curves = zip(_curves(plain), _curves(by_quality), strict=True)
    deltas = [delta for pair in curves if (delta := bjontegaard_deltas(*pair)) is not None]
    mean_plain = [(point.bpp, point.psnr) for point in (_point(q, rows) for q, rows in plain.items())]
    of_mean = bjontegaard_deltas(mean_plain, [(point.bpp, point.psnr) for point in points])
    rows = [row for rows in by_quality.values() for row in rows]
    return Method(
        name=name,
        points=points,
        bd_rate=_mean([rate for rate, _ in deltas]) if deltas else None,
        bd_psnr=_mean([gain for _, gain in deltas]) if deltas else None,
        curve_bd_rate=of_mean[0] if of_mean else None,
        curve_bd_psnr=of_mean[1] if of_mean else None,
        bd_images=len(deltas),
        rate_change=_mean([row["rate_change"] for row in rows]),
        evaluations=_mean([row["evaluations"] for row in rows]),
        seconds=_mean([row["seconds"] for row in rows]),
        kept_plain=sum(row["kept"] == "plain" for row in rows),
    )


def _point(quality: float, rows: Sequence[Record]) -> Point:
    similarities = [s for row in rows if (s := row["optimised"]["ms_ssim"]) is not None]
    return Point(
        quality=quality,
        bpp=_mean([row["optimised"]["bpp"] for row in rows]),
        psnr=_mean([_psnr(row) for row in rows]),
        ms_ssim=_mean(similarities) if similarities else None,
        rate_change=_mean([row["rate_change"] for row in rows]),
        evaluations=_mean([row["evaluations"] for row in rows]),
        seconds=_mean([row["seconds"] for row in rows]),
    )


def _curves(by_quality: dict[float, list[Record]]) -> list[Curve]:
    """Each image's own curve, in the images' order."""
    return [
        [(row["optimised"]["bpp"], _psnr(row)) for row in rows]
        for rows in zip(*by_quality.values(), strict=True)
    ]


def _psnr(row: Record) -> float:
    found = number(row["optimised"]["psnr"])
    return math.nan if found is None else found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _summary_columns(benchmark: Benchmark) -> list[tuple[str, Callable[[Method], str]]]:
    reference = benchmark.reference
    columns: list[tuple[str, Callable[[Method], str]]] = [("method", lambda m: m.name)]
    if benchmark.has_bd:
        columns += [
            ("BD-rate", lambda m: _percent(m.bd_rate)),
            ("BD-rate, curve", lambda m: _percent(m.curve_bd_rate)),
            ("BD-PSNR, dB", lambda m: figures.decimal(m.bd_psnr, 2)),
        ]
    else:
        columns.append(("rate", lambda m: _percent(m.rate_change)))
    if reference is not None:
        columns.append(("gain, / SGA", lambda m: _share(benchmark.to_reference(m, benchmark.gain))))
    columns.append(("evals", lambda m: f"{m.evaluations:.0f}"))
    if reference is not None:
        columns.append(("evals, / SGA", lambda m: _ratio(benchmark.to_reference(m, lambda m: m.evaluations))))
    columns.append(("seconds", lambda m: _seconds(m.seconds)))
    if reference is not None:
        columns.append(("seconds, / SGA", lambda m: _ratio(benchmark.to_reference(m, lambda m: m.seconds))))
    return columns


def _point_columns(ms_ssim: bool) -> list[tuple[str, Callable[[Method, Point], str]]]:
    columns: list[tuple[str, Callable[[Method, Point], Any]]] = [
        ("quality", lambda _, p: str(p.quality)),
        ("method", lambda m, _: m.name),
        ("bpp", lambda _, p: figures.decimal(p.bpp, 4)),
        ("PSNR dB", lambda _, p: figures.decibels(p.psnr)),
    ]
    if ms_ssim:
        columns.append(("MS-SSIM", lambda _, p: figures.similarity(p.ms_ssim)))
    return [
        *columns,
        ("rate", lambda _, p: _percent(p.rate_change)),
        ("evals", lambda _, p: f"{p.evaluations:.0f}"),
        ("seconds", lambda _, p: _seconds(p.seconds)),
    ]


def _percent(share: float | None) -> str:
    return figures.ABSENT if share is None else f"{figures.decimal(100 * share, 2)} %"


def _share(share: float | None) -> str:
    return figures.ABSENT if share is None else f"{figures.decimal(100 * share, 0)} %"


def _ratio(share: float | None) -> str:
    """``1/33.3`` of 0.03, ``2.0`` of 2."""
    if share is None:
        return figures.ABSENT
    return f"1/{1 / share:.1f}" if 0 < share < 1 else f"{share:.1f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 100 else f"{seconds:.0f}"


def _markdown_head(headers: Sequence[str], left: int) -> list[str]:
    rules = [":---" if index == left else "---:" for index in range(len(headers))]
    return [markdown_row(headers), markdown_row(rules)]


def markdown_row(cells: Sequence[str]) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"
