"""What is refused, and in which words: sizes, kinds of pixels, and files that cannot be read."""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import BinaryIO

from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from lof.errors import ImageError, LowMemoryError, MissingExtraError, one_line, require
from lof.files.storage import Location, is_remote, read_bytes
from lof.machine.memory import require_memory
from lof.pictures.colour import GREY
from lof.pictures.headers import bits_per_channel

MAX_SIDE = 65535
MAX_PIXELS = 2**28
"""What the containers hold, and the default of ``max_pixels``."""
BYTES_PER_PIXEL = 22
"""Memory at the peak while a picture is read, measured: 10 bytes for PNG, 22 for WebP and JPEG 2000."""
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "AVIF", "PPM")
"""In Pillow's words; multi-picture JPEGs (MPO) are opened as JPEG, and PPM stands for all PNM."""
FIRST_TAKEN = {"MPO": "pictures", "GIF": "frames"}
"""Formats of which the first picture is taken where there are several."""

_MODES = GREY | {"P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK"}
_DEEP = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
_SAMPLES_PER_PIXEL = 277  # a TIFF's tag
_JXL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_JXL_PLUGIN = "pillow_jxl"
_HEIC = re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL)

# What Pillow's readers raise on files that are damaged or made to hurt.
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    ImageCms.PyCMSError,
)
_LOCK = threading.Lock()


def open_file(path: Location) -> BinaryIO:
    """An image file, open for reading; pipes and devices are not opened."""
    try:
        if is_remote(path):
            return io.BytesIO(read_bytes(path))
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            next(path.iterdir(), None)  # a folder that cannot be read says why
            raise ImageError("is a folder, not an image; name a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is not a regular file; save it as one first")
        if status.st_size == 0 and not path.read_bytes():
            raise ImageError("is empty; replace it with the complete image")
        return path.open("rb")
    except FileNotFoundError as error:
        raise ImageError("does not exist; check the name") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"cannot be read ({reason}); check its name and permissions") from error


@contextmanager
def pillow_errors_mapped() -> Iterator[None]:
    """Whatever Pillow raises on a file becomes an :class:`ImageError`."""
    # Pillow's pixel limit is a module global and lower than ours: it is lifted for one reader at a time,
    # and `check_size` takes its place before any pixel is decoded. Other libraries switch on the reading of
    # truncated files, which would fill the missing part with grey. Pillow's warnings are no output of ours.
    with _LOCK, warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        before = Image.MAX_IMAGE_PIXELS, Image.WARN_POSSIBLE_FORMATS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, Image.WARN_POSSIBLE_FORMATS = None, True
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        except MemoryError as error:
            raise LowMemoryError(
                "too large for the memory that is free here; free some, or scale it down"
            ) from error
        except UnidentifiedImageError as error:
            why = " ".join(str(warning.message) for warning in heard) or "unknown header"
            raise ImageError(
                f"no readable JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000, AVIF or PNM image ({one_line(why)}); "
                "convert it to 8-bit PNG"
            ) from error
        except PILLOW_ERRORS as error:
            why = f"damaged or cut short ({one_line(error)}); replace it with the complete image"
            raise ImageError(why) from error
        finally:
            Image.MAX_IMAGE_PIXELS, Image.WARN_POSSIBLE_FORMATS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def open_image(file: BinaryIO, formats: tuple[str, ...] | None = FORMATS) -> Image.Image:
    """What Pillow makes of a file's header; no pixel is decoded, but for JPEG XL.

    Args:
        formats: in Pillow's words; for ``None`` all that it knows, and JPEG XL.

    Raises:
        ImageError: it is HEIC or JPEG XL, and the plug-in that reads it is not installed.
    """
    head = file.read(64)
    file.seek(0)
    if formats is None and head.startswith(_JXL):
        return _open_jxl(file)
    if not _HEIC.match(head) or b"avif" in head:
        return Image.open(file, formats=formats)
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise ImageError(
            "is HEIC, which needs the package pillow-heif; run pip install pillow-heif, or convert it to 8-bit PNG"
        ) from error
    register_heif_opener()
    return Image.open(file, formats=("HEIF",))


def load_jxl() -> None:
    """Let Pillow read and write JPEG XL.

    Raises:
        MissingExtraError: its plug-in is not installed.
    """
    require(_JXL_PLUGIN, "jxl", "JPEG XL")
    # It logs every file unless told otherwise before it is imported.
    os.environ.setdefault("RUST_LOG", "error")
    import_module(_JXL_PLUGIN)


def _open_jxl(file: BinaryIO) -> Image.Image:
    try:
        load_jxl()
    except MissingExtraError as error:
        raise ImageError(str(error)) from error
    image = Image.open(file, formats=("JXL",))
    if not image.jpeg:  # type: ignore[attr-defined]  # a JPEG in other bytes is still to be turned, others are upright
        tags = image.getexif()
        if tags.pop(ExifTags.Base.Orientation, None):
            image.info["exif"] = tags.tobytes()
    return image


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse what has no pixels, or more than are allowed or can be read with the memory that is free."""
    if width < 1 or height < 1:
        raise ImageError(f"has {width}×{height} pixels; replace it with the complete image")
    limit = min(max_pixels, MAX_PIXELS)
    if max(width, height) > MAX_SIDE or width * height > limit:
        raise ImageError(
            f"has {width}×{height} pixels, more than {MAX_SIDE} on a side or {limit} in all; "
            "scale it down or cut it into tiles"
        )
    require_memory(width * height * BYTES_PER_PIXEL, None, f"a {width}×{height} image", "read")


def check_kind(image: Image.Image) -> None:
    """Refuse what 8-bit RGB cannot hold; to be asked before the pixels are decoded."""
    if image.mode in _DEEP or bits_per_channel(image) > 8:
        raise ImageError("has more than 8 bits per channel; convert it to 8 bits per channel first")
    if image.mode not in _MODES:
        raise ImageError(f"has the colour mode {image.mode}; convert it to 8-bit RGB first")
    if getattr(image, "tag_v2", {}).get(_SAMPLES_PER_PIXEL, 1) > len(image.getbands()):
        raise ImageError("has extra channels besides its colours; save it as plain 8-bit RGB first")
    if image.format not in FIRST_TAKEN and getattr(image, "is_animated", False):
        raise ImageError("holds several frames or pages; save the one you want as a single image")
