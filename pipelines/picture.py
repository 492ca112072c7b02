"""A picture for the documentation: original, plain encoding and search side by side, measured on the spot.

    python -m pipelines.picture .readme/picture.png --quality 2 --profile high
    python -m pipelines.picture .readme/descriptors.png --codec jpeg-descriptors --quality 10

Where other programs show another picture than lof does, as with descriptors, theirs of the plain encoding comes first.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import typer
from skimage import data

import lof
from lof.codecs import DEFAULT_CODEC
from lof.files.atomic import write_atomically
from lof.metrics import mse, psnr
from lof.pictures.formats import decode
from lof.results import Measured, Pixels
from pipelines.command import CodecName, run

TOP, LEFT, SIDE = 30, 150, 160


def main(
    out: Annotated[Path, typer.Argument(help="The PNG to write.")],
    codec: CodecName = DEFAULT_CODEC,
    quality: Annotated[int, typer.Option(help="Its rate point.")] = 2,
    profile: Annotated[str, typer.Option(help="Profile of the search.")] = "high",
) -> None:
    """Optimise scikit-image's astronaut and show a crop of it."""
    original = data.astronaut()
    result = lof.optimize(original, codec=codec, quality=quality, profile=profile)
    panels = [
        ("original", "", original),
        ("plain encoding", _figures(result.baseline), result.baseline_pixels),
        (f"lof, {profile}", _figures(result.optimised), result.pixels),
    ]
    if codec.startswith("jpeg-"):
        plain = lof.encode(original, codec=codec, quality=quality)
        shown = decode(plain)
        panels.insert(1, ("JPEG", f"{len(plain):,} bytes, {psnr(mse(original, shown)):.2f} dB", shown))
        panels[2] = ("JPEG, filtered", *panels[2][1:])
        panels[3] = (f"lof, {profile}, filtered", *panels[3][1:])
    size = (9, 10.5 / len(panels))
    figure, axes = plt.subplots(1, len(panels), figsize=size, dpi=120, layout="constrained")
    for axis, (title, figures, pixels) in zip(axes, panels, strict=True):
        axis.imshow(_crop(pixels), interpolation="nearest")
        axis.set_title(title, fontsize=11, loc="left")
        axis.set_xlabel(figures, fontsize=9, loc="left")
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(out, buffer.getvalue())
    typer.echo(f"{out}: {_figures(result.baseline)} -> {_figures(result.optimised)}")


def _crop(pixels: Pixels) -> Pixels:
    return pixels[TOP : TOP + SIDE, LEFT : LEFT + SIDE]


def _figures(measured: Measured) -> str:
    return f"{measured.size:,} bytes, {measured.psnr:.2f} dB"


if __name__ == "__main__":
    run(main)
