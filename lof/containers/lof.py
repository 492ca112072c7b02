"""The compact container: one compressed image as bytes. Needs nothing but the standard library.

A file of version 1, in order and without padding (varints are explained below)::

    bytes   field
    3       magic: C1 6F 66 (C1 occurs in no UTF-8 text, so no text file starts like this)
    1       version: 1
    varint  codec: a number of CODEC_NUMBERS, or 0 if its name follows:
            varint n (1..64), then n bytes of name (A-Z a-z 0-9 . _ -); only for names without a number
    1       quality: 1..255
    1       bits 0..3: number of strings minus 1; bit 4: metric (0 mse, 1 ms-ssim); bits 5..7: 0
    4       fingerprint: the first bytes of the SHA-256 over the codec's weights
    varint  height of the image in pixels: 1..65535
    varint  width of the image in pixels: 1..65535 (height × width at most 2^28)
    ...     the strings, in the codec's order, each: varint n, then n bytes
    ...     the boxes, until four bytes before the end of the file, each:
            4 bytes kind (A-Z a-z 0-9), varint n, then n bytes; no kind twice, at most 64 boxes
    4       CRC-32 (the one of zlib, PNG and Ethernet) of all bytes before it, little-endian

A varint is an unsigned LEB128 number below 2^32: groups of seven bits, the lowest group first, one per byte;
the top bit of a byte says that another follows; always the shortest form.

Each :class:`Stream` has exactly one such byte sequence: whatever :func:`read` accepts, :func:`write` gives
back byte for byte. CODEC_NUMBERS is part of version 1: another entry would give an old name a second
spelling, so it needs a new version. The latent shape is not stored: it follows from the image size and the
codec's stride.

For lof's own codecs the strings are those of CompressAI's ``compress``, of the image padded to multiples of
64 pixels: half on each side, the odd pixel at the bottom and right. A decoder gives them to ``decompress``
with the padded size divided by the stride (64; for bmshj2018-factorized 16), crops what it gets, and rounds
255·x to the nearest integer. ``tests/standalone_decoder.py`` is such a decoder, made of CompressAI alone. Codecs
whose names begin with ``msp-`` have a single string and pad to multiples of 16: ``lof/codecs/msp/FORMAT.md``.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from lof.errors import StreamError

MAGIC: Final = b"\xc1of"
VERSION: Final = 1
CODEC_NUMBERS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "mean-scale-96": 1,
        "bmshj2018-factorized": 2,
        "bmshj2018-hyperprior": 3,
        "mbt2018-mean": 4,
        "mbt2018": 5,
        "tiny": 15,
    }
)
METRICS: Final = ("mse", "ms-ssim")

MAX_SIDE: Final = 65535
MAX_PIXELS: Final = 2**28
MAX_STRINGS: Final = 16
MAX_BOXES: Final = 64
OVERHEAD_LIMIT: Final = 32
"""Bytes over the strings, at most, of a file of one or two strings, a numbered codec and no boxes."""

# CompressAI's rANS coder has 16-bit probabilities, so no latent element costs less than -log2(1 - 2^-16) =
# 2.2e-5 bits. With M elements per 16×16 pixels, one byte then covers at most 9.3e7/M pixels: 730,000 for M =
# 128, and below 2^20 for every M from 89 on, however flat the image. The spare bytes leave all images up to
# 16 million pixels to the decoder. Without this bound, a forged header of 30 bytes makes a decoder allocate
# 50 gigabytes.
_PIXELS_PER_BYTE: Final = 2**20
_SPARE_BYTES: Final = 16

_VARINT_LIMIT: Final = 2**32
_NAMES: Final = {number: name for name, number in CODEC_NUMBERS.items()}
_NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KIND_PATTERN: Final = re.compile(rb"[A-Za-z0-9]{4}")
_HEAD: Final = len(MAGIC) + 1
_CRC_SIZE: Final = 4


@dataclass(frozen=True)
class Box:
    """Something beside the image: four ASCII letters or digits (``b"ICCP"``, ``b"EXIF"``), and its bytes."""

    kind: bytes
    data: bytes


@dataclass(frozen=True)
class Stream:
    """What a file says.

    Attributes:
        codec: name in the registry; 1 to 64 of ``A-Z a-z 0-9 . _ -``.
        quality: rate point of the codec, 1..255.
        metric: what the codec was trained for, ``"mse"`` or ``"ms-ssim"``.
        fingerprint: first 4 bytes of the SHA-256 over the codec's weights.
        height: rows of the image in pixels, 1..65535.
        width: columns of the image in pixels, 1..65535.
        strings: the codec's own 1 to 16 strings, in the codec's order.
        boxes: at most 64, no kind twice; those of an unknown kind are kept as they are.
    """

    codec: str
    quality: int
    metric: str
    fingerprint: bytes
    height: int
    width: int
    strings: tuple[bytes, ...]
    boxes: tuple[Box, ...] = ()


class Cursor:
    """Hands out ``data[start:end]`` in order; asking for more than is there is a :class:`StreamError`."""

    def __init__(self, data: bytes, name: str, start: int = 0, end: int | None = None) -> None:
        self._data, self._name, self._at = data, name, start
        self._end = len(data) if end is None else end

    @property
    def left(self) -> int:
        """Bytes not handed out yet."""
        return self._end - self._at

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if size > self.left:
            raise StreamError(
                f"{self._name}: is cut short ({size} bytes wanted at byte {self._at}, {self.left} left); "
                "copy it again from its source"
            )
        self._at += size
        return self._data[self._at - size : self._at]

    def varint(self) -> int:
        """The next varint, 0..2^32 - 1."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= _VARINT_LIMIT or (byte == 0 and shift > 0):
                    break
                return value
        raise _malformed(self._name, f"the number before byte {self._at} is not in its shortest form")


def is_stream(head: bytes) -> bool:
    """Whether a file that starts with ``head`` (3 bytes suffice) is one of these, of whatever version."""
    return head.startswith(MAGIC)


def write(stream: Stream, name: str = "stream") -> bytes:
    """The file that holds ``stream``.

    Raises:
        StreamError: a field is out of range; the message starts with ``name``.
    """
    _check(stream, name)
    flags = len(stream.strings) - 1 | METRICS.index(stream.metric) << 4
    parts = [MAGIC, bytes([VERSION]), _codec_bytes(stream.codec), bytes([stream.quality, flags])]
    parts += [stream.fingerprint, _varint(stream.height), _varint(stream.width)]
    for string in stream.strings:
        parts += [_varint(len(string)), string]
    for box in stream.boxes:
        parts += [box.kind, _varint(len(box.data)), box.data]
    body = b"".join(parts)
    return body + zlib.crc32(body).to_bytes(_CRC_SIZE, "little")


def read(data: bytes, name: str = "stream") -> Stream:
    """What the file ``data`` says; never allocates more than a small multiple of ``len(data)``.

    Raises:
        StreamError: ``data`` is no such file, of a newer version, damaged, cut short or absurd; the message
            is one line that starts with ``name``.
    """
    _check_frame(data, name)
    cursor = Cursor(data, name, start=_HEAD, end=len(data) - _CRC_SIZE)
    codec = _read_codec(cursor, name)
    quality, flags = cursor.take(2)
    if flags >> 5:
        raise _malformed(name, f"the reserved bits of its flags ({flags:#04x}) are not 0")
    fingerprint = cursor.take(4)
    height, width = cursor.varint(), cursor.varint()
    strings = tuple(cursor.take(cursor.varint()) for _ in range((flags & 15) + 1))
    boxes = _read_boxes(cursor, name)
    stream = Stream(codec, quality, METRICS[flags >> 4], fingerprint, height, width, strings, boxes)
    _check(stream, name)
    return stream


def check_size(height: int, width: int, string_bytes: int, name: str) -> None:
    """Refuse an image size out of range, or one that ``string_bytes`` bytes of strings cannot describe.

    Raises:
        StreamError: the message starts with ``name``.
    """
    size = f"{width} × {height} pixels"
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise StreamError(
            f"{name}: {size} are out of range (1 to {MAX_SIDE} a side, at most {MAX_PIXELS} in all); "
            "compress a smaller or cropped image"
        )
    if height * width > (string_bytes + _SPARE_BYTES) * _PIXELS_PER_BYTE:
        raise StreamError(
            f"{name}: {size} cannot come from {string_bytes} bytes of strings, so no encoder wrote this; "
            "compress the image again"
        )


def _check_frame(data: bytes, name: str) -> None:
    # The checksum comes before the fields: a damaged file must not be called one of an unknown codec.
    if not MAGIC.startswith(data[: len(MAGIC)]):
        raise StreamError(f"{name}: is not a lof file (its first bytes are not those of one); check the path")
    version = data[len(MAGIC)] if len(data) > len(MAGIC) else VERSION
    if version > VERSION:
        raise StreamError(
            f"{name}: has format version {version}, newer than this lof reads ({VERSION}); update lof"
        )
    end = len(data) - _CRC_SIZE
    if end < _HEAD or zlib.crc32(memoryview(data)[:end]) != int.from_bytes(data[end:], "little"):
        raise StreamError(
            f"{name}: is damaged or cut short (its checksum does not match); copy it again from its source"
        )
    if version != VERSION:
        raise _malformed(name, f"there is no format version {version}")


def _check(stream: Stream, name: str) -> None:
    if not _NAME_PATTERN.fullmatch(stream.codec):
        raise _malformed(name, f"the codec name {stream.codec!r} is not 1 to 64 of A-Z a-z 0-9 . _ -")
    if not 1 <= stream.quality <= 255:
        raise _malformed(name, f"quality {stream.quality} is not in 1..255")
    if stream.metric not in METRICS:
        raise _malformed(name, f"the metric {stream.metric!r} is not one of {', '.join(METRICS)}")
    if len(stream.fingerprint) != 4:
        raise _malformed(name, f"the fingerprint has {len(stream.fingerprint)} bytes instead of 4")
    if not 1 <= len(stream.strings) <= MAX_STRINGS:
        raise _malformed(name, f"it has {len(stream.strings)} strings instead of 1 to {MAX_STRINGS}")
    if any(len(data) >= _VARINT_LIMIT for data in (*stream.strings, *(box.data for box in stream.boxes))):
        raise _malformed(name, "a string or box has 4 GiB or more")
    check_size(stream.height, stream.width, sum(map(len, stream.strings)), name)
    _check_boxes(stream.boxes, name)


def _check_boxes(boxes: tuple[Box, ...], name: str) -> None:
    kinds = [box.kind for box in boxes]
    if len(kinds) > MAX_BOXES:
        raise _malformed(name, f"it has more than {MAX_BOXES} boxes")
    for index, kind in enumerate(kinds):
        if not _KIND_PATTERN.fullmatch(kind):
            raise _malformed(name, f"the box kind {kind!r} is not four ASCII letters or digits")
        if kind in kinds[:index]:
            raise _malformed(name, f"it has two boxes of the kind {kind.decode()}")


def _read_codec(cursor: Cursor, name: str) -> str:
    number = cursor.varint()
    if number > 0:
        if number not in _NAMES:
            raise StreamError(f"{name}: was made by codec number {number}, unknown to this lof; update lof")
        return _NAMES[number]
    size = cursor.varint()
    if not 1 <= size <= 64:
        raise _malformed(name, f"its codec name has {size} characters instead of 1 to 64")
    # Latin-1 maps each byte to one character, so that the check of the name sees what is there.
    codec = cursor.take(size).decode("latin-1")
    if codec in CODEC_NUMBERS:
        raise _malformed(name, f"it spells out the codec {codec}, which has a number")
    return codec


def _read_boxes(cursor: Cursor, name: str) -> tuple[Box, ...]:
    boxes: list[Box] = []
    while cursor.left:
        if len(boxes) == MAX_BOXES:
            raise _malformed(name, f"it has more than {MAX_BOXES} boxes")
        kind = cursor.take(4)
        boxes.append(Box(kind, cursor.take(cursor.varint())))
    return tuple(boxes)


def _codec_bytes(codec: str) -> bytes:
    if codec in CODEC_NUMBERS:
        return _varint(CODEC_NUMBERS[codec])
    return _varint(0) + _varint(len(codec)) + codec.encode("ascii")


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _malformed(name: str, what: str) -> StreamError:
    # Only a faulty writer gets here: a damaged file has failed its checksum before.
    return StreamError(f"{name}: {what}, so no lof wrote this; compress the image again")
