"""Whether JPEGs of lof stay better where another decoder shows them.

    python -m pipelines.decoders KODAK --count 6 --crop 256

Decoders: libjpeg-turbo (Pillow's, whose pixels lof reports), libjpeg 6b and 9e (package jpeglib; from 7 on it enlarges
colour in another way), jpegli where the package pyjpegli is installed, and djpeg, ImageMagick and Chromium where there
are any. For each: the share of samples that differ from libjpeg-turbo's, what that does to the PSNR of lof's files, and
their BD-rate against libjpeg-turbo's own files (progressive, 4:2:0), both read by that decoder.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Annotated

import jpeglib
import numpy as np
import torch
import typer
from PIL import Image

from lof.api import optimize
from lof.codecs import load_codec
from lof.files.inputs import find
from lof.metrics import bpp, mse, psnr
from lof.pictures.batches import centre_crop, spread
from lof.pictures.formats import FORMATS, decode
from lof.pictures.reading import read_picture
from lof.report.figures import percent
from lof.report.rate_distortion import bjontegaard_deltas
from lof.results import Pixels
from pipelines.command import Count, Crop, Folder, ProfileName, qualities_of, run

Decoder = Callable[[Sequence[bytes]], list[Pixels]]


def main(
    folder: Folder,
    *,
    qualities: Annotated[str, typer.Option(help="Of both encoders, by commas.")] = "35,60,80,92",
    profile: ProfileName = "fast",
    count: Count = None,
    crop: Crop = None,
) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    originals = [
        centre_crop(read_picture(one.path), crop).pixels for one in spread(find([folder]).sources, count)
    ]
    ours, theirs = list[list[bytes]](), list[list[bytes]]()  # by quality
    for quality in qualities_of(qualities):
        codec = load_codec("jpeg", quality, device="cpu")
        ours.append([optimize(pixels, codec=codec, profile=profile).data for pixels in originals])
        theirs.append([FORMATS["jpeg"].encode(pixels, "4:2:0", int(quality)) for pixels in originals])
    reference = [pixels for files in ours for pixels in _turbo(files)]
    print(
        "| decoder | samples that differ | PSNR of lof's files | BD-rate of lof |\n| --- | ---: | ---: | ---: |"
    )
    for name, decoder in _decoders().items():
        shown = [pixels for files in ours for pixels in decoder(files)]
        differ = fmean(float((a != b).mean()) for a, b in zip(shown, reference, strict=True))
        mine, others = (
            [
                (
                    fmean(bpp(len(file), *o.shape[:2]) for file, o in zip(files, originals, strict=True)),
                    fmean(psnr(mse(o, p)) for o, p in zip(originals, decoder(files), strict=True)),
                )
                for files in by_quality
            ]
            for by_quality in (ours, theirs)
        )
        moved = fmean(
            psnr(mse(o, a)) - psnr(mse(o, b))
            for o, a, b in zip(originals * len(ours), shown, reference, strict=True)
        )
        deltas = bjontegaard_deltas(others, mine)
        assert deltas is not None
        print(f"| {name} | {100 * differ:.1f} % | {moved:+.3f} dB | {percent(deltas[0])} |", flush=True)


def _decoders() -> dict[str, Decoder]:
    found: dict[str, Decoder] = {
        "libjpeg-turbo": _turbo,
        "libjpeg 6b": _libjpeg("6b"),
        "libjpeg 9e": _libjpeg("9e"),
    }
    if find_spec("pyjpegli"):
        found["jpegli"] = _jpegli
    if program := shutil.which("djpeg"):
        found["djpeg"] = _program(program, "-pnm")
    if program := shutil.which("magick") or shutil.which("convert-im6.q16"):
        found["ImageMagick"] = _program(program, "jpeg:-", "-depth", "8", "ppm:-")
    if browser := shutil.which("chromium"):
        found["Chromium, headless"] = _chromium(browser)
    return found


def _turbo(files: Sequence[bytes]) -> list[Pixels]:
    return [decode(data) for data in files]


def _libjpeg(version: str) -> Decoder:
    def decoder(files: Sequence[bytes]) -> list[Pixels]:
        before = jpeglib.version.get()
        jpeglib.version.set(version)
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "one.jpg"
                return [jpeglib.read_spatial(str(path)).spatial for data in files if path.write_bytes(data)]
        finally:
            jpeglib.version.set(before)

    return decoder


def _jpegli(files: Sequence[bytes]) -> list[Pixels]:
    import pyjpegli

    decoded = [pyjpegli.decode(data) for data in files]
    return [np.frombuffer(rgb, np.uint8).reshape(height, width, 3) for rgb, width, height in decoded]


def _program(*command: str) -> Decoder:
    """One that takes a JPEG on stdin and writes a PPM to stdout."""
    return lambda files: [
        decode(subprocess.run(command, input=data, check=True, capture_output=True).stdout) for data in files
    ]


def _chromium(browser: str) -> Decoder:
    """All files on one page, and a picture of that page."""

    def decoder(files: Sequence[bytes]) -> list[Pixels]:
        sizes = [Image.open(io.BytesIO(data)).size for data in files]
        with tempfile.TemporaryDirectory() as folder:
            for index, data in enumerate(files):
                (Path(folder) / f"{index}.jpg").write_bytes(data)
            images = "".join(f'<img src="{index}.jpg" style="display:block">' for index in range(len(files)))
            page, shot = Path(folder) / "page.html", Path(folder) / "page.png"
            page.write_text(f"<style>body {{ margin: 0 }}</style>{images}")
            window = f"{max(width for width, _ in sizes) + 200},{sum(height for _, height in sizes) + 200}"
            options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            options += ["--force-color-profile=srgb", "--force-device-scale-factor=1"]
            subprocess.run(
                [browser, *options, f"--window-size={window}", f"--screenshot={shot}", page.as_uri()],
                check=True,
                capture_output=True,
            )
            drawn = decode(shot.read_bytes())
        tops = np.cumsum([0, *(height for _, height in sizes)])
        return [drawn[top : top + h, :w] for top, (w, h) in zip(tops, sizes, strict=False)]

    return decoder


if __name__ == "__main__":
    run(main)
