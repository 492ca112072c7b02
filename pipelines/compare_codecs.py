"""Codecs side by side on the same images, from files: rate, PSNR, decoding time, BD-rate; plain and searched.

    python -m pipelines.compare_codecs KODAK -o OUT --codecs mean-scale-96,msp-fast,msp-base,msp-high
    python -m pipelines.compare_codecs KODAK -o OUT --codecs hyperprior=mean-scale-96:WEIGHTS,msp-high \\
        --profile fast --count 6 --crop 256

A codec is a name of ``lof codecs``, ``NAME:FOLDER`` for weights of one's own (as ``lof export-weights`` leaves
them), ``LABEL=NAME:FOLDER`` to call it something. The first is the anchor of all BD-rates. Decoding is timed on the
first image, whole, at the codec's default quality: the best of three. Every finished row goes to
``OUT/rows.jsonl``; the same command continues. Leaves ``codecs.md`` and ``codecs.png``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from lof.api import encode, optimize_batch
from lof.codecs import Codec, codec_spec, load_codec
from lof.containers import container, unpack
from lof.errors import UsageError
from lof.files.atomic import write_atomically
from lof.files.inputs import find
from lof.pictures.batches import Image, batches, spread
from lof.profiles import Profile, load_profile
from lof.report.records import Record
from lof.training.measure import measure
from pipelines import comparison
from pipelines.benchmark_report import PLAIN
from pipelines.command import Count, Crop, Folder, Results, Threads, qualities_of, run
from pipelines.methods import Journal

ROUNDS = 3


@dataclass(frozen=True)
class Entry:
    """A codec under a label, at all its rate points."""

    label: str
    points: tuple[Codec, ...]
    timed: Codec


def main(
    folder: Folder,
    out: Results,
    codecs: Annotated[str, typer.Option(help="By commas: NAME, NAME:FOLDER, LABEL=NAME:FOLDER.")],
    qualities: Annotated[str, typer.Option(help="Rate points, by commas.")] = "2,4,5,6",
    profile: Annotated[str, typer.Option(help="Search with it as well.")] = "",
    only_plain: Annotated[str, typer.Option(help="Labels, by commas, that are not searched.")] = "",
    count: Count = None,
    crop: Crop = None,
    threads: Threads = 1,
) -> None:
    """Measure and write table and plot."""
    torch.set_num_threads(threads)
    method = load_profile(profile) if profile else None
    entries = [_entry(text.strip(), qualities_of(qualities)) for text in codecs.split(",")]
    labels = [entry.label for entry in entries]
    if len(set(labels)) < len(labels):
        raise UsageError(
            f"--codecs: two of one label among {', '.join(labels)}; give labels, as b=NAME:FOLDER"
        )
    plain_alone = {name.strip() for name in only_plain.split(",") if name.strip()}
    if unknown := plain_alone - set(labels):
        raise UsageError(f"--only-plain: no codec has the label {', '.join(sorted(unknown))}")
    journal = Journal(out / "rows.jsonl")
    sources = spread(find([folder], exclude=out).sources, count)
    rows: list[Record] = []
    for images in batches(sources, crop, len(sources)):
        for entry in entries:
            for codec in entry.points:
                rows += _plain(journal, entry.label, codec, images)
                if method and entry.label not in plain_alone:
                    rows += _searched(journal, entry.label, codec, images, method)
    whole = next(batches(sources[:1], None, 1))[0]
    seconds = {entry.label: _timed(journal, entry, whole, threads) for entry in entries}
    compared = comparison.compare(rows, seconds)
    what = f"{len(sources)} whole images" if crop is None else f"{len(sources)} centre crops of {crop}×{crop}"
    text = f"{what}; {threads} CPU thread{'s' * (threads > 1)}.\n\n{comparison.table(compared)}"
    write_atomically(out / "codecs.md", text.encode())
    write_atomically(out / "codecs.png", comparison.plot(compared))
    print(text)


def _entry(text: str, qualities: list[float]) -> Entry:
    label, named, rest = text.rpartition("=")
    name, _, weights = rest.partition(":")
    folder = Path(weights) if weights else None
    points = tuple(load_codec(name, q, weights=folder, device="cpu") for q in qualities)
    default = codec_spec(name).default_quality
    timed = next((codec for codec in points if codec.quality == default), points[0])
    return Entry(label if named else name, points, timed)


def _plain(journal: Journal, label: str, codec: Codec, images: list[Image]) -> Iterator[Record]:
    for image in images:
        key = _key(codec, PLAIN, image)
        if key not in journal.rows:
            journal.append({"key": key, **asdict(measure(codec, [image.picture])[0])})
        yield _row(journal, key, label, codec, PLAIN, image)


def _searched(
    journal: Journal, label: str, codec: Codec, images: list[Image], profile: Profile
) -> Iterator[Record]:
    missing = [image for image in images if _key(codec, profile.digest, image) not in journal.rows]
    results = optimize_batch([i.picture for i in missing], codec, profile) if missing else []
    for image, result in zip(missing, results, strict=True):
        journal.append({"key": _key(codec, profile.digest, image), **asdict(result.optimised)})
    for image in images:
        yield _row(journal, _key(codec, profile.digest, image), label, codec, profile.name, image)


def _timed(journal: Journal, entry: Entry, image: Image, threads: int) -> float:
    key = f"decoding with {threads} threads: {_key(entry.timed, PLAIN, image)}"
    if key not in journal.rows:
        parsed = unpack(encode(image.picture, codec=entry.timed))
        sized = entry.timed.for_size(parsed.height, parsed.width)
        took = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            decoded = sized.decompress(parsed.strings, parsed.height, parsed.width).image
            container(parsed.container).to_pixels(decoded)
            took.append(time.perf_counter() - started)
        journal.append({"key": key, "seconds": min(took)})
    return float(journal.rows[key]["seconds"])


def _key(codec: Codec, method: str, image: Image) -> str:
    return f"{codec.name} {codec.quality:.10g} {codec.fingerprint.hex()[:16]} {method} {image.digest[:16]}"


def _row(journal: Journal, key: str, label: str, codec: Codec, method: str, image: Image) -> Record:
    about = {"codec": label, "method": method, "quality": codec.quality, "image": image.name}
    return {**journal.rows[key], **about}


if __name__ == "__main__":
    run(main)
