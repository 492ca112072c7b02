"""What a file says beside its pixels: taken as boxes, or noted as dropped."""

from __future__ import annotations

import re
import struct

from PIL import Image

from lof.pictures.picture import EXIF, ICC, IPTC, RESOLUTION, XMP
from lof.pictures.refusing import PILLOW_ERRORS

ORIENTATION = 0x0112
INCH = 0.0254
PHOTOSHOP = b"Photoshop 3.0\0"
IPTC_RESOURCE = b"8BIM\x04\x04\0\0"
XMP_TAG, IPTC_TAG = 700, 33723

# The tags of a TIFF that tell about the picture and go into EXIF, those that tell how that file stores it, and
# those that have boxes of their own. Whatever else is there is dropped with a note.
_TIFF_TEXT_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
_TIFF_FOLDER_TAGS = (0x8769, 0x8825)  # EXIF, GPS
_TIFF_LAYOUT_TAGS = frozenset(
    {254, 255, *range(256, 260), 262, 263, 266, 273, 274, *range(277, 285), 290, 291, 292, 293, 296, 297, 317}
    | {320, *range(322, 326), 338, 339, 340, 341, 347, *range(512, 522), 529, 530, 531, 532}
)
_TIFF_BOX_TAGS = frozenset({XMP_TAG, IPTC_TAG, 34377, 34675})
_JPEG_SEGMENTS = {
    "APP0": (b"JFIF\0", b"JFXX\0"),
    "APP1": (b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0"),
    "APP2": (b"ICC_PROFILE\0", b"MPF\0"),
    "APP13": (PHOTOSHOP,),
    "APP14": (b"Adobe",),
}
_IPTC_RESOURCES = frozenset({0x0404, 0x0425})  # the data and its digest
_XMP_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))[0-9]')


def take_boxes(image: Image.Image, notes: list[str], turned: int = 1) -> tuple[dict[bytes, bytes], int]:
    """The boxes of an image that has been decoded, and the orientation that is still to be applied.

    Args:
        turned: the orientation that Pillow has applied already.
    """
    exif, orientation = _exif(image, notes)
    taken = {
        ICC: _icc(image, notes),
        EXIF: exif,
        XMP: _xmp(image, notes),
        IPTC: _iptc(image),
        RESOLUTION: _resolution(image, max(orientation, turned) >= 5),
    }
    _note_dropped(image, notes)
    return {kind: data for kind, data in taken.items() if data}, orientation


def _exif(image: Image.Image, notes: list[str]) -> tuple[bytes | None, int]:
    """EXIF with the orientation reset, and the orientation still to be applied."""
    try:
        tags = image.getexif()
        orientation = tags.get(ORIENTATION, 1)
        if hasattr(image, "tag_v2"):
            return _tiff_exif(tags), 1
        raw = image.info.get("exif")
        if raw is None and "Raw profile type exif" in image.info:
            raw = _raw_profile(image.info["Raw profile type exif"])
        valid = isinstance(orientation, int) and 1 <= orientation <= 8
        return _reset_orientation(raw) if raw else None, orientation if valid else 1
    except PILLOW_ERRORS:
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
        if struct.unpack_from(order + "H", exif, entry) == (ORIENTATION,):
            return exif[: entry + 2] + struct.pack(order + "HIHH", 3, 1, 1, 0) + exif[entry + 12 :]
    return exif


def _icc(image: Image.Image, notes: list[str]) -> bytes | None:
    icc: bytes | None = image.info.get("icc_profile")
    if "icc_profile" in image.info and (not icc or len(icc) < 128 or icc[36:40] != b"acsp"):
        notes.append("unreadable ICC profile dropped")
        return None
    return icc


def _xmp(image: Image.Image, notes: list[str]) -> bytes | None:
    xmp = image.info.get("xmp")
    if xmp is not None and not isinstance(xmp, bytes):
        notes.append("unreadable XMP dropped")
        return None
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp.rstrip(b"\0")) if xmp else None


def _iptc(image: Image.Image) -> bytes | None:
    if hasattr(image, "tag_v2"):
        # As it stands in the file: some writers call the bytes integers, of which Pillow would give the first.
        data = image.tag_v2._tagdata.get(IPTC_TAG)
        return data if isinstance(data, bytes) else None
    for name in ("Raw profile type iptc", "Raw profile type 8bim"):
        if name in image.info:
            try:
                data = _raw_profile(image.info[name])
            except ValueError:
                return None
            _, found, resource = data.partition(IPTC_RESOURCE)
            return resource[4 : 4 + int.from_bytes(resource[:4])] if found else data
    data = image.info.get("photoshop", {}).get(0x0404)
    return data if isinstance(data, bytes) else None


def _raw_profile(text: str) -> bytes:
    """ImageMagick's way to keep bytes in the text of a PNG: a name, their number, then hexadecimal digits."""
    return bytes.fromhex("".join(text.split("\n")[3:]))


def _resolution(image: Image.Image, turned: bool) -> bytes | None:
    across_down, unit = _density(image)
    try:
        values = [round(value / INCH) if unit else value for value in across_down]
        if not unit and values[0] == values[1]:
            return None  # nothing but: pixels are square
        if not all(value == int(value) for value in values):
            values = [1000 * value for value in values]
        if not all(1 <= value < 2**32 for value in values):
            return None
        across, down = (round(value) for value in (reversed(values) if turned else values))
    except (TypeError, ValueError, ArithmeticError):  # rational numbers of a TIFF may be 0/0
        return None
    return struct.pack(">IIB", across, down, unit)


def _density(image: Image.Image) -> tuple[tuple[float, float], int]:
    """Pixels per inch across and down and 1, or the shape of a pixel and 0."""
    info = image.info
    if image.format in ("JPEG", "MPO"):  # else Pillow takes it from EXIF, which is kept
        if info.get("jfif_unit") == 0:
            return info["jfif_density"], 0
        if "jfif_unit" not in info:
            return (1, 1), 0
    if hasattr(image, "tag_v2") and 0x011A not in image.tag_v2:
        return (1, 1), 0
    if "dpi" in info:
        return info["dpi"], 1
    return info.get("aspect") or info.get("resolution") or (1, 1), 0


def _note_dropped(image: Image.Image, notes: list[str]) -> None:
    info = image.info
    segments = getattr(image, "applist", [])
    if any(b"hdrgm:Version=" in content for name, content in segments if name == "APP1"):
        notes.append("HDR gain map dropped")
    others = {
        name
        for name, content in segments
        if name != "COM" and not content.startswith(_JPEG_SEGMENTS.get(name, ()))
    }
    if others:
        notes.append(f"JPEG segments dropped ({', '.join(sorted(others))})")
    tags = getattr(image, "tag_v2", {})
    kept = {*_TIFF_TEXT_TAGS, *_TIFF_FOLDER_TAGS, *_TIFF_LAYOUT_TAGS, *_TIFF_BOX_TAGS}
    if others := {str(tag) for tag in tags if tag not in kept}:
        notes.append(f"TIFF tags dropped ({', '.join(sorted(others))})")
    if 34377 in tags or info.get("photoshop", {}).keys() - _IPTC_RESOURCES:
        notes.append("Photoshop data dropped")
    if "comment" in info or any(
        name != "XML:com.adobe.xmp" and not name.startswith("Raw profile type ")
        for name in getattr(image, "text", {})
    ):
        notes.append("text comments dropped")
    if not {"icc_profile", "srgb"} & info.keys():
        if "gamma" in info:
            notes.append(f"gamma {info['gamma']:.5g} dropped")
        if "chromaticity" in info:
            notes.append("chromaticities dropped")
