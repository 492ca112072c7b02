"""Pictures to measure on: some of a folder's, cut to their centre, in batches of one size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lof.files.inputs import Source
from lof.pictures.picture import Picture
from lof.pictures.reading import read_picture


@dataclass(frozen=True)
class Image:
    """A picture and its name; ``digest`` identifies its pixels."""

    name: str
    picture: Picture
    digest: str


def spread(sources: list[Source], count: int | None) -> list[Source]:
    """``count`` sources evenly spread over all of them; all of them for ``None`` or more than there are."""
    if count is None or count >= len(sources):
        return sources
    return [sources[int((index + 0.5) * len(sources) / count)] for index in range(count)]


def centre_crop(picture: Picture, size: int | None) -> Picture:
    """The centre ``size``×``size`` of a picture, or what there is of it, without profile and EXIF."""
    pixels = picture.pixels
    if size is not None:
        top, left = (max(0, (side - size) // 2) for side in pixels.shape[:2])
        pixels = np.ascontiguousarray(pixels[top : top + size, left : left + size])
    return Picture(pixels)


def batches(sources: list[Source], size: int | None, batch: int) -> Iterator[list[Image]]:
    """Neighbours of one size, up to ``batch`` at once.

    Raises:
        ImageError: a source cannot be read.
    """
    waiting: list[Image] = []
    for source in sources:
        picture = centre_crop(read_picture(source.path), size)
        shape = picture.pixels.shape
        if waiting and (len(waiting) == batch or waiting[0].picture.pixels.shape != shape):
            yield waiting
            waiting = []
        digest = hashlib.sha256(f"{shape}".encode() + picture.pixels.tobytes()).hexdigest()
        waiting.append(Image(str(source.relative), picture, digest))
    if waiting:
        yield waiting
