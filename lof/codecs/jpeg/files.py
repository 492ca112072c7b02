"""JPEG files and their coefficients, through the libraries that know the format.

libjpeg-turbo reads and writes coefficients (package ``jpeglib``), mozjpeg packs them into progressive scans (package
``mozjpeg-lossless-optimization``), and Pillow's libjpeg-turbo decodes the pixels.
"""

from __future__ import annotations

import io
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jpeglib
import mozjpeg_lossless_optimization as mozjpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lof.errors import StreamError

Planes = tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]
"""Levels of Y, Cb and Cr, each (rows, columns, 8, 8) in blocks, frequencies in natural order."""

jpeglib.version.set("turbo210")

METADATA: Final = (*range(0xE0, 0xF0), 0xFE)
_SEGMENT: Final = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd8])")
_HALVED: Final = np.array([[2, 2], [1, 1], [1, 1]])
_FULL: Final = np.ones((3, 2), int)
UNREADABLE: Final = (OSError, ValueError, SyntaxError, RuntimeError)


@dataclass(frozen=True)
class Coefficients:
    """What a colour JPEG says.

    Attributes:
        height, width: of the image, in pixels.
        planes: levels; of Cb and Cr in a quarter of the blocks where ``halved``.
        tables: (2, 8, 8) steps of luma and of chroma, in natural order.
        halved: whether the colour planes have half the rows and columns (4:2:0); otherwise all (4:4:4).
    """

    height: int
    width: int
    planes: Planes
    tables: NDArray[np.uint16]
    halved: bool


def plain_file(pixels: NDArray[np.uint8], quality: int, halved: bool = True) -> bytes:
    """libjpeg-turbo's own progressive file with optimised Huffman codes.

    Args:
        pixels: (H, W, 3) RGB.
        quality: 1 to 100.
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(
        file, "JPEG", quality=quality, subsampling=2 if halved else 0, optimize=True, progressive=True
    )
    return file.getvalue()


def written(found: Coefficients) -> bytes:
    """The smallest file of these coefficients: sequential or progressive, with Huffman codes of their own."""
    same = bool((found.tables[0] == found.tables[1]).all())
    y, cb, cr = (np.ascontiguousarray(plane, np.int16) for plane in found.planes)
    image = jpeglib.from_dct(
        Y=y,
        Cb=cb,
        Cr=cr,
        qt=found.tables[:1] if same else found.tables,
        quant_tbl_no=[0, 0, 0] if same else None,
    )
    image.samp_factor = _HALVED if found.halved else _FULL
    image.height, image.width = found.height, found.width
    with tempfile.TemporaryDirectory(prefix="lof-") as folder:
        path = Path(folder) / "one.jpg"
        image.write_dct(str(path), flags=["OPTIMIZE_CODING"])
        sequential = path.read_bytes()
    progressive: bytes = mozjpeg.optimize(sequential, copy=mozjpeg.COPY_MARKERS.NONE)
    return min(sequential, progressive, key=len)


def read(data: bytes) -> Coefficients:
    """The coefficients of a JPEG in YCbCr, 4:2:0 or 4:4:4.

    What is missing at its end is 0; :func:`decoded` refuses such a file.

    Raises:
        StreamError: it is another kind of JPEG, or damaged.
    """
    with tempfile.TemporaryDirectory(prefix="lof-") as folder:
        path = Path(folder) / "one.jpg"
        path.write_bytes(bare(data))
        try:
            image = jpeglib.read_dct(str(path))
            y, cb, cr = image.Y, image.Cb, image.Cr
        except UNREADABLE as error:
            raise StreamError(
                f"its coefficients cannot be read ({error}); encode the picture again"
            ) from error
    factors = np.asarray(image.samp_factor).tolist()
    if cb is None or cr is None or factors not in (_HALVED.tolist(), _FULL.tolist()):
        raise StreamError("is a JPEG of another kind than YCbCr 4:2:0 and 4:4:4; optimize it as a picture")
    numbers = np.asarray(image.quant_tbl_no).tolist()
    if numbers[1] != numbers[2]:
        raise StreamError("has other quantisation tables for Cb than for Cr; optimize it as a picture")
    tables = np.asarray(image.qt)
    pair = tables[[0, min(1, len(tables) - 1)]] if numbers[0] != numbers[1] else tables[[0, 0]]
    return Coefficients(
        int(image.height), int(image.width), (y, cb, cr), pair.astype(np.uint16), factors == _HALVED.tolist()
    )


def bare(data: bytes) -> bytes:
    """A JPEG without application segments and comments: jpeglib ends the process where one is empty."""
    parts, start, at = list[bytes](), 0, 2
    while match := _SEGMENT.search(data, at):
        at = match.end() + int.from_bytes(data[match.end() : match.end() + 2])
        if match[1][0] == 0xD9:
            break
        if match[1][0] in METADATA:
            parts.append(data[start : match.start()])
            start = at
    return b"".join(parts) + data[start:]


def decoded(data: bytes) -> NDArray[np.uint8]:
    """The pixels, (H, W, 3) RGB, that libjpeg-turbo decodes.

    Raises:
        StreamError: damaged, cut short, or no colour JPEG.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            if image.mode != "RGB":
                raise StreamError("is no colour JPEG; optimize it as a picture")
            return np.array(image)
    except UNREADABLE as error:
        raise StreamError(f"is no whole JPEG ({error}); encode the picture again") from error
