"""Other formats that lof's files are measured beside: those of :mod:`lof.pictures.formats`, and mozjpeg's JPEG.

mozjpeg stands beside libjpeg-turbo with its flat tables and trellis: its best settings for the MSE.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
from PIL import features

from lof.pictures.formats import COLOURS, FORMATS, Format, require_formats
from lof.results import Pixels


@dataclass(frozen=True)
class MozJpeg(Format):
    """mozjpeg 4.0.3, which Pillow does not have; its own choice of scans is made afterwards, as by ``jpegtran``.

    Attributes:
        table: the number that mozjpeg gives to its tables.
    """

    table: int = 1

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
                image.write_spatial(str(path), qt=quality, base_quant_tbl_idx=self.table)
            finally:
                jpeglib.version.set(before)
            data: bytes = mozjpeg.optimize(path.read_bytes(), copy=mozjpeg.COPY_MARKERS.NONE)
        return data


@dataclass(frozen=True)
class Jpegli(Format):
    """jpegli, as the package ``pyjpegli`` has it, and mozjpeg's choice of scans."""

    def encode(self, pixels: Pixels, variant: str, quality: int) -> bytes:
        """See :meth:`Format.encode`."""
        import mozjpeg_lossless_optimization as mozjpeg
        import pyjpegli

        height, width = pixels.shape[:2]
        whole = pyjpegli.encode(pixels.tobytes(), width, height, quality=quality)
        data: bytes = mozjpeg.optimize(whole, copy=mozjpeg.COPY_MARKERS.NONE)
        return data


QUALITIES: Final[Mapping[str, Sequence[int]]] = {
    "JPEG": (5, 10, 20, 30, 40, 50, 60, 70, 80, 87, 92, 95),
    **dict.fromkeys(
        ("MOZJPEG", "MOZJPEG-2", "MOZJPEG-3", "JPEGLI"), (15, 30, 45, 60, 72, 82, 89, 93, 96, 98)
    ),
    "WEBP": (1, 5, 15, 30, 45, 60, 72, 82, 89, 94, 98),
    "AVIF": (10, 25, 40, 54, 66, 76, 85),
    "JXL": (2, 6, 12, 22, 35, 50, 64, 75, 83, 89, 94),
}
"""The curves' points: settings called ``quality``, by rising rate."""


def formats(names: Sequence[str]) -> list[Format]:
    """Those of ``names``: what :data:`FORMATS` has, in capitals, and other encoders of JPEGs.

    ``MOZJPEG`` has flat tables, ``MOZJPEG-2`` and ``-3`` those for MS-SSIM and for looks; ``JPEGLI`` needs pyjpegli.

    Raises:
        UsageError: one is unknown.
        MissingExtraError: Pillow cannot write one here.
    """
    own = {
        "MOZJPEG": MozJpeg("mozjpeg, flat tables", "MOZJPEG", COLOURS),
        "MOZJPEG-2": MozJpeg("mozjpeg, tables for MS-SSIM", "MOZJPEG-2", COLOURS, table=2),
        "MOZJPEG-3": MozJpeg("mozjpeg, its usual tables", "MOZJPEG-3", COLOURS, table=3),
        "JPEGLI": Jpegli("jpegli", "JPEGLI", {"": {}}),
    }
    others = [name.lower() for name in names if name not in own]
    require_formats(others, "--formats")
    return [FORMATS[name] for name in others] + [own[name] for name in names if name in own]


def encoder(format: Format) -> str:
    """The encoder and its version."""
    match format.pillow:
        case "JPEG":
            return f"Pillow {version('pillow')}"
        case "JPEGLI":
            return f"pyjpegli {version('pyjpegli')}"
        case name if name.startswith("MOZJPEG"):
            return "mozjpeg 4.0.3"
        case "JXL":
            return f"pillow-jxl-plugin {version('pillow-jxl-plugin')}"
        case name:
            return f"lib{name.lower()} {features.version(name.lower())}"
