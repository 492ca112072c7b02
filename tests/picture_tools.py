"""Pictures and files for the tests of reading: small ones, and such as Pillow would not write."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from lof.errors import ImageError
from lof.pictures.reading import read_picture

RGB = np.random.default_rng(1).integers(0, 256, (13, 17, 3), dtype=np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:240:13j, 0:255:17j], 128), axis=-1).round().astype(np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def raw_png(
    size: tuple[int, int], depth: int, colour: int, rows: bytes, extra: bytes = b"", interlaced: bool = False
) -> bytes:
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced)
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def raw_tiff(bits: tuple[int, ...], extra_samples: int, strip: bytes) -> bytes:
    """A 2×1 uncompressed little-endian RGB TIFF, byte by byte."""
    entries = [
        (256, 2),
        (257, 1),
        (259, 1),
        (262, 2),
        (273, 8),
        (277, len(bits)),
        (278, 1),
        (279, len(strip)),
    ]
    at = 8 + len(strip)
    directory = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries]
    directory.append(struct.pack("<HHII", 258, 3, len(bits), at))
    if extra_samples:
        directory.append(struct.pack("<HHIHH", 338, 3, 1, 0, 0))
    directory.sort(key=lambda entry: struct.unpack_from("<H", entry))
    samples = struct.pack(f"<{len(bits)}H", *bits)
    body = struct.pack("<H", len(directory)) + b"".join(directory) + bytes(4)
    return b"II*\0" + struct.pack("<I", at + len(samples)) + strip + samples + body


def profile(space: bytes) -> bytes:
    """A profile that is well-formed as far as its header goes."""
    return SRGB[:16] + space + SRGB[20:]


def grey_profile(gamma: float) -> bytes:
    """A valid grey ICC v2 profile with a pure gamma curve."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    tags = struct.pack(">I4sII4sII", 2, b"kTRC", 156, len(curve), b"wtpt", 156 + len(curve), len(white))
    body = tags + curve + white
    header = struct.pack(">I4sI4s4s4s", 128 + len(body), b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + body


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x010F] = "Maker"
    tags[0x0112] = orientation
    tags.get_ifd(0x8769)[0x829A] = 0.5
    tags[0x8769] = 0
    return tags


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_picture(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message
    assert "\n" not in message
    return message


def outcome(path: Path) -> np.ndarray | None:
    """The pixels, or ``None`` for one clear error; whatever else is raised fails the test."""
    try:
        return read_picture(path).pixels
    except ImageError:
        refusal(path)
        return None


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path
