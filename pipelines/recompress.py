"""JPEGs made smaller from their own coefficients, against the same search and libjpeg-turbo on their pixels alone.

    python -m pipelines.recompress KODAK --count 6 --crop 256

Each picture is first saved as a JPEG (4:2:0) of each source quality, by Pillow. PSNR is measured against that JPEG, as
lof does it, and against the picture that it was made from. Prints how many bytes a start from the JPEG's own
coefficients saves at equal PSNR, by the quality that it is searched with; geometric means over pictures.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import torch
import typer
from PIL import Image

from lof.api import optimize
from lof.codecs import load_codec
from lof.files.inputs import find
from lof.metrics import mse, psnr
from lof.pictures.batches import centre_crop, spread
from lof.pictures.picture import Picture
from lof.pictures.reading import picture_of, read_picture
from lof.report.figures import ABSENT, percent
from lof.report.records import Record
from pipelines.command import Count, Crop, ProfileName, qualities_of, run
from pipelines.compare_report import bytes_at_equal_psnr, series_of

OWN, ANEW, PLAIN = "from its coefficients", "from its pixels", "libjpeg-turbo, progressive"


def main(
    folder: Annotated[str, typer.Argument(help="Folder of pictures that are no JPEGs.")],
    *,
    sources: Annotated[str, typer.Option(help="Qualities of the JPEGs, by commas.")] = "90,95",
    qualities: Annotated[str, typer.Option(help="Of the codec jpeg, by commas.")] = "60,75,85,92,97,100",
    profile: ProfileName = "fast",
    count: Count = None,
    crop: Crop = None,
) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    chosen = spread(find([folder]).sources, count)
    print(f"| JPEGs of quality | PSNR against | quality | against {ANEW} | against {PLAIN} |")
    print("| --- | --- | --- | ---: | ---: |")
    for source in map(int, qualities_of(sources)):
        rows: list[Record] = []
        for one in chosen:
            picture = centre_crop(read_picture(one.path), crop)
            rows += _measured(picture, str(one.relative), source, qualities_of(qualities), profile)
        for original in ("the JPEG", "its original"):
            own, *others = series_of([row for row in rows if row["original"] == original], [])
            found = [bytes_at_equal_psnr(own, other) for other in others]
            for quality in own.qualities:
                changes = [percent(each[quality]) if quality in each else ABSENT for each in found]
                print(f"| {source} | {original} | {quality:g} | {' | '.join(changes)} |", flush=True)


def _measured(
    first: Picture, name: str, source: int, qualities: list[float], profile: str
) -> Iterator[Record]:
    file = io.BytesIO()
    Image.fromarray(first.pixels).save(file, "JPEG", quality=source)
    jpeg = picture_of(Image.open(file))
    results = []
    for quality in qualities:
        codec = load_codec("jpeg", quality, device="cpu")
        own = optimize(jpeg, codec=codec, profile=profile)
        anew = optimize(replace(jpeg, source=None), codec=codec, profile=profile)
        results += [
            (OWN, quality, own.optimised, own.pixels),
            (ANEW, quality, anew.optimised, anew.pixels),
            (PLAIN, quality, anew.baseline, anew.baseline_pixels),
        ]
    for series in (OWN, ANEW, PLAIN):
        for label, quality, measured, pixels in results:
            if label == series:
                about = {
                    "series": series,
                    "variant": "",
                    "quality": quality,
                    "image": name,
                    "bpp": measured.bpp,
                }
                yield about | {"original": "the JPEG", "psnr": measured.psnr}
                yield about | {"original": "its original", "psnr": psnr(mse(first.pixels, pixels))}


if __name__ == "__main__":
    run(main)
