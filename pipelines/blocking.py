"""Whether borders of blocks show in what a codec decodes.

    python -m pipelines.blocking KODAK --qualities 1,2 --count 6

The mean step between neighbouring grey values at every 16th border of pixels, and at the 8th between these, as a share
of the mean step everywhere else. Originals are not quite at 1 either: the codec should be where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np
import torch
import typer

import lof
from lof.codecs import DEFAULT_CODEC
from lof.files.inputs import find
from lof.pictures.batches import spread
from lof.pictures.reading import read_picture
from lof.results import Pixels
from pipelines.command import CodecName, Folder, Threads, qualities_of, run

BLOCK: Final = 16


def borders(pictures: Sequence[Pixels]) -> tuple[float, float]:
    """The shares at whole and at half blocks, of (H, W, 3) uint8 pictures of at least 17 pixels in both directions."""
    steps = []
    for picture in pictures:
        grey = picture.astype(float).mean(2)
        for plane in (grey, grey.T):
            step = np.abs(np.diff(plane, axis=1))
            place = (1 + np.arange(step.shape[1])) % BLOCK
            whole, half = place == 0, place == BLOCK // 2
            steps.append([step[:, each].mean() for each in (whole, half, ~whole & ~half)])
    at_whole, at_half, elsewhere = np.mean(steps, 0)
    return float(at_whole / elsewhere), float(at_half / elsewhere)


def main(
    folder: Folder,
    *,
    codec: CodecName = DEFAULT_CODEC,
    qualities: Annotated[str, typer.Option(help="By commas.")] = "1,2",
    count: Annotated[int, typer.Option(min=1, help="Images, evenly over the folder.")] = 6,
    threads: Threads = 1,
) -> None:
    """Print a row for the originals and for each quality, of plain encodings."""
    torch.set_num_threads(threads)
    originals = [read_picture(source.path).pixels for source in spread(find([folder]).sources, count)]
    typer.echo("| | 16-pixel borders | 8-pixel borders |\n| --- | ---: | ---: |")
    typer.echo("| originals | {:.3f} | {:.3f} |".format(*borders(originals)))
    for quality in qualities_of(qualities):
        decoded = [lof.decode(lof.encode(one, codec=codec, quality=quality)).pixels for one in originals]
        typer.echo(f"| quality {quality:g} | " + "{:.3f} | {:.3f} |".format(*borders(decoded)))


if __name__ == "__main__":
    run(main)
