"""lof beside JPEG, WebP, AVIF, JPEG XL and published curves, on the same pictures, from real files.

    python -m pipelines.compare KODAK -o RUN
    python -m pipelines.compare PHOTOS -o RUN --profiles medium --qualities 2,4,6 --count 4

Whole pictures, unless ``--crop`` says otherwise. Every finished file is a line of ``RUN/files.jsonl``; the same command
continues. Leaves ``compare.md`` and ``compare.png``: BD-rates against the first format and, where the pictures are the
24 Kodak images, against a published curve; and how much larger lof's files are than each format's at equal PSNR, or at
equal MS-SSIM. JPEG XL needs ``pip install pillow-jxl-plugin``, jpegli ``pip install pyjpegli``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from lof.api import encode, optimize_batch
from lof.codecs import DEFAULT_CODEC, Codec, load_codec
from lof.files.atomic import write_atomically
from lof.files.inputs import find
from lof.metrics import bpp, ms_ssim, mse, psnr
from lof.pictures.batches import Image, batches, spread
from lof.pictures.formats import Format, decode
from lof.profiles import Profile
from lof.report.records import Record, distinct
from lof.results import Pixels
from lof.training.measure import decoded
from pipelines.benchmark_report import PLAIN
from pipelines.command import (
    CodecName,
    Count,
    Crop,
    Folder,
    Results,
    Threads,
    bar,
    profiles_of,
    qualities_of,
    run,
)
from pipelines.compare_report import plot, series_of, to_markdown
from pipelines.formats import QUALITIES, encoder, formats
from pipelines.methods import Journal

KODAK_IMAGES = 24


def main(
    folder: Folder,
    *,
    out: Results,
    codec: CodecName = DEFAULT_CODEC,
    qualities: Annotated[str, typer.Option(help="Rate points, by commas.")] = "1,2,3,4,5,6,7,8",
    profiles: Annotated[
        str, typer.Option(help="Search with them too, by commas; empty: plain encodings alone.")
    ] = "fast,medium",
    others: Annotated[
        str,
        typer.Option("--formats", help="By commas; also MOZJPEG, MOZJPEG-2, MOZJPEG-3 (its tables), JPEGLI."),
    ] = "JPEG,WEBP,AVIF,JXL",
    metric: Annotated[str, typer.Option(help="What is searched for and measured: mse or ms-ssim.")] = "mse",
    crop: Crop = None,
    count: Count = None,
    threads: Threads = 1,
) -> None:
    """Measure and write tables and chart."""
    torch.set_num_threads(threads)
    journal = Journal(out / "files.jsonl")
    sources = spread(find([folder], exclude=out).sources, count)
    codecs = [load_codec(codec, quality, device="cpu") for quality in qualities_of(qualities)]
    methods = profiles_of(profiles)
    beside = formats([name.strip() for name in others.split(",")])
    rows: list[Record] = []
    with bar() as progress:
        steps = len(codecs) * (1 + len(methods)) + sum(
            len(f.variants) * len(QUALITIES[f.pillow]) for f in beside
        )
        task = progress.add_task("", total=steps * len(sources))
        for (image,) in batches(sources, crop, 1):
            for row in _measured(journal, image, codecs, methods, beside, metric):
                rows.append(row)
                progress.update(
                    task, advance=1, description=f"{image.name} {row['series']} {row['quality']:g}"
                )
    ours = [_label(codecs[0], None), *(_label(codecs[0], method) for method in methods)]
    series = series_of(rows, ours)
    published = metric == "mse" and crop is None and _is_kodak(rows)
    encoders = ", ".join(f"{other.pillow} by {encoder(other)}" for other in beside)
    weights = f"{codec} with weights {codecs[0].fingerprint.hex()[:8]}"
    parts = "whole pictures" if crop is None else f"centre crops of {crop}×{crop}"
    about = f"{len(sources)} {parts} of {Path(folder).name}; {weights}; {encoders}."
    if metric != "mse":
        about += " PSNR stands for MS-SSIM here: -10·log10(1 - MS-SSIM)."
    text = to_markdown(series, about, published=published)
    write_atomically(out / "compare.md", text.encode())
    write_atomically(out / "compare.png", plot(series, published=published, metric=metric))
    print(text)


def _measured(
    journal: Journal,
    image: Image,
    codecs: Sequence[Codec],
    methods: Sequence[Profile],
    others: Sequence[Format],
    metric: str,
) -> Iterator[Record]:
    for other in others:
        for variant in other.variants:
            for quality in QUALITIES[other.pillow]:
                key = (
                    f"{_prefix(metric)}{encoder(other)} {other.name} {variant} {quality} {image.digest[:16]}"
                )
                if key not in journal.rows:
                    data = other.encode(image.picture.pixels, variant, quality)
                    _keep(journal, key, image, len(data), decode(data), metric)
                yield _row(journal, key, other.name, variant, quality, image)
    for codec in codecs:
        for method in [None, *methods]:
            name = PLAIN if method is None else method.digest
            weights = codec.fingerprint.hex()[:16]
            key = f"{_prefix(metric)}{codec.name} {codec.quality:.10g} {weights} {name} {image.digest[:16]}"
            if key not in journal.rows:
                if method is None:
                    data = encode(image.picture, codec=codec)
                    pixels = decoded(codec, data, *image.picture.pixels.shape[:2])
                    _keep(journal, key, image, len(data), pixels, metric)
                else:
                    result = optimize_batch([image.picture], codec, method, metric=metric)[0]
                    _keep(journal, key, image, len(result.data), result.pixels, metric, result.seconds)
            yield _row(journal, key, _label(codec, method), "", codec.quality, image)


def _prefix(metric: str) -> str:
    """Of keys; none for the MSE, so that older journals go on."""
    return "" if metric == "mse" else f"{metric} "


def _keep(
    journal: Journal,
    key: str,
    image: Image,
    size: int,
    pixels: Pixels,
    metric: str,
    seconds: float | None = None,
) -> None:
    original = image.picture.pixels
    if metric == "mse":
        score = psnr(mse(original, pixels))
    else:
        score = -10 * math.log10(max(1e-9, 1 - (ms_ssim(original, pixels) or 0)))
    found = {"bpp": bpp(size, *original.shape[:2]), "psnr": score}
    journal.append({"key": key, "size": size, **found, "seconds": seconds})


def _row(journal: Journal, key: str, series: str, variant: str, quality: float, image: Image) -> Record:
    about = {"series": series, "variant": variant, "quality": quality, "image": image.name}
    return {**journal.rows[key], **about}


def _label(codec: Codec, method: Profile | None) -> str:
    return f"lof, plain ({codec.name})" if method is None else f"lof, {method.name}"


def _is_kodak(rows: Sequence[Record]) -> bool:
    names = {Path(name).stem.lower() for name in distinct(rows, "image")}
    return names == {f"kodim{number:02d}" for number in range(1, KODAK_IMAGES + 1)}


if __name__ == "__main__":
    run(main)
