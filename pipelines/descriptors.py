"""What the filter of a JPEG with descriptors gains, what descriptors add to it, and what a search of both makes of it.

    python -m pipelines.descriptors PHOTOS -o RUN
    python -m pipelines.descriptors KODAK -o RUN --qualities 10,20,30,40 --profile medium --count 6

For each picture and quality of libjpeg: its JPEG, progressive with Huffman tables of its own, as every program shows
it, and with libjpeg's default settings; as the filter shows it; the same with the best descriptors for that JPEG; and
the file of a search of coefficients and descriptors together, as the filter and as every program shows it. Sizes are
lengths of files, PSNR is that of 8-bit RGB. Time is that of decoding, the filter included. Each row goes to
``RUN/results.jsonl``; the same command continues, and leaves ``descriptors.md``.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Annotated

import torch
import typer
from PIL import Image as PILImage

import lof
from lof.codecs import Codec, load_codec
from lof.codecs.base import tensor_of
from lof.codecs.jpeg.descriptors.search import steer
from lof.encoding import Writer
from lof.files.atomic import write_atomically
from lof.files.inputs import find
from lof.measure import TrueCost
from lof.metrics import bpp, mse, psnr
from lof.pictures.batches import Image, batches, spread
from lof.pictures.formats import decode as shown_by_pillow
from lof.profiles import Profile, load_profile
from lof.report.figures import ABSENT, percent
from lof.report.rate_distortion import bjontegaard_deltas
from lof.report.records import Record
from lof.results import Pixels
from lof.search.objective import Objective
from lof.search.state import Search
from pipelines.command import Count, Crop, Folder, Results, Threads, bar, qualities_of, run
from pipelines.compare_report import bytes_at_equal_psnr, series_of
from pipelines.methods import Journal

JPEG, FILTERED, DESCRIBED, SEARCHED = "libjpeg's JPEG", "filtered", "with descriptors", "search of both"
SHOWN = f"{SEARCHED}, not filtered"
DEFAULT = "libjpeg's default JPEG"
KINDS = (JPEG, DEFAULT, FILTERED, DESCRIBED, SEARCHED, SHOWN)
PASSES = 1
"""Over all places, in the search of descriptors alone."""
STEEPER = 0.92
"""λ of libjpeg's own curve over the codec's, which is that of searched files."""


def main(
    folder: Folder,
    *,
    out: Results,
    codec: Annotated[str, typer.Option(help="One with descriptors.")] = "jpeg-descriptors",
    qualities: Annotated[str, typer.Option(help="Of libjpeg, by commas.")] = "10,20,30,40",
    profile: Annotated[str, typer.Option(help="Of the search; name or TOML file.")] = "fast",
    count: Count = None,
    crop: Crop = None,
    threads: Threads = 1,
) -> None:
    """Measure what the journal lacks, and write the tables."""
    torch.set_num_threads(threads)
    journal, plan = Journal(out / "results.jsonl"), load_profile(profile)
    sources = spread(find([folder], exclude=out).sources, count)
    codecs = [load_codec(codec, quality, device="cpu") for quality in qualities_of(qualities)]
    rows: list[Record] = []
    with bar() as progress:
        task = progress.add_task("", total=len(sources) * len(codecs))
        for (image,) in batches(sources, crop, 1):
            for one in codecs:
                key = f"{image.digest[:16]} {one.quality:g} {one.fingerprint.hex()[:16]} {plan.digest}"
                if f"{key} {JPEG}" not in journal.rows:
                    for kind, row in _measured(image, one, plan):
                        about = {"series": kind, "variant": "", "quality": one.quality, "image": image.name}
                        journal.append({"key": f"{key} {kind}"} | about | row)
                rows += [journal.rows[f"{key} {kind}"] for kind in KINDS]
                progress.update(task, advance=1, description=f"{image.name} {one.quality:g}")
    text = to_markdown(rows, plan.name)
    write_atomically(out / "descriptors.md", text.encode())
    print(text)


def _measured(image: Image, codec: Codec, profile: Profile) -> Iterator[tuple[str, Record]]:
    """Rows by kind, the JPEG's last: a picture that was stopped halfway is measured again."""
    plain = lof.encode(image.picture, codec=codec)
    searched = lof.optimize(image.picture, codec=codec, profile=profile).data
    described = _described(image, codec)
    for kind, data in ((FILTERED, plain), (DESCRIBED, described), (SEARCHED, searched)):
        started = time.perf_counter()
        pixels = lof.decode(data).pixels
        yield kind, _row(image, data, pixels) | {"seconds": time.perf_counter() - started}
    jpeg = lof.encode(image.picture, codec="jpeg", quality=codec.quality)  # without what lof adds
    default = io.BytesIO()
    PILImage.fromarray(image.picture.pixels).save(default, "JPEG", quality=round(codec.quality))
    for kind, data in ((SHOWN, searched), (DEFAULT, default.getvalue()), (JPEG, jpeg)):
        yield kind, _row(image, data, shown_by_pillow(data))


def _described(image: Image, codec: Codec) -> bytes:
    """libjpeg's JPEG with the best descriptors for it."""
    codec = codec.for_size(*image.picture.pixels.shape[:2])
    objective = Objective(codec, tensor_of(image.picture), STEEPER * codec.lmbda)
    state = Search(objective, codec.begin(image.picture).plain, 0, [0], None)
    steer(state, PASSES)
    writer = Writer(codec, image.picture, "jpeg", TrueCost(image.picture.pixels, objective.lmbda))
    return writer.pack(codec.symbols(state.best))


def _row(image: Image, data: bytes, pixels: Pixels) -> Record:
    original = image.picture.pixels
    size = len(data)
    return {"size": size, "bpp": bpp(size, *original.shape[:2]), "psnr": psnr(mse(original, pixels))}


def to_markdown(rows: Sequence[Record], profile: str) -> str:
    """By quality what each step gains; then the curves against each other.

    Args:
        rows: of all kinds, for the same pictures and qualities.
        profile: what the search is called.
    """
    lines = [
        f"Search: {profile}. PSNR in dB, means over pictures; bytes are those that descriptors add.",
        "",
        "| quality | bits per pixel | JPEG | filtered | with descriptors | their bytes |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for quality in sorted({row["quality"] for row in rows}):
        jpeg, alone, both = (_of(rows, kind, quality) for kind in (JPEG, FILTERED, DESCRIBED))
        shown, better, best = (fmean(row["psnr"] for row in own) for own in (jpeg, alone, both))
        share = sum(row["size"] for row in both) / sum(row["size"] for row in alone) - 1
        rate = fmean(row["bpp"] for row in jpeg)
        cells = [f"{quality:g}", f"{rate:.3f}", f"{shown:.2f}"]
        cells += [
            f"{better:.2f} ({better - shown:+.2f})",
            f"{best:.2f} ({best - better:+.2f})",
            percent(share),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    series = {one.name: one for one in series_of(rows, KINDS)}
    pairs = [(kind, JPEG) for kind in KINDS[2:]]
    pairs += [(DESCRIBED, FILTERED), (SEARCHED, DESCRIBED), (SEARCHED, DEFAULT), (SHOWN, DEFAULT)]
    lines += [
        "",
        "| | against | BD-rate of mean curves | bytes at equal PSNR |",
        "| --- | --- | ---: | ---: |",
    ]
    for name, other in pairs:
        found = bjontegaard_deltas(series[other].mean, series[name].mean)
        ratio = bytes_at_equal_psnr(series[name], series[other]).get(None)
        figures = [ABSENT if share is None else percent(share) for share in (found and found[0], ratio)]
        lines.append(f"| {name} | {other} | {' | '.join(figures)} |")
    timed = [
        row["seconds"] / (8 * row["size"] / row["bpp"] / 1e6) for row in rows if row["series"] == FILTERED
    ]
    lines += ["", f"Decoding and filtering takes {fmean(timed):.2f} s for a megapixel."]
    return "\n".join(lines) + "\n"


def _of(rows: Sequence[Record], kind: str, quality: float) -> list[Record]:
    return [row for row in rows if (row["series"], row["quality"]) == (kind, quality)]


if __name__ == "__main__":
    run(main)
