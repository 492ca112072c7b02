"""What a search brings where a part of the picture counts more, and for MS-SSIM instead of the squared error.

    python -m pipelines.objectives KODAK -o RUN --profile medium
    python -m pipelines.objectives KODAK -o RUN --profile fast --count 6 --crop 256 --aimed-quality 5

For each picture a search for the squared error. Then a search in which the middle quarter counts 8, for a file of the
same size: by how many dB that quarter is better. And a search for MS-SSIM, for a file of the same MS-SSIM: how many
bytes that takes. Each row goes to ``RUN/results.jsonl``; the same command continues, and leaves ``objectives.md``.
"""

from __future__ import annotations

from statistics import fmean
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

import lof
from lof import Target
from lof.codecs import DEFAULT_CODEC, load_codec
from lof.files.atomic import write_atomically
from lof.files.inputs import find
from lof.metrics import mse, psnr
from lof.pictures.batches import batches, spread
from lof.profiles import load_profile
from lof.results import Pixels
from pipelines.command import CodecName, Count, Folder, ProfileName, Results, Threads, run
from pipelines.methods import Journal

WEIGHT = 8
HEAD = (
    "| picture | searched for MSE | inside, at that size | outside | bytes for that MS-SSIM |\n"
    "| --- | --- | --- | --- | --- |\n"
)


def main(
    folder: Folder,
    *,
    out: Results,
    codec: CodecName = DEFAULT_CODEC,
    quality: Annotated[float | None, typer.Option(help="Of the search for the squared error.")] = None,
    aimed_quality: Annotated[
        float | None, typer.Option(help="Of the search with a region; any that suits the size.")
    ] = None,
    profile: ProfileName = "medium",
    count: Count = None,
    crop: Annotated[
        int | None, typer.Option(min=161, help="Side of centre crops, in pixels; else whole pictures.")
    ] = None,
    threads: Threads = 1,
) -> None:
    """Measure what the journal lacks, and write the table."""
    torch.set_num_threads(threads)
    journal, plan = Journal(out / "results.jsonl"), load_profile(profile)
    loaded, rows = load_codec(codec, quality), []
    for (image,) in batches(spread(find([folder], exclude=out).sources, count), crop, 1):
        key = f"{codec} {loaded.quality} {loaded.fingerprint.hex()[:8]} {plan.digest} {image.digest[:16]}"
        key += "" if aimed_quality is None else f" {aimed_quality}"
        if key not in journal.rows:
            pixels = image.picture.pixels
            options: dict[str, Any] = {"codec": codec, "profile": plan}
            free = lof.optimize(pixels, codec=loaded, profile=plan)
            aimed = lof.optimize(
                pixels,
                quality=aimed_quality,
                region=_region(pixels),
                target=Target(size=free.optimised.size),
                **options,
            )
            assert free.optimised.ms_ssim is not None
            target = Target(ms_ssim=free.optimised.ms_ssim)
            similar = lof.optimize(pixels, metric="ms-ssim", target=target, **options)
            row = {
                "free": free.record()["optimised"],
                "aimed": aimed.optimised.size,
                "similar": similar.optimised.size,
            }
            for place in ("inside", "outside"):
                row[place] = [_psnr(pixels, one.pixels, place == "inside") for one in (free, aimed)]
            journal.append({"key": key, "image": image.name} | row)
            typer.echo(image.name, err=True)
        rows.append(journal.rows[key])
    text = _table(rows)
    write_atomically(out / "objectives.md", text.encode())
    print(text)


def _region(pixels: Pixels) -> NDArray[np.float32]:
    """(H, W): the middle quarter counts :data:`WEIGHT`, the rest 1."""
    height, width = pixels.shape[:2]
    region = np.ones((height, width), np.float32)
    region[height // 4 : height // 4 + height // 2, width // 4 : width // 4 + width // 2] = WEIGHT
    return region


def _psnr(pixels: Pixels, decoded: Pixels, inside: bool) -> float:
    part = (_region(pixels) > 1) == inside
    return psnr(mse(pixels[part][None], decoded[part][None]))


def _table(rows: list[dict[str, Any]]) -> str:
    text = HEAD
    for row in rows:
        free = row["free"]
        gains = [row[place][1] - row[place][0] for place in ("inside", "outside")]
        text += (
            f"| {row['image']} | {free['size']} B, {free['psnr']:.2f} dB, {free['ms_ssim']:.4f} | {gains[0]:+.2f} dB "
            f"| {gains[1]:+.2f} dB | {row['similar'] / free['size'] - 1:+.1%} |\n"
        )
    inside, outside = (
        fmean(row[place][1] - row[place][0] for row in rows) for place in ("inside", "outside")
    )
    similar = fmean(row["similar"] / row["free"]["size"] - 1 for row in rows)
    return f"{text}| mean | | {inside:+.2f} dB | {outside:+.2f} dB | {similar:+.1%} |\n"


if __name__ == "__main__":
    run(main)
