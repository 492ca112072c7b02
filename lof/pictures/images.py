"""Pictures in and out: 8-bit RGB pixels with their ICC profile and EXIF. Nothing is lost silently.

The codecs take 8-bit RGB. What can be brought there without loss of content is, with a note that says what
was done; what cannot (16 bits per channel, transparency, several pages) is refused with a remedy.
"""

from __future__ import annotations

import io
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from lof.errors import ImageError
from lof.files.storage import Location, is_remote, open_read, read_bytes

if TYPE_CHECKING:
    import torch

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")  # Pillow opens multi-picture JPEGs (MPO) as JPEG
MAX_SIDE = 65535
MAX_PIXELS = 2**28

_GREY = frozenset({"1", "L", "LA", "La"})
_MODES = _GREY | {"P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK"}
_DEEP = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The tags of a TIFF that describe the picture; the others describe how that file stores it.
_TIFF_TEXT_TAGS = (0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298)
_TIFF_FOLDER_TAGS = (0x8769, 0x8825)  # EXIF, GPS
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL = 258, 277

# What Pillow's readers raise on files that are damaged or made to hurt.
_PILLOW_ERRORS = (
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


@dataclass(frozen=True)
class Picture:
    """An image as the codecs take it.

    Attributes:
        pixels: ``(H, W, 3)`` uint8, RGB, C-contiguous, upright.
        icc: the ICC profile that describes ``pixels``, or ``None`` (sRGB by convention).
        exif: EXIF as a TIFF block (``II*…`` or ``MM…``), its orientation tag 1, or ``None``.
        notes: what was done to get here, in order: ``"orientation 6 applied"``, ``"palette expanded"``.
    """

    pixels: NDArray[np.uint8]
    icc: bytes | None
    exif: bytes | None
    notes: tuple[str, ...]


def read_picture(path: Location, content: bytes | None = None) -> Picture:
    """Read a JPEG, PNG, WebP, TIFF or BMP file; its content decides, not its suffix.

    Args:
        content: the whole file, where it has been read already.

    Raises:
        ImageError: missing, unreadable, damaged, no image of these formats, over 65535 pixels on a side or
            2²⁸ in all (checked before decoding), more than 8 bits per channel, transparent, or of several
            pages.
    """
    try:
        with _open(path) if content is None else io.BytesIO(content) as file, _pillow_errors_mapped():
            return _to_picture(Image.open(file, formats=FORMATS))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def picture_of(data: bytes, name: str) -> Picture:
    """:func:`read_picture` for a file whose bytes are at hand; ``name`` is what errors call it.

    Raises:
        ImageError: as :func:`read_picture`.
    """
    try:
        with _pillow_errors_mapped():
            return _to_picture(Image.open(io.BytesIO(data), formats=FORMATS))
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error


def read_size(path: Location) -> tuple[int, int] | None:
    """Width and height from the header alone, as the file stores them; ``None`` where there is none."""
    try:
        with open_read(path) as file, _pillow_errors_mapped():
            return Image.open(file, formats=FORMATS).size
    except (OSError, ValueError, ImageError):
        return None


def to_pixels(image: Image.Image | NDArray[Any] | torch.Tensor) -> Picture:
    """Take an image from memory.

    Args:
        image: a Pillow image under the same rules as a file; an array ``(H, W, 3)`` uint8 RGB, copied; or a
            tensor ``(3, H, W)`` of floats in 0…1 on any device, rounded to 8 bits (with a note where that
            moves a value by more than float16 would).

    Raises:
        ImageError: another type, shape, dtype or range, or what ``read_picture`` refuses in a file.
    """
    try:
        if isinstance(image, Image.Image):
            with _pillow_errors_mapped():
                return _to_picture(image)
        if isinstance(image, np.ndarray):
            return _from_array(image)
        return _from_tensor(image)
    except ImageError as error:
        raise ImageError(f"image: {error}") from error


def png_bytes(picture: Picture) -> bytes:
    """The picture as a lossless PNG file with its ICC profile and EXIF."""
    buffer = io.BytesIO()
    extra: dict[str, Any] = {} if picture.exif is None else {"exif": picture.exif}
    Image.fromarray(picture.pixels).save(buffer, "PNG", icc_profile=picture.icc, **extra)
    return buffer.getvalue()


def _open(path: Location) -> BinaryIO:
    try:
        if is_remote(path):
            return io.BytesIO(read_bytes(path))
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
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
def _pillow_errors_mapped() -> Iterator[None]:
    # Pillow's pixel limit is a module global and lower than ours: it is lifted for one reader at a time,
    # and `_check_size` takes its place before any pixel is decoded. Other libraries switch on the reading of
    # truncated files, which would fill the missing part with grey. Pillow's warnings are no output of ours.
    with _LOCK, warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        before = Image.MAX_IMAGE_PIXELS, Image.WARN_POSSIBLE_FORMATS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, Image.WARN_POSSIBLE_FORMATS = None, True
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        except MemoryError as error:
            raise ImageError("too large for the memory of this machine; scale it down first") from error
        except UnidentifiedImageError as error:
            why = " ".join(str(warning.message) for warning in heard) or "unknown header"
            raise ImageError(
                f"no readable JPEG, PNG, WebP, TIFF or BMP image ({_one_line(why)}); convert it to 8-bit PNG"
            ) from error
        except _PILLOW_ERRORS as error:
            why = _one_line(str(error)) or type(error).__name__
            raise ImageError(f"damaged or cut short ({why}); replace it with the complete image") from error
        finally:
            Image.MAX_IMAGE_PIXELS, Image.WARN_POSSIBLE_FORMATS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _to_picture(image: Image.Image) -> Picture:
    _check_size(*image.size)
    _check_kind(image)
    notes: list[str] = []
    image, turned = _load(image)
    exif, orientation = _exif(image, notes)
    icc = _icc(image, notes)
    _note_dropped(image, notes)
    grey = image.mode in _GREY
    if image.mode == "CMYK":
        rgb, icc = _from_cmyk(image, icc, notes)
    else:
        rgb = _without_alpha(image, notes)
        if image.mode in ("P", "PA"):
            notes.append("palette expanded")
        if grey:
            notes.append("grey expanded to RGB")
        rgb, icc = _fit_profile(rgb, grey, icc, notes)
    if turned in _TURNS or orientation in _TURNS:
        notes.append(f"orientation {turned if turned in _TURNS else orientation} applied")
    if orientation in _TURNS:
        rgb = rgb.transpose(_TURNS[orientation])
    return Picture(np.array(rgb, dtype=np.uint8, order="C"), icc, exif, tuple(notes))


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"has {width}×{height} pixels; replace it with the complete image")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageError(
            f"has {width}×{height} pixels, more than {MAX_SIDE} on a side or {MAX_PIXELS} in all; "
            "scale it down or cut it into tiles"
        )


def _check_kind(image: Image.Image) -> None:
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, 8)
    deepest = max(bits) if isinstance(bits, tuple) else bits
    # Pillow reads a 16-bit RGB PNG as an 8-bit one; only the decoder's raw mode still tells.
    if image.mode in _DEEP or deepest > 8 or (image.format == "PNG" and ";16" in _raw_mode(image)):
        raise ImageError("has more than 8 bits per channel; convert it to 8 bits per channel first")
    if image.mode not in _MODES:
        raise ImageError(f"has the colour mode {image.mode}; convert it to 8-bit RGB first")
    if tags.get(_SAMPLES_PER_PIXEL, 1) > len(image.getbands()):
        raise ImageError("has extra channels besides its colours; save it as plain 8-bit RGB first")
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageError("holds several frames or pages; save the one you want as a single image")


def _raw_mode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)  # filled until the pixels are decoded
    return str(tiles[0][3]) if tiles else ""


def _load(image: Image.Image) -> tuple[Image.Image, int]:
    """Decode; also the orientation that Pillow applies by itself while it does (to TIFF only)."""
    depth = {"L;2": 85, "L;4": 17}.get(_raw_mode(image))
    turned = getattr(image, "tag_v2", {}).get(_ORIENTATION, 1)
    image.load()
    if depth and "transparency" in image.info:
        # Pillow scales such greys to 0…255, but not the transparent one.
        image = image.copy()
        image.info["transparency"] *= depth
    return image, turned


def _exif(image: Image.Image, notes: list[str]) -> tuple[bytes | None, int]:
    """EXIF with the orientation reset, and the orientation still to be applied."""
    try:
        tags = image.getexif()
        orientation = tags.get(_ORIENTATION, 1)
        if hasattr(image, "tag_v2"):
            return _tiff_exif(tags), 1
        raw = image.info.get("exif")
        if raw is None and "Raw profile type exif" in image.info:
            raw = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
        return _reset_orientation(raw) if raw else None, orientation
    except _PILLOW_ERRORS:
        notes.append("unreadable EXIF dropped")
        return None, 1


def _tiff_exif(tags: Image.Exif) -> bytes | None:
    kept = Image.Exif()
    for tag in _TIFF_TEXT_TAGS:
        if tag in tags:
            kept[tag] = tags[tag]
    for folder in _TIFF_FOLDER_TAGS:
        if content := tags.get_ifd(folder):
            kept.get_ifd(folder).update(content)
            kept[folder] = 0  # replaced by the folder's offset as it is written
    return kept.tobytes()[6:] if len(kept) else None


def _reset_orientation(exif: bytes) -> bytes:
    # In place: writing EXIF anew would break maker notes, whose offsets count from its start.
    while exif.startswith(b"Exif\x00\x00"):
        exif = exif[6:]
    order = ">" if exif.startswith(b"MM") else "<"
    (folder,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, folder)
    for entry in range(folder + 2, folder + 2 + 12 * count, 12):
        if struct.unpack_from(order + "H", exif, entry) == (_ORIENTATION,):
            return exif[: entry + 2] + struct.pack(order + "HIHH", 3, 1, 1, 0) + exif[entry + 12 :]
    return exif


def _icc(image: Image.Image, notes: list[str]) -> bytes | None:
    icc: bytes | None = image.info.get("icc_profile")
    if "icc_profile" in image.info and (not icc or len(icc) < 128 or icc[36:40] != b"acsp"):
        notes.append("unreadable ICC profile dropped")
        return None
    return icc


def _note_dropped(image: Image.Image, notes: list[str]) -> None:
    info = image.info
    if image.format == "MPO":
        notes.append(f"first of {getattr(image, 'n_frames', 'several')} pictures in the file taken")
    if any(b"hdrgm:Version=" in content for name, content in getattr(image, "applist", []) if name == "APP1"):
        notes.append("HDR gain map dropped")
    if "xmp" in info or "XML:com.adobe.xmp" in info:
        notes.append("XMP dropped")
    if "comment" in info or any(name != "XML:com.adobe.xmp" for name in getattr(image, "text", {})):
        notes.append("text comments dropped")
    if "gamma" in info and not {"icc_profile", "srgb"} & info.keys():
        notes.append(f"gamma {info['gamma']:.5g} dropped")


def _from_cmyk(image: Image.Image, icc: bytes | None, notes: list[str]) -> tuple[Image.Image, None]:
    if icc is not None and icc[16:20] == b"CMYK":
        converted = _to_srgb(image, icc)
        if converted is not None:
            notes.append("CMYK converted to sRGB")
            return converted, None
    notes.append("CMYK without a usable profile converted to RGB")
    return image.convert("RGB"), None


def _without_alpha(image: Image.Image, notes: list[str]) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    if rgba.getchannel("A").getextrema()[0] != 255:
        raise ImageError(
            "is transparent in places, which the codecs cannot keep; flatten it over white first"
        )
    notes.append("fully opaque alpha dropped")
    return rgba.convert("RGB")


def _fit_profile(
    rgb: Image.Image, grey: bool, icc: bytes | None, notes: list[str]
) -> tuple[Image.Image, bytes | None]:
    space = b"RGB " if icc is None else icc[16:20]
    if icc is None or space == b"RGB ":
        return rgb, icc
    if grey and space == b"GRAY":
        converted = _to_srgb(rgb.getchannel(0), icc)
        if converted is not None:
            notes.append("grey profile converted to sRGB")
            return converted, None
    notes.append(f"ICC profile for {space.decode('ascii', 'replace').strip()} dropped, it does not fit RGB")
    return rgb, None


def _to_srgb(image: Image.Image, icc: bytes) -> Image.Image | None:
    try:
        return ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(icc)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.PERCEPTUAL,
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _from_array(array: NDArray[Any]) -> Picture:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(
            f"is an array of shape {array.shape} and dtype {array.dtype}; give (height, width, 3) uint8 RGB"
        )
    _check_size(array.shape[1], array.shape[0])
    return Picture(np.array(array, order="C"), None, None, ())


def _from_tensor(tensor: torch.Tensor) -> Picture:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise ImageError(f"is a {type(tensor).__name__}; give a Pillow image, a NumPy array or a tensor")
    if not tensor.is_floating_point() or tensor.ndim != 3 or tensor.shape[0] != 3:
        shape = tuple(tensor.shape)
        raise ImageError(
            f"is a tensor of shape {shape} and {tensor.dtype}; give (3, height, width) floats in 0…1"
        )
    _check_size(tensor.shape[2], tensor.shape[1])
    values = tensor.detach().to("cpu", torch.float32)
    if not bool(((values >= 0) & (values <= 1)).all()):  # also catches NaN
        raise ImageError("has values that are not in 0…1; clamp them first")
    scaled = values * 255
    rounded = scaled.round()
    moved = float((scaled - rounded).abs().max())
    notes = ("rounded to 8 bits per channel",) if moved > 0.07 else ()
    return Picture(rounded.to(torch.uint8).permute(1, 2, 0).contiguous().numpy(), None, None, notes)
