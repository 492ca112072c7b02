"""What a search in windows loses against that of the whole image, where both fit.

    python -m pipelines.windows kodim04.png kodim19.png --codec lapped --profile fast --side 512 --window 384

The costs of the files of each picture's upper right square, searched whole and in windows of at most so many pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

import lof
from lof.codecs import DEFAULT_CODEC, load_codec
from lof.pictures.reading import read_picture
from lof.search import windows_for
from lof.search.windows import BASE, HELD
from pipelines.command import CodecName, ProfileName, Threads, run

HUNGRY = 10_000
"""Bytes for a pixel that a search is said to need, so that a small picture does not fit."""


def main(
    pictures: Annotated[list[Path], typer.Argument(help="Images.")],
    *,
    codec: CodecName = DEFAULT_CODEC,
    profile: ProfileName = "fast",
    side: Annotated[int, typer.Option(min=1, help="Side of the square that is cut from each picture.")] = 512,
    window: Annotated[int, typer.Option(min=1, help="Side of a window's square, margins included.")] = 384,
    threads: Threads = 1,
) -> None:
    """Print a row for each picture."""
    torch.set_num_threads(threads)
    loaded = load_codec(codec, device="cpu")
    needed = loaded.bytes_per_pixel
    typer.echo("| picture | windows | plain | whole | in windows | over the whole |\n" + 6 * "| --- " + "|")
    for path in pictures:
        pixels = np.ascontiguousarray(read_picture(path).pixels[:side, -side:])
        loaded.bytes_per_pixel = needed
        whole = lof.optimize(pixels, codec=loaded, profile=profile)
        loaded.bytes_per_pixel = HUNGRY
        memory = BASE + HELD * pixels[..., 0].size + HUNGRY * window**2
        parts = lof.optimize(pixels, codec=loaded, profile=profile, memory=memory)
        costs = whole.baseline.cost, whole.optimised.cost, parts.optimised.cost
        shown = " | ".join(f"{cost:.5f}" for cost in costs)
        height, width = pixels.shape[:2]
        count = len(windows_for(loaded, height, width, memory))
        typer.echo(f"| {path.name} | {count} | {shown} | {costs[2] / costs[1] - 1:+.2%} |")


if __name__ == "__main__":
    run(main)
