"""A picture and what encoders made of it, side by side: figures, a table, and a page to look at."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from rich.table import Table

from lof.errors import ImageError
from lof.machine.memory import require_memory
from lof.metrics import bpp, ms_ssim, mse, psnr
from lof.pictures.cuts import heaviest_cut
from lof.pictures.picture import ICC, Picture
from lof.pictures.writing import png_bytes
from lof.report import figures
from lof.report.crops import address, colour_bar, coloured, common_scale, error_map, picture_address
from lof.report.page import environment, origin
from lof.report.records import Record
from lof.report.table import MiddleCut

MOST_PIXELS = 12_000_000
"""Of all pictures on a page together; of larger ones it shows a cut."""

BYTES_PER_PIXEL = 200
"""Memory at the peak, which is MS-SSIM's, measured."""


@dataclass(frozen=True)
class Compared:
    """A file, decoded and measured.

    Attributes:
        name: as the user wrote it.
        size: of the file in bytes.
        picture: what it decodes to.
        measures: ``bpp``, and but for the original ``mse``, ``psnr``, ``ms_ssim`` and ``ssimulacra2`` (``None`` where
            there is none).
        notes: what was done to get 8-bit RGB, and what differs from the original beside the pixels.
    """

    name: str
    size: int
    picture: Picture
    measures: dict[str, float | None]
    notes: tuple[str, ...] = ()

    def record(self) -> Record:
        """The figures for JSON."""
        height, width = self.picture.pixels.shape[:2]
        about = {"file": self.name, "size": self.size, "width": width, "height": height}
        return about | self.measures | {"notes": list(self.notes), "error": None}


def original_of(name: str, size: int, picture: Picture) -> Compared:
    """What the others are compared with."""
    return Compared(name, size, picture, {"bpp": bpp(size, *picture.pixels.shape[:2])}, picture.notes)


def compare(original: Compared, name: str, size: int, picture: Picture) -> Compared:
    """A file beside the original, by the 8-bit values of both; SSIMULACRA2 is left to the caller.

    Raises:
        ImageError: the pictures differ in size.
        LowMemoryError: less memory is free than measuring takes.
    """
    before, after = original.picture.pixels, picture.pixels
    if before.shape != after.shape:
        sizes = [f"{pixels.shape[1]}×{pixels.shape[0]}" for pixels in (after, before)]
        raise ImageError(f"{name}: has {sizes[0]} pixels, the original {sizes[1]}; give files of one picture")
    require_memory(
        before[..., 0].size * BYTES_PER_PIXEL, None, f"{name}: {after.shape[1]}×{after.shape[0]}", "compare"
    )
    error = mse(before, after)
    measures = {
        "bpp": bpp(size, *before.shape[:2]),
        "mse": error,
        "psnr": psnr(error),
        "ms_ssim": ms_ssim(before, after),
        "ssimulacra2": None,
    }
    profile = (
        ()
        if picture.icc == original.picture.icc
        else ("ICC profile differs from the original's, not applied",)
    )
    return Compared(name, size, picture, measures, (*picture.notes, *profile))


def comparison_table(original: Compared, compared: Sequence[Compared]) -> Table:
    """A row for each file, the original's first; fits 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("file", overflow="ellipsis")
    for name in ("size", "bpp", "PSNR dB", "MS-SSIM", "SSIMULACRA2"):
        table.add_column(name, no_wrap=True, justify="right")
    for one in (original, *compared):
        table.add_row(MiddleCut(one.name), *_cells(one), style="dim" if one is original else "")
    return table


def comparison_page(original: Compared, compared: Sequence[Compared]) -> str:
    """One HTML page without anything from elsewhere: figures, two pictures under a slider or in turn, error maps.

    Where the pictures have over :data:`MOST_PIXELS` together, the page shows the same cut of each: where the errors of
    all files together are greatest.
    """
    pictures = [original, *compared]
    cut = _cut(pictures)
    top, left = (side.start for side in cut)
    errors = [error_map(original.picture.pixels[cut], one.picture.pixels[cut]) for one in compared]
    scale = common_scale(*errors)
    cards = [
        {
            "name": figures.printable(one.name),
            "cells": _cells(one),
            "notes": list(map(figures.printable, one.notes)),
            "picture": address("png", png_bytes(_shown(one.picture, cut))),
            "map": None if error is None else picture_address(coloured(error, scale), lossless=False),
        }
        for one, error in zip(pictures, [None, *errors], strict=True)
    ]
    script = (files("lof.report") / "templates" / "comparison.js").read_text("utf-8")
    height, width = original.picture.pixels.shape[:2]
    shown = original.picture.pixels[cut].shape
    return (
        environment()
        .get_template("comparison.html")
        .render(
            title=figures.printable(original.name),
            cards=cards,
            width=width,
            height=height,
            cut=None if shown[:2] == (height, width) else (left, top),
            shown=(shown[1], shown[0]),
            scale=scale,
            bar=colour_bar(),
            script=script,
            # Nothing else on the page may run, whatever a file is called.
            digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            origin=origin(),
        )
    )


def _cells(one: Compared) -> list[str]:
    """Of the table: size, bits per pixel, PSNR, MS-SSIM, SSIMULACRA2."""
    found: dict[str, Any] = dict.fromkeys(("psnr", "ms_ssim", "ssimulacra2")) | one.measures
    return [
        figures.size(one.size),
        figures.bits_per_pixel(found["bpp"]),
        figures.decibels(found["psnr"]),
        figures.similarity(found["ms_ssim"]),
        figures.decimal(found["ssimulacra2"], 1),
    ]


def _shown(picture: Picture, cut: tuple[slice, slice]) -> Picture:
    """The cut with its profile, which a browser needs for the right colours."""
    boxes = {ICC: picture.icc} if picture.icc else {}
    return Picture(np.ascontiguousarray(picture.pixels[cut]), boxes)


def _cut(pictures: Sequence[Compared]) -> tuple[slice, slice]:
    height, width = pictures[0].picture.pixels.shape[:2]
    most = max(1, MOST_PIXELS // len(pictures))
    if height * width <= most:
        return slice(0, height), slice(0, width)
    rows = min(height, max(math.isqrt(most), most // width))
    columns = min(width, max(1, most // rows))
    before = pictures[0].picture.pixels.astype(np.int16)
    weights = np.zeros((height, width), np.int64)
    for one in pictures[1:]:
        for channel in range(3):  # one at a time takes less memory
            weights += np.square((before[..., channel] - one.picture.pixels[..., channel]).astype(np.int32))
    return heaviest_cut(weights, rows, columns)
