"""SSIMULACRA2 as `lof compare` shows it, against libjxl's own program.

    python -m pipelines.ssimulacra2 KODAK --tool /usr/bin/ssimulacra2 --count 4 --crop 256

The program comes with libjxl from 0.8 on (in Debian: libjxl-devtools). Each picture is compared with JPEGs of it at
several qualities, as PNG files, by both.
"""

from __future__ import annotations

import io
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from lof.errors import UsageError
from lof.files.inputs import find
from lof.metrics import ssimulacra2
from lof.pictures.batches import centre_crop, spread
from lof.pictures.reading import read_picture
from lof.results import Pixels
from pipelines.command import Count, Folder, run

QUALITIES = (10, 30, 60, 90)


def main(
    folder: Folder,
    *,
    tool: Annotated[Path, typer.Option(help="libjxl's program ssimulacra2.")],
    count: Count = None,
    crop: Annotated[int | None, typer.Option(min=8, help="Side of their centre; all of them.")] = None,
) -> None:
    """Print a row for each pair, and the largest difference."""
    typer.echo("| picture | JPEG quality | lof | libjxl | difference |\n" + 5 * "| --- " + "|")
    apart = []
    for source in spread(find([folder]).sources, count):
        pixels = centre_crop(read_picture(source.path), crop).pixels
        for quality in QUALITIES:
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=quality)
            decoded = np.array(Image.open(file))
            ours, theirs = ssimulacra2(pixels, decoded), _by(tool, pixels, decoded)
            assert ours is not None
            apart.append(abs(ours - theirs))
            cells = (source.relative, quality, f"{ours:.3f}", f"{theirs:.3f}", f"{ours - theirs:+.3f}")
            typer.echo(f"| {' | '.join(map(str, cells))} |")
    typer.echo(f"\n{len(apart)} pairs, at most {max(apart):.4f} apart")


def _by(tool: Path, original: Pixels, decoded: Pixels) -> float:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("original.png", "decoded.png")]
        for path, pixels in zip(paths, (original, decoded), strict=True):
            Image.fromarray(pixels).save(path)
        try:
            done = subprocess.run([tool, *paths], check=True, capture_output=True, text=True)
            return float(done.stdout.split()[0])
        except (OSError, subprocess.CalledProcessError, ValueError, IndexError) as error:
            raise UsageError(
                f"--tool {tool}: does not do what libjxl's ssimulacra2 does ({error})"
            ) from error


if __name__ == "__main__":
    run(main)
