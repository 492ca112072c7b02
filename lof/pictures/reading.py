"""Pictures in: from files and from memory. Nothing is lost silently.

The codecs take 8-bit RGB. What can be brought there without loss of content is, with a note that says what
was done; what cannot (16 bits per channel, transparency, several pages) is refused with a remedy.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lof.errors import ImageError, LowMemoryError
from lof.files.storage import Location, parse
from lof.pictures.colour import GREY, fit_profile, from_cmyk, without_alpha
from lof.pictures.headers import check_png_rows, dropped_by_pillow, jp2_profile, raw_mode
from lof.pictures.metadata import ORIENTATION, take_boxes
from lof.pictures.picture import ICC, Picture
from lof.pictures.refusing import (
    FIRST_TAKEN,
    FORMATS,
    MAX_PIXELS,
    check_kind,
    check_size,
    open_file,
    open_image,
    pillow_errors_mapped,
)

if TYPE_CHECKING:
    import torch

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(
    path: Location | str,
    content: bytes | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    fits: Callable[[int, int], None] | None = None,
    formats: tuple[str, ...] | None = FORMATS,
) -> Picture:
    """Read a JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000, AVIF or PNM file; its content decides, not its suffix.

    HEIC is read where the package pillow-heif is installed.

    Args:
        path: where the file is; only a name for errors where its content is given.
        content: the whole file, where it has been read already.
        max_pixels: more are refused before any is decoded; at most 2²⁸.
        fits: called with height and width as the header has them, before any pixel is decoded; what it raises
            ends the reading. For work that needs more memory than reading does.
        formats: other ones, in Pillow's words; for ``None`` all that it knows, and JPEG XL where pillow-jxl-plugin is
            installed. For looking at pictures only: what is deeper or animated is known of ``FORMATS`` alone.

    Raises:
        ImageError: missing, unreadable, damaged, no image of these formats, over 65535 pixels on a side or
            ``max_pixels`` in all, more than 8 bits per channel, transparent, or of several pages.
        LowMemoryError: less memory is free than reading takes.
    """
    try:
        with _opened(path, content) as file, pillow_errors_mapped():
            return _to_picture(open_image(file, formats), max_pixels, fits)
    except (ImageError, LowMemoryError) as error:
        raise type(error)(f"{path}: {error}") from error


def read_size(path: Location) -> tuple[int, int]:
    """Width and height as the file stores them, from its header alone.

    Raises:
        ImageError, LowMemoryError: what :func:`read_picture` refuses before it decodes.
    """
    try:
        with open_file(path) as file, pillow_errors_mapped():
            image = open_image(file)
            check_size(*image.size)
            check_kind(image)
            return image.size
    except (ImageError, LowMemoryError) as error:
        raise type(error)(f"{path}: {error}") from error


def picture_of(image: Picture | Image.Image | NDArray[Any] | torch.Tensor) -> Picture:
    """Take an image from memory.

    Args:
        image: a picture, as it is; a Pillow image under the same rules as a file; an array ``(H, W, 3)`` uint8 RGB,
            copied; or a
            tensor ``(3, H, W)`` of floats in 0…1 on any device, rounded to 8 bits (with a note where that
            moves a value by more than float16 would).

    Raises:
        ImageError: another type, shape, dtype or range, or what ``read_picture`` refuses in a file.
    """
    try:
        if isinstance(image, Picture):
            return _checked(image)
        if isinstance(image, Image.Image):
            with pillow_errors_mapped():
                return _to_picture(image, MAX_PIXELS, None)
        if isinstance(image, np.ndarray):
            return _from_array(image)
        return _from_tensor(image)
    except (ImageError, LowMemoryError) as error:
        raise type(error)(f"image: {error}") from error


def _opened(path: Location | str, content: bytes | None) -> BinaryIO:
    if content is not None:
        return io.BytesIO(content)
    return open_file(parse(path) if isinstance(path, str) else path)


def _to_picture(image: Image.Image, max_pixels: int, fits: Callable[[int, int], None] | None) -> Picture:
    width, height = image.size
    check_size(width, height, max_pixels)
    if fits is not None:
        fits(height, width)
    check_kind(image)
    check_png_rows(image)
    notes = dropped_by_pillow(image)
    if image.format in FIRST_TAKEN and (count := getattr(image, "n_frames", 1)) > 1:
        number = image.tell() + 1
        which = "first" if number == 1 else f"number {number}"
        notes.append(f"{which} of {count} {FIRST_TAKEN[image.format]} in the file taken")
    if profile := jp2_profile(image):
        image.info["icc_profile"] = profile
    source = _jpeg_of(image)
    loaded, turned = _load(image)
    boxes, orientation = take_boxes(image, notes, turned)
    icc = boxes.pop(ICC, None)
    grey = loaded.mode in GREY
    if loaded.mode == "CMYK":
        rgb, icc = from_cmyk(loaded, icc, notes)
        source = None
    else:
        opaque = without_alpha(loaded, notes)
        if loaded.mode in ("P", "PA"):
            notes.append("palette expanded")
        if grey:
            notes.append("grey expanded to RGB")
        rgb, icc = fit_profile(opaque, grey, icc, notes)
        source = source if rgb is opaque else None
    if icc is not None:
        boxes = {ICC: icc} | boxes
    if turned in _TURNS or orientation in _TURNS:
        notes.append(f"orientation {turned if turned in _TURNS else orientation} applied")
    if orientation in _TURNS:
        rgb = rgb.transpose(_TURNS[orientation])
        source = None
    return Picture(np.array(rgb, dtype=np.uint8, order="C"), boxes, tuple(notes), source)


def _jpeg_of(image: Image.Image) -> bytes | None:
    """The file of a JPEG that has not been decoded yet, where the image is its first picture at full size."""
    file = getattr(image, "fp", None)
    if image.format not in ("JPEG", "MPO") or file is None:
        return None
    place = file.tell()
    file.seek(0)
    content: bytes = file.read()
    file.seek(place)
    with Image.open(io.BytesIO(content)) as first:
        return content if image.tell() == 0 and image.size == first.size else None


def _load(image: Image.Image) -> tuple[Image.Image, int]:
    """Decode; also the orientation that Pillow applies by itself while it does, to TIFF and HEIC."""
    depth = {"L;2": 85, "L;4": 17}.get(raw_mode(image))
    turned = image.info.get("original_orientation") or getattr(image, "tag_v2", {}).get(ORIENTATION, 1)
    image.load()
    if depth and "transparency" in image.info:
        # Pillow scales such greys to 0…255, but not the transparent one.
        image = image.copy()
        image.info["transparency"] *= depth
    return image, turned


def _checked(picture: Picture) -> Picture:
    pixels = picture.pixels
    whole = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size and pixels.dtype == np.uint8
    if whole and pixels.flags.c_contiguous:
        return picture  # which takes no more memory
    return replace(picture, pixels=_from_array(pixels).pixels)


def _from_array(array: NDArray[Any]) -> Picture:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(
            f"is an array of shape {array.shape} and dtype {array.dtype}; give (height, width, 3) uint8 RGB"
        )
    check_size(array.shape[1], array.shape[0])
    return Picture(np.array(array, order="C"))


def _from_tensor(tensor: torch.Tensor) -> Picture:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise ImageError(f"is a {type(tensor).__name__}; give a Pillow image, a NumPy array or a tensor")
    if not tensor.is_floating_point() or tensor.ndim != 3 or tensor.shape[0] != 3:
        shape = tuple(tensor.shape)
        raise ImageError(
            f"is a tensor of shape {shape} and {tensor.dtype}; give (3, height, width) floats in 0…1"
        )
    if tensor.layout != torch.strided or tensor.is_meta:
        kind = "without values, on the device meta" if tensor.is_meta else f"of layout {tensor.layout}"
        raise ImageError(f"is a tensor {kind}; give a dense one that holds the pixels")
    check_size(tensor.shape[2], tensor.shape[1])
    values = tensor.detach().to("cpu", torch.float32)
    if not bool(((values >= 0) & (values <= 1)).all()):  # also catches NaN
        raise ImageError("has values that are not in 0…1; clamp them first")
    scaled = values * 255
    rounded = scaled.round()
    moved = float((scaled - rounded).abs().max())
    notes = ("rounded to 8 bits per channel",) if moved > 0.07 else ()
    return Picture(rounded.to(torch.uint8).permute(1, 2, 0).contiguous().numpy(), notes=notes)
