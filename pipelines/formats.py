"""Pictures as files of other formats: JPEG, WebP, AVIF, and JPEG XL where Pillow's plugin is installed.

Beside libjpeg-turbo's JPEG stands that of mozjpeg, with its flat tables and trellis: its best settings for the MSE.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from lof.results import Pixels

PLUGIN = "pillow_jxl"
ONE_THREAD: Mapping[str, Any] = {"AVIF": {"max_threads": 1}, "JXL": {"num_threads": 1}}


@dataclass(frozen=True)
class Format:
    """An image format.

    Attributes:
        name: for tables.
        pillow: Pillow's name of it.
        encoder: the encoder and its version.
        variants: settings by name, of which the best one counts, picture by picture.
        qualities: settings called ``quality``, by rising rate.
    """

    name: str
    pillow: str
    encoder: str
    variants: Mapping[str, Mapping[str, Any]]
    qualities: Sequence[int]
    options: Mapping[str, Any] = field(default_factory=dict)

    def encode(self, pixels: Pixels, variant: str, quality: int) -> bytes:
        """A file of pixels, (H, W, 3) uint8."""
        buffer = io.BytesIO()
        settings = {**self.options, **self.variants[variant], **ONE_THREAD.get(self.pillow, {})}
        Image.fromarray(pixels).save(buffer, self.pillow, quality=quality, **settings)
        return buffer.getvalue()


@dataclass(frozen=True)
class MozJpeg(Format):
    """mozjpeg 4.0.3, which Pillow does not have; its own choice of scans is made afterwards, as by ``jpegtran``."""

    def encode(self, pixels: Pixels, variant: str, quality: int) -> bytes:
        """See :meth:`Format.encode`."""
        import jpeglib
        import mozjpeg_lossless_optimization as mozjpeg

        image = jpeglib.from_spatial(np.ascontiguousarray(pixels))
        image.samp_factor = variant
        before = jpeglib.version.get()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "one.jpg"
            try:
                jpeglib.version.set("mozjpeg403")
                image.write_spatial(str(path), qt=quality, base_quant_tbl_idx=1)
            finally:
                jpeglib.version.set(before)
            data: bytes = mozjpeg.optimize(path.read_bytes(), copy=mozjpeg.COPY_MARKERS.NONE)
        return data


def decode(data: bytes) -> Pixels:
    """(H, W, 3) uint8."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def formats(names: Sequence[str]) -> list[Format]:
    """Those formats of ``names`` that Pillow can write, by its names; JXL needs ``pip install pillow-jxl-plugin``."""
    colours = {f"4:{two}": {"subsampling": f"4:{two}"} for two in ("2:0", "4:4")}
    found = [
        Format(
            "JPEG, progressive",
            "JPEG",
            f"Pillow {version('pillow')}",
            colours,
            (5, 10, 20, 30, 40, 50, 60, 70, 80, 87, 92, 95),
            {"progressive": True, "optimize": True},
        ),
        MozJpeg(
            "mozjpeg, flat tables",
            "MOZJPEG",
            "mozjpeg 4.0.3",
            colours,
            (15, 30, 45, 60, 72, 82, 89, 93, 96, 98),
        ),
        Format(
            "WebP, method 6",
            "WEBP",
            f"libwebp {features.version('webp')}",
            {"4:2:0": {}},
            (1, 5, 15, 30, 45, 60, 72, 82, 89, 94, 98),
            {"method": 6},
        ),
        Format(
            "AVIF, speed 4",
            "AVIF",
            f"libavif {features.version('avif')}",
            colours,
            (10, 25, 40, 54, 66, 76, 85),
            {"speed": 4},
        ),
    ]
    if find_spec(PLUGIN):
        # The plugin logs every file unless told otherwise before it is imported.
        os.environ.setdefault("RUST_LOG", "error")
        import_module(PLUGIN)
        encoder = f"pillow-jxl-plugin {version('pillow-jxl-plugin')}"
        jxl = {"effort": {"effort": 7}}
        found.append(
            Format("JPEG XL, effort 7", "JXL", encoder, jxl, (2, 6, 12, 22, 35, 50, 64, 75, 83, 89, 94))
        )
    return [one for one in found if one.pillow in names]
