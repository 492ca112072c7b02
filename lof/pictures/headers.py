"""What Pillow does not tell of a file, read from the file itself: bits per channel, missing rows, what is dropped."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO

from PIL import Image

from lof.errors import ImageError

_BITS_PER_SAMPLE = 258  # a TIFF's tag
_HEAD = 2**16  # bytes of an AVIF file in which its description is searched
_STEP = 2**20
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its colour type
_SRGB_TRANSFERS = frozenset({1, 2, 6, 13, 14, 15})  # of ITU-T H.273: sRGB, BT.709 and what is read like them
_BT709_PRIMARIES = frozenset({1, 2})
_DROPPED_CHUNKS = {b"tIME": "time of the last change", b"sBIT": "significant bits", b"sPLT": "palette"}
_MOST_NAMES = 8
_JP2_IGNORED = frozenset({b"jP  ", b"ftyp", b"jp2h", b"jp2c"})


def bits_per_channel(image: Image.Image) -> int:
    """Bits of the deepest channel in the file; Pillow gives 8 of them even where there are more.

    To be asked before the pixels are decoded.
    """
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 8)
    deepest = max(bits) if isinstance(bits, tuple) else bits
    if image.format == "PNG" and ";16" in raw_mode(image):
        return 16
    if image.format == "PPM" and image.tile and isinstance(image.tile[0][3], tuple):  # type: ignore[attr-defined]
        return int(image.tile[0][3][-1]).bit_length()  # type: ignore[attr-defined]  # the greatest value
    if image.format == "JPEG2000":
        return _bits_of_codestream(_start(image))
    if image.format == "AVIF":
        _, found, box = _start(image).partition(b"av1C")
        return 8 if not found or not box[2] & 0x40 else 10  # or 12, which makes no difference here
    return max(int(deepest), int(image.info.get("bit_depth", 8)))


def raw_mode(image: Image.Image) -> str:
    """The layout of the pixels in the file, as Pillow calls it; empty once they are decoded."""
    tiles = getattr(image, "tile", None)
    layout = tiles[0][3] if tiles else ""
    return str(layout[0] if isinstance(layout, tuple) and layout else layout)


def check_png_rows(image: Image.Image) -> None:
    """Refuse a PNG whose data ends before its last row; Pillow leaves those rows black.

    Raises:
        ImageError: rows are missing.
    """
    file: IO[bytes] | None = getattr(image, "fp", None)
    if image.format != "PNG" or file is None:
        return
    before = file.tell()
    try:
        chunks = png_chunks(file)
        file.seek(next(chunks)[1])
        width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", file.read(13))
        passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
        rows = []  # bytes of each, with the byte that names its filter
        for left, top, across, down in passes:
            columns, lines = (width - left + across - 1) // across, (height - top + down - 1) // down
            if columns > 0 and lines > 0:
                rows.append((lines, 1 + (columns * depth * _CHANNELS[colour] + 7) // 8))
        needed = sum(lines * size for lines, size in rows)
        there = sum(_inflated(file, chunks, needed))
        if there < needed:
            raise ImageError(
                f"damaged or cut short ({there} of {needed} bytes of pixels are there); "
                "replace it with the complete image"
            )
    finally:
        file.seek(before)


def png_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Kind, place and length of every chunk of a PNG; whatever is behind its end is none."""
    place, kind = 8, b""
    while kind != b"IEND":
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield kind, place + 8, length
        place += 12 + length


def dropped_by_pillow(image: Image.Image) -> list[str]:
    """What a PNG, AVIF or JPEG 2000 file says that neither Pillow nor a box keeps, as notes.

    To be asked before the pixels are decoded.
    """
    if getattr(image, "fp", None) is None:
        return []
    if image.format == "PNG":
        kinds = _png_kinds(image)
        notes = [f"{what} dropped" for kind, what in _DROPPED_CHUNKS.items() if kind in kinds]
        cicp = kinds.get(b"cICP")
        return notes + _colour_note(struct.unpack(">BB", cicp[:2]) if cicp else None)
    if image.format == "AVIF":
        _, found, box = _start(image).partition(b"colrnclx")
        return _colour_note(struct.unpack_from(">HH", box) if found else None)
    if image.format == "JPEG2000":
        others = {kind for kind, _ in iso_boxes(_start(image))} - _JP2_IGNORED
        return [f"boxes of JPEG 2000 dropped ({_names(others)})"] if others else []
    return []


def jp2_profile(image: Image.Image) -> bytes | None:
    """The ICC profile of a JPEG 2000 file, which Pillow does not read."""
    if image.format != "JPEG2000" or getattr(image, "fp", None) is None:
        return None
    header = next((content for kind, content in iso_boxes(_start(image)) if kind == b"jp2h"), b"")
    colours = (content for kind, content in iso_boxes(header) if kind == b"colr")
    return next((content[3:] for content in colours if content[:1] in (b"\2", b"\3")), None)


def iso_boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the boxes that JPEG 2000 files and their like consist of."""
    place = 0
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        start = place + 8
        if length == 1 and start + 8 <= len(data):
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = len(data) if length == 0 else place + length
        if end < start:
            return
        yield kind, data[start:end]
        place = end


def _png_kinds(image: Image.Image) -> dict[bytes, bytes]:
    file: IO[bytes] = image.fp  # type: ignore[attr-defined]
    before = file.tell()
    try:
        found = {}
        for kind, place, _ in islice(png_chunks(file), 10**6):
            file.seek(place)
            found[kind] = file.read(2)
        return found
    finally:
        file.seek(before)


def _inflated(file: IO[bytes], chunks: Iterable[tuple[bytes, int, int]], enough: int) -> Iterator[int]:
    """Bytes that the pixels of a PNG unpack to, a part at a time."""
    inflate = zlib.decompressobj()
    total = 0
    for kind, place, length in chunks:
        if kind != b"IDAT":
            continue
        file.seek(place)
        for start in range(0, length, _STEP):
            packed = file.read(min(_STEP, length - start))
            while packed and total < enough and not inflate.eof:
                part = len(inflate.decompress(packed, _STEP))
                packed = inflate.unconsumed_tail
                total += part
                yield part


def _start(image: Image.Image) -> bytes:
    file: IO[bytes] = image.fp  # type: ignore[attr-defined]
    before = file.tell()
    try:
        file.seek(0)
        return file.read() if image.format == "JPEG2000" else file.read(_HEAD)
    finally:
        file.seek(before)


def _bits_of_codestream(data: bytes) -> int:
    _, found, size = data.partition(b"\xff\x4f\xff\x51")
    if not found or len(size) < 38:
        return 8
    (count,) = struct.unpack_from(">H", size, 36)
    return max(((size[38 + 3 * index] & 0x7F) + 1 for index in range(count)), default=8)


def _colour_note(primaries_and_transfer: tuple[int, ...] | None) -> list[str]:
    if primaries_and_transfer is None:
        return []
    primaries, transfer = primaries_and_transfer
    if primaries in _BT709_PRIMARIES and transfer in _SRGB_TRANSFERS:
        return []
    return [f"colour description (primaries {primaries}, transfer {transfer}) dropped"]


def _names(kinds: set[bytes]) -> str:
    more = f" and {len(kinds) - _MOST_NAMES} more" if len(kinds) > _MOST_NAMES else ""
    return ", ".join(map(shown, sorted(kinds)[:_MOST_NAMES])) + more


def shown(kind: bytes) -> str:
    """Four letters of a file, or what stands in their place, fit to be read."""
    text = kind.decode("latin-1").strip()
    return text if text.isascii() and text.isprintable() else kind.hex()
