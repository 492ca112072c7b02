"""What a matrix of codecs amounts to: the gain of each method in each cell, and its share of the reference's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lof.report.canvas import GREY, INK, canvas, png
from lof.report.figures import ABSENT, decimal
from lof.report.records import Record
from pipelines.benchmark_report import markdown_row


@dataclass(frozen=True)
class Gain:
    """One method in one cell.

    Attributes:
        changes: change of cost against the plain encoding, as a share, of each image.
        evaluations, seconds: means over images.
    """

    changes: tuple[float, ...]
    evaluations: float
    seconds: float

    @property
    def mean(self) -> float:
        """Mean change of cost over images."""
        return fmean(self.changes)


@dataclass(frozen=True)
class Cell:
    """One codec at one quality; gains by the methods' names."""

    name: str
    gains: dict[str, Gain]

    def share(self, method: str, reference: str) -> float | None:
        """A method's gain as a share of the reference's; ``None`` where the reference gained nothing."""
        whole = self.gains[reference].mean
        return self.gains[method].mean / whole if whole < 0 else None


def cell(name: str, rows: Sequence[Record], methods: Sequence[str]) -> Cell:
    """A cell from its rows, ``Result.record()`` with ``method``."""
    gains = {}
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        changes = tuple(row["optimised"]["cost"] / row["baseline"]["cost"] - 1 for row in own)
        gains[method] = Gain(
            changes, fmean(row["evaluations"] for row in own), fmean(row["seconds"] for row in own)
        )
    return Cell(name, gains)


def table(cells: Sequence[Cell], reference: str | None) -> str:
    """Markdown: a line for each cell, then the mean and the least share of each method."""
    methods = list(cells[0].gains)
    head = ["cell"]
    for method in methods:
        head += [method] if method == reference or reference is None else [method, "share"]
    lines = [markdown_row(head), markdown_row([":---", *["---:"] * (len(head) - 1)])]
    for one in cells:
        row = [f"`{one.name}`"]
        for method in methods:
            row.append(f"{decimal(100 * one.gains[method].mean, 1)} %")
            if reference is not None and method != reference:
                row.append(_share(one.share(method, reference)))
        lines.append(markdown_row(row))
    lines.append("")
    for method in methods:
        gains = [one.gains[method] for one in cells]
        said = f"`{method}`: {fmean(g.evaluations for g in gains):.0f} evaluations"
        said += f", {fmean(g.seconds for g in gains):.1f} s an image"
        if reference is not None and method != reference:
            shares = [s for one in cells if (s := one.share(method, reference)) is not None]
            mean = fmean(shares) if shares else None
            said += f"; share of {reference}'s gain {_share(mean)}, least {_share(min(shares, default=None))}"
        every = [change for gain in gains for change in gain.changes]
        said += f"; {sum(c > 0 for c in every)} of {len(every)} files worse than plain, "
        said += f"{sum(c == 0 for c in every)} as it."
        lines.append(f"- {said}")
    return "\n".join(lines) + "\n"


def plot(cells: Sequence[Cell], reference: str) -> bytes:
    """The share of the reference's gain in each cell, one mark for each other method, as a PNG file."""
    from matplotlib import colormaps

    methods = [name for name in cells[0].gains if name != reference]
    figure, axes = canvas(height=1 + 0.26 * len(cells))
    for index, method in enumerate(methods):
        colour = colormaps["Blues"](0.4 + 0.55 * index / max(1, len(methods) - 1))
        shares = [one.share(method, reference) for one in cells]
        places = [(100 * s, -row) for row, s in enumerate(shares) if s is not None]
        axes.plot(
            *zip(*places, strict=True),
            "o",
            color=colour,
            markersize=6,
            linestyle="none",
            label=method,
            zorder=3,
        )
    axes.axvline(100, color=GREY, linewidth=1.2)
    axes.set_yticks([-row for row in range(len(cells))], [one.name for one in cells], color=INK)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"gain of cost, % of that of {reference}")
    axes.legend(frameon=False, labelcolor=INK, loc="lower left")
    return png(figure)


def _share(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.0f} %"
