"""Pictures out: image files with what their boxes say."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Final

from PIL import Image

from lof.errors import ImageError
from lof.pictures.metadata import INCH, IPTC_RESOURCE, IPTC_TAG, PHOTOSHOP, XMP_TAG
from lof.pictures.picture import BOX_NAMES, EXIF, ICC, IPTC, RESOLUTION, XMP, Picture
from lof.pictures.refusing import PILLOW_ERRORS

_SEGMENT: Final = 65000
"""Bytes that a segment of a JPEG holds beside its own name."""
_DAMAGED: Final = "its metadata are damaged ({}); copy it again from its source"
_HELD: Final = {
    "PNG": frozenset(BOX_NAMES),
    "JPEG": frozenset(BOX_NAMES),
    "TIFF": frozenset(BOX_NAMES),
    "WEBP": frozenset({ICC, EXIF, XMP}),
    "BMP": frozenset({RESOLUTION}),
}


def png_bytes(picture: Picture) -> bytes:
    """The picture as a lossless PNG file with all of its boxes."""
    return image_bytes(picture, "PNG")


def image_bytes(picture: Picture, format: str, **options: Any) -> bytes:
    """The picture as an image file, with those of its boxes that the format can hold: see :func:`not_held`.

    Args:
        format: ``PNG``, ``JPEG``, ``TIFF``, ``WEBP`` or ``BMP``.
        options: what Pillow's writer of the format takes, for example ``quality``.

    Raises:
        ImageError: a box does not hold what it should.
    """
    missing = not_held(picture, format)
    boxes = {kind: data for kind, data in picture.boxes.items() if kind not in missing}
    if ICC in boxes:
        options["icc_profile"] = boxes[ICC]
    try:
        across, down, unit = struct.unpack(">IIB", boxes.get(RESOLUTION, bytes(9)))
    except struct.error:
        raise ImageError(_DAMAGED.format("resolution")) from None
    if unit and format != "PNG":
        options["dpi"] = (across * INCH, down * INCH)
    if format == "TIFF":
        tags = Image.Exif()
        try:
            tags.load(boxes.get(EXIF, b""))
        except PILLOW_ERRORS:
            raise ImageError(_DAMAGED.format("EXIF")) from None
        tags.update({tag: boxes[kind] for kind, tag in ((XMP, XMP_TAG), (IPTC, IPTC_TAG)) if kind in boxes})
        options["exif"] = tags
    elif EXIF in boxes:
        options["exif"] = b"Exif\0\0" + boxes[EXIF] if format == "JPEG" else boxes[EXIF]
    if XMP in boxes and format in ("JPEG", "WEBP"):
        options["xmp"] = boxes[XMP]
    if IPTC in boxes and format == "JPEG":
        segment = PHOTOSHOP + _iptc_resource(boxes[IPTC])
        options["extra"] = b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment
    buffer = io.BytesIO()
    Image.fromarray(picture.pixels).save(buffer, format, **options)
    return _with_png_chunks(buffer.getvalue(), boxes) if format == "PNG" else buffer.getvalue()


def not_held(picture: Picture, format: str) -> list[bytes]:
    """The boxes of a picture that have no place in a file of the format."""
    return [kind for kind, data in picture.boxes.items() if not is_held(kind, data, format)]


def is_held(kind: bytes, data: bytes, format: str) -> bool:
    """Whether a box has a place in a file of the format."""
    if kind not in _HELD[format] or (format == "JPEG" and kind != ICC and len(data) > _SEGMENT):
        return False
    return format == "PNG" or kind != RESOLUTION or data.endswith(b"\1")


def _with_png_chunks(data: bytes, boxes: dict[bytes, bytes]) -> bytes:
    # Pillow's writer takes XMP as text only, and no resolution without a unit.
    chunks = b""
    if RESOLUTION in boxes:
        chunks += _chunk(b"pHYs", boxes[RESOLUTION])
    if XMP in boxes:
        chunks += _chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + boxes[XMP])
    if IPTC in boxes:  # as ImageMagick and ExifTool have it
        resource = _iptc_resource(boxes[IPTC])
        text = f"\niptc\n{len(resource):8d}\n{resource.hex()}\n".encode()
        chunks += _chunk(b"zTXt", b"Raw profile type iptc" + bytes(2) + zlib.compress(text))
    header = 8 + 12 + 13  # signature and IHDR
    return data[:header] + chunks + data[header:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _iptc_resource(data: bytes) -> bytes:
    return IPTC_RESOURCE + struct.pack(">I", len(data)) + data + bytes(len(data) % 2)
