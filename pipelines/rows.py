"""Rows of measured files of codecs, as pipelines keep them in a journal: one per image and setting."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from lof.report.records import Record, distinct


def complete_images(rows: Sequence[Record], *setting: str) -> list[str]:
    """Names of the images that have a row at every setting that the rows hold, sorted.

    An image that a codec stores without loss has no PSNR to compare, and is left out.

    Args:
        setting: keys of a row; their values make up its setting.
    """
    places = {tuple(row[key] for key in setting) for row in rows}
    lossy = [row for row in rows if isfinite(float(row["psnr"]))]
    there = {(*(row[key] for key in setting), row["image"]) for row in lossy}
    return [image for image in distinct(rows, "image") if all((*place, image) in there for place in places)]
