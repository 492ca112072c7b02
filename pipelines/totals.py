"""One size for all pictures: how many bytes it saves against the same bits per pixel for each.

    python -m pipelines.totals CID22 -o RUN
    python -m pipelines.totals CID22 -o RUN --codec jpeg --crop 256

Plain encodings of each picture at eight qualities give its size and its error for every λ between them. At several
rates: what all pictures have at so many bits per pixel each, and how few bytes together reach the same with shares of a
total (one λ for all, as ``lof optimize --total`` does it). The same can mean two things: the squared error of all
pixels, or the mean of the pictures' PSNRs. Last, the least bytes at which any shares reach that mean of PSNRs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from lof.codecs import DEFAULT_CODEC, Codec, codec_spec, load_codec
from lof.containers import container_for
from lof.encoding import Writer
from lof.files.inputs import find
from lof.measure import TrueCost
from lof.metrics import mse
from lof.pictures.batches import batches, spread
from lof.pictures.picture import Picture
from lof.targets import Ladder
from lof.targets.total import MOST
from pipelines.command import CodecName, Count, Crop, Folder, Results, Threads, run
from pipelines.methods import Journal

RATES = (0.3, 0.5, 0.8)
FINE = 400
"""Values of λ between the first and the last."""
Logs = NDArray[np.float64]


def main(
    folder: Folder,
    *,
    out: Results,
    codec: CodecName = DEFAULT_CODEC,
    count: Count = None,
    crop: Crop = None,
    threads: Threads = 1,
) -> None:
    """Measure what the journal lacks, and print the table."""
    torch.set_num_threads(threads)
    journal, spec = Journal(out / "results.jsonl"), codec_spec(codec)
    ladder = Ladder.of(spec, "mse", lambda quality: load_codec(codec, quality, device="cpu"))
    places = sorted({round(place) for place in np.linspace(0, len(ladder.lmbdas) - 1, MOST)})
    qualities = [list(ladder.lmbdas)[place] for place in places]
    curves = []
    for (image,) in batches(spread(find([folder], exclude=out).sources, count), crop, 1):
        points = []
        for quality in qualities:
            loaded = ladder.load(quality)
            key = f"{codec} {quality} {loaded.fingerprint.hex()[:8]} {image.digest[:16]}"
            if key not in journal.rows:
                journal.append({"key": key} | _measured(loaded, image.picture))
            points.append(journal.rows[key])
        typer.echo(image.name, err=True)
        curves.append(points)
    print(table([ladder.lmbdas[quality] for quality in qualities], curves))


def _measured(codec: Codec, picture: Picture) -> dict[str, Any]:
    height, width = picture.pixels.shape[:2]
    codec = codec.for_size(height, width)
    writer = Writer(codec, picture, container_for(codec.name), TrueCost(picture.pixels, codec.lmbda))
    data = writer.pack(codec.symbols(codec.begin(picture).plain))
    return {"size": len(data), "mse": mse(picture.pixels, writer.read(data)), "pixels": height * width}


def table(lmbdas: list[float], curves: list[list[dict[str, Any]]]) -> str:
    """What shares of a total save, as Markdown.

    Args:
        lmbdas: of the qualities, rising.
        curves: of each picture ``size``, ``mse`` and ``pixels`` at each quality.
    """
    fine = np.linspace(np.log(lmbdas[0]), np.log(lmbdas[-1]), FINE)
    # Between qualities, log bytes and log error are straight lines in log λ; one row for each picture.
    sizes, errors = (
        np.array([np.interp(fine, np.log(lmbdas), _logs(points, what)) for points in curves])
        for what in ("size", "mse")
    )
    pixels = np.array([points[0]["pixels"] for points in curves], float)
    text = (
        "| bits per pixel | for the same error of all pixels | for the same mean of PSNRs | the least for that |\n"
        "| --- | --- | --- | --- |\n"
    )
    for rate in RATES:
        own = np.log(rate * pixels / 8)
        inside = (sizes[:, 0] <= own) & (own <= sizes[:, -1])
        if inside.sum() < 2:
            continue
        s, e, p = sizes[inside], errors[inside], pixels[inside]
        even = np.array([np.interp(o, a, b) for o, a, b in zip(own[inside], s, e, strict=True)])
        before = rate * p.sum() / 8
        same_error = _bytes_at(s, -(p[:, None] * np.exp(e)).sum(0), -float((p * np.exp(even)).sum()))
        same_psnr = _bytes_at(s, -e.mean(0), -float(even.mean()))
        cells = [
            f"{found / before - 1:+.1%}"
            for found in (same_error, same_psnr, _least(s, e, float(even.mean())))
        ]
        text += f"| {rate} ({inside.sum()} of {len(curves)} pictures) | {' | '.join(cells)} |\n"
    return text


def _logs(points: list[dict[str, Any]], what: str) -> Logs:
    values = np.log([max(point[what], 1e-3) for point in points])
    return np.maximum.accumulate(values) if what == "size" else np.minimum.accumulate(values)


def _bytes_at(sizes: Logs, qualities: Logs, wanted: float) -> float:
    """Bytes of all pictures at the one λ that gives a quality, which rises with λ."""
    place = float(np.interp(wanted, qualities, np.arange(FINE)))
    return float(np.interp(place, np.arange(FINE), np.exp(sizes).sum(0)))


def _least(sizes: Logs, errors: Logs, wanted: float) -> float:
    """The least bytes at which the mean of log errors is as wanted: each picture where a byte gains most of that."""
    rows, found = np.arange(len(sizes)), []
    for price in np.exp(np.linspace(np.log(1.0), np.log(1e8), 2000)):  # bytes for an error e times smaller
        places = (np.exp(sizes) + price * errors).argmin(1)
        found.append((-errors[rows, places].mean(), np.exp(sizes[rows, places]).sum()))
    qualities, totals = np.array(found).T
    return float(np.interp(-wanted, qualities, totals))


if __name__ == "__main__":
    run(main)
