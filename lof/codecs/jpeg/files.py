"""JPEG files and their coefficients, through the libraries that know the format.

libjpeg-turbo reads and writes coefficients (package ``jpeglib``), mozjpeg packs them into progressive scans (package
``mozjpeg-lossless-optimization``), and Pillow's libjpeg-turbo decodes the pixels.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import jpeglib
import mozjpeg_lossless_optimization as mozjpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lof.errors import ImageError, StreamError
from lof.files.atomic import cannot_write, temporary_folder
from lof.pictures.refusing import pillow_errors_mapped

Planes = tuple[NDArray[np.int16], ...]
"""Levels of Y, Cb and Cr, or of Y alone, each (rows, columns, 8, 8) in blocks, frequencies in natural order."""

jpeglib.version.set("turbo210")

MAX_SIDE: Final = 65500
"""Of libjpeg."""
METADATA: Final = (*range(0xE0, 0xF0), 0xFE)
_SEGMENT: Final = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")


class Sampling(IntEnum):
    """How many samples of colour there are. The numbers stand in the digests of files."""

    FULL = 0  # 4:4:4
    HALF = 1  # 4:2:0
    HALF_COLUMNS = 2  # 4:2:2
    HALF_ROWS = 3  # 4:4:0
    GREY = 4  # 4:0:0: none

    @property
    def divisors(self) -> tuple[int, int]:
        """By what the rows and the columns of colour planes are divided."""
        return 1 + (self in (self.HALF, self.HALF_ROWS)), 1 + (self in (self.HALF, self.HALF_COLUMNS))


@dataclass(frozen=True)
class Coefficients:
    """What a JPEG says.

    Attributes:
        height, width: of the image, in pixels.
        planes: levels; of Cb and Cr in as many blocks as ``sampling`` leaves.
        tables: (2, 8, 8) steps of luma and of chroma, in natural order.
    """

    height: int
    width: int
    planes: Planes
    tables: NDArray[np.uint16]
    sampling: Sampling


def plain_file(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """libjpeg-turbo's own progressive file with optimised Huffman codes.

    Args:
        pixels: (H, W, 3) RGB, coded as 4:2:0, or (H, W) grey.
        quality: 1 to 100.
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, optimize=True, progressive=True)
    return file.getvalue()


def written(found: Coefficients) -> bytes:
    """The smallest file of these coefficients: sequential or progressive, with Huffman codes of their own.

    Without application segments: the container has its own, and libjpeg's beside them would stand there twice.
    """
    same = found.sampling == Sampling.GREY or bool((found.tables[0] == found.tables[1]).all())
    planes = [np.ascontiguousarray(plane, np.int16) for plane in found.planes]
    image = jpeglib.from_dct(
        **dict(zip(("Y", "Cb", "Cr"), planes, strict=False)),
        qt=found.tables[:1] if same else found.tables,
        quant_tbl_no=[0] * len(planes) if same else None,
    )
    image.samp_factor = np.array([found.sampling.divisors, (1, 1), (1, 1)][: len(planes)])
    image.height, image.width = found.height, found.width
    with temporary_folder() as folder:
        path = Path(folder) / "one.jpg"
        try:
            image.write_dct(str(path), flags=["OPTIMIZE_CODING"])
            sequential = path.read_bytes()
        except OSError as error:
            if error.errno is None:  # what libjpeg says of coefficients that no JPEG has
                raise
            raise cannot_write(path, error) from error
    progressive: bytes = mozjpeg.optimize(sequential, copy=mozjpeg.COPY_MARKERS.NONE)
    return min(_bare(sequential), _bare(progressive), key=len)


def read(data: bytes) -> Coefficients:
    """The coefficients of a JPEG that is grey, or YCbCr with one of the :class:`Sampling`.

    What is missing at its end is 0; :func:`decoded` refuses such a file.

    Raises:
        StreamError: it is another kind of JPEG, or damaged.
    """
    image, planes, tables = coefficients(data)
    factors = np.asarray(image.samp_factor)
    kinds = [
        kind
        for kind in list(Sampling)[: Sampling.GREY]
        if np.array_equal(factors, factors[-1] * [kind.divisors, (1, 1), (1, 1)])
    ]
    if image.jpeg_color_space.name == "JCS_GRAYSCALE":
        kinds = [Sampling.GREY]
    elif not kinds or image.jpeg_color_space.name != "JCS_YCbCr" or _is_rgb(data):
        raise StreamError(
            "is a JPEG of another kind than grey and YCbCr 4:4:4, 4:2:2, 4:4:0 and 4:2:0; optimize it as a picture"
        )
    if not np.array_equal(tables[min(1, len(tables) - 1)], tables[-1]):
        raise StreamError("has other quantisation tables for Cb than for Cr; optimize it as a picture")
    return Coefficients(
        int(image.height), int(image.width), planes, tables[[0, -1]].astype(np.uint16), kinds[0]
    )


def _is_rgb(data: bytes) -> bool:
    """Whether Adobe's segment says that a JPEG of three planes is RGB; jpeglib goes by the planes' numbers alone."""
    with _opened(data) as image:
        return "jfif" not in image.info and image.info.get("adobe_transform") == 0


def coefficients(data: bytes) -> tuple[Any, Planes, NDArray[np.uint16]]:
    """What jpeglib says about any JPEG, and for each of its planes levels and steps.

    Raises:
        StreamError: it cannot be read.
    """
    with temporary_folder() as folder:
        path = Path(folder) / "one.jpg"
        try:
            path.write_bytes(_bare(data))
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            image = jpeglib.read_dct(str(path))
            planes = tuple(p for p in (image.Y, image.Cb, image.Cr, image.K) if p is not None)
            return image, planes, np.asarray(image.qt)[np.asarray(image.quant_tbl_no)]
        except (OSError, ValueError, RuntimeError, IndexError) as error:
            raise StreamError(f"its coefficients cannot be read ({error}); keep it as it is") from error


def _bare(data: bytes) -> bytes:
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


def decoded(
    data: bytes, *, raw: bool = False, fits: Callable[[int, int], None] | None = None
) -> NDArray[np.uint8]:
    """The pixels, (H, W, 3) RGB, that libjpeg-turbo decodes.

    Args:
        raw: whether they come as they are stored, grey and inks (CMYK) too.
        fits: called with height and width before any pixel is decoded; what it raises ends the reading.

    Raises:
        StreamError: damaged, cut short, or of inks.
    """
    with _opened(data) as image:
        if fits is not None:
            fits(image.height, image.width)
        if not raw and image.mode not in ("RGB", "L"):
            raise StreamError("is a JPEG of another kind than grey and YCbCr; optimize it as a picture")
        return np.array(image if raw else image.convert("RGB"))


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    try:
        with pillow_errors_mapped(), Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            yield image
    except ImageError as error:
        raise StreamError(str(error)) from error
