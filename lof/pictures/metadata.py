"""What a file says beside its pixels: taken as boxes, or noted as dropped."""

from __future__ import annotations

import struct

from PIL import Image

from lof.pictures.refusing import PILLOW_ERRORS

ORIENTATION = 0x0112
# The tags of a TIFF that describe the picture; the others describe how that file stores it.
_TIFF_TEXT_TAGS = (0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298)
_TIFF_FOLDER_TAGS = (0x8769, 0x8825)  # EXIF, GPS


def take_exif(image: Image.Image, notes: list[str]) -> tuple[bytes | None, int]:
    """EXIF with the orientation reset, and the orientation still to be applied."""
    try:
        tags = image.getexif()
        orientation = tags.get(ORIENTATION, 1)
        if hasattr(image, "tag_v2"):
            return _tiff_exif(tags), 1
        raw = image.info.get("exif")
        if raw is None and "Raw profile type exif" in image.info:
            raw = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
        return _reset_orientation(raw) if raw else None, orientation
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


def take_icc(image: Image.Image, notes: list[str]) -> bytes | None:
    """The ICC profile, unless it is none."""
    icc: bytes | None = image.info.get("icc_profile")
    if "icc_profile" in image.info and (not icc or len(icc) < 128 or icc[36:40] != b"acsp"):
        notes.append("unreadable ICC profile dropped")
        return None
    return icc


def note_dropped(image: Image.Image, notes: list[str]) -> None:
    """Name what no box can keep."""
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
