"""Our own container: one compressed image as bytes. Needs nothing but the standard library.

A file of version 2, in order and without padding (varints are explained below)::

    bytes   field
    3       magic: C1 6F 66 (C1 occurs in no UTF-8 text, so no text file starts like this)
    1       version: 2
    varint  codec: a number of CODEC_NUMBERS, or 0 if its name follows:
            varint n (1..64), then n bytes of name (A-Z a-z 0-9 . _ -); only for names without a number
    varint  quality in 64ths: 1..64000 (quality 1/64 to 1000)
    1       bits 0..3: number of strings minus 1; bit 4: metric (0 mse, 1 ms-ssim); bits 5..7: 0
    4       fingerprint: the first bytes of the SHA-256 over the codec's weights
    4       digest of the symbols: see lof/containers/digest.py
    varint  height of the image in pixels: 1..65535
    varint  width of the image in pixels: 1..65535 (height × width at most 2^28)
    ...     the strings, in the codec's order, each: varint n, then n bytes
    ...     the boxes, until four bytes before the end of the file, each:
            4 bytes kind (first A-Z a-z, then A-Z a-z 0-9), varint n, then n bytes;
            in ascending order of their kinds, no kind twice, at most 64 boxes
    4       CRC-32 (the one of zlib, PNG and Ethernet) of all bytes before it, little-endian

A varint is an unsigned LEB128 number below 2^32: groups of seven bits, the lowest group first, one per byte;
the top bit of a byte says that another follows; always the shortest form.

**Boxes** are of two kinds, as in PNG. Where the first letter is a capital, a decoder that does not know the box
must refuse the file; version 2 has no such box yet. Where it is small, a decoder may skip the box and still shows
the image; a program that copies a stream keeps it. Small ones in use::

    iccp    ICC profile of the pixels
    exif    EXIF as a TIFF block (II*… or MM…); its orientation tag is 1 or missing, for the pixels are upright
    xmpd    XMP packet, as XML
    iptc    IPTC-IIM records, as in the tag 33723 of TIFF
    reso    resolution, as in PNG's pHYs: pixels per unit across and down, each 4 bytes, big-endian, then 1 byte: 1 for
            the metre, 0 where the two give only the shape of a pixel

**Later versions.** The first three bytes never change and the fourth is the version. A decoder refuses every version
that it does not know, before it looks at anything behind it. Within version 2 only box kinds and codec numbers may be
added: a decoder meets a number or a capital box that it does not know, and says that it is too old. A number is never
given to a name that files may already spell out. Version 1 was never released.

**One byte sequence per stream.** Whatever is read is written back byte for byte. The latent shape is not stored: it
follows from the image size and the codec's stride.

**The strings** of mean-scale-96, tiny and the codecs of CompressAI's zoo are those of CompressAI's ``compress``, of
the image padded to multiples of 64 pixels: half on each side, the odd pixel at the bottom and right. A decoder gives
them to ``decompress`` with the padded size divided by the stride (64; for bmshj2018-factorized 16), crops what it
gets, and rounds 255·x to the nearest integer. ``tests/standalone_decoder.py`` is such a decoder, made of CompressAI
alone; it checks the digest too. Codecs whose names begin with ``msp-`` have a single string and pad to multiples of 16:
``lof/codecs/msp/FORMAT.md``. The strings of ``lapped`` and of ``jointiq`` are described in
``lof/codecs/lapped/FORMAT.md`` and ``lof/codecs/lapped/jointiq/FORMAT.md``.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from lof.containers.base import (
    KNOWN_PIXELS_PER_BYTE,
    MAX_PIXELS,
    METRICS,
    PIXELS_PER_BYTE,
    Container,
    Cursor,
    Stream,
    check_size,
)
from lof.errors import StreamError

MAGIC: Final = b"\xc1of"
VERSION: Final = 2
CODEC_NUMBERS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "mean-scale-96": 1,
        "bmshj2018-factorized": 2,
        "bmshj2018-hyperprior": 3,
        "mbt2018-mean": 4,
        "mbt2018": 5,
        "msp-fast": 6,
        "msp-base": 7,
        "msp-high": 8,
        "bmshj2018-factorized-relu": 9,
        "cheng2020-anchor": 10,
        "cheng2020-attn": 11,
        "msp-tiny": 14,
        "tiny": 15,
        # No file of version 2 spells these names out.
        "lapped": 16,
        "jpeg": 17,
        "lapped-tiny": 18,
        "jpeg-descriptors": 19,
        "jpeg-descriptors-tiny": 20,
        "jointiq": 21,
        "jointiq-tiny": 22,
    }
)
CRITICAL_BOXES: Final[frozenset[bytes]] = frozenset()
"""The kinds with a capital first letter that this version of lof understands."""

QUALITY_UNIT: Final = 64
MAX_QUALITY: Final = 1000
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Names of codecs."""
MAX_STRINGS: Final = 16
MAX_BOXES: Final = 64

_VARINT_LIMIT: Final = 2**32
_NAMES: Final = {number: name for name, number in CODEC_NUMBERS.items()}
_KIND_PATTERN: Final = re.compile(rb"[A-Za-z][A-Za-z0-9]{3}")
_HEAD: Final = len(MAGIC) + 1
_CRC_SIZE: Final = 4


class LofContainer(Container):
    """Holds the streams of every codec, and metadata."""

    name = "lof"
    summary = "lof's own format"
    suffix = ".lof"
    codecs = "all codecs"
    checksum = True

    def recognises(self, head: bytes) -> bool:
        """See :meth:`Container.recognises`; 3 bytes suffice, whatever the version."""
        return head.startswith(MAGIC)

    def holds(self, codec: str) -> bool:
        """See :meth:`Container.holds`."""
        return True

    def keeps(self, kind: bytes, data: bytes) -> bool:
        """See :meth:`Container.keeps`: all that a decoder may skip, and what this version understands."""
        return bool(_KIND_PATTERN.fullmatch(kind)) and (kind[:1].islower() or kind in CRITICAL_BOXES)

    def pack(self, stream: Stream, name: str = "stream") -> bytes:
        """See :meth:`Container.pack`."""
        _check(stream, name, MAX_PIXELS)
        flags = len(stream.strings) - 1 | METRICS.index(stream.metric) << 4
        parts = [MAGIC, bytes([VERSION]), _codec_bytes(stream.codec)]
        parts += [
            _varint(int(stream.quality * QUALITY_UNIT)),
            bytes([flags]),
            stream.fingerprint,
            stream.digest,
        ]
        parts += [_varint(stream.height), _varint(stream.width)]
        for string in stream.strings:
            parts += [_varint(len(string)), string]
        for kind, data in sorted(stream.boxes.items()):
            parts += [kind, _varint(len(data)), data]
        body = b"".join(parts)
        return body + zlib.crc32(body).to_bytes(_CRC_SIZE, "little")

    def unpack(self, data: bytes, name: str = "stream", max_pixels: int = MAX_PIXELS) -> Stream:
        """See :meth:`Container.unpack`."""
        _check_frame(data, name)
        cursor = Cursor(data, name, start=_HEAD, end=len(data) - _CRC_SIZE)
        codec = _read_codec(cursor, name)
        quality = _read_varint(cursor, name) / QUALITY_UNIT
        (flags,) = cursor.take(1)
        if flags >> 5:
            raise _malformed(name, f"the reserved bits of its flags ({flags:#04x}) are not 0")
        fingerprint, digest = cursor.take(4), cursor.take(4)
        height, width = _read_varint(cursor, name), _read_varint(cursor, name)
        strings = tuple(cursor.take(_read_varint(cursor, name)) for _ in range((flags & 15) + 1))
        boxes = _read_boxes(cursor, name)
        metric = METRICS[flags >> 4]
        size = (height, width)
        stream = Stream(codec, quality, metric, *size, strings, fingerprint, digest, boxes, self.name)
        _check(stream, name, max_pixels)
        return stream


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


def _check(stream: Stream, name: str, max_pixels: int) -> None:
    if not NAME_PATTERN.fullmatch(stream.codec):
        raise _malformed(name, f"the codec name {stream.codec!r} is not 1 to 64 of A-Z a-z 0-9 . _ -")
    units = stream.quality * QUALITY_UNIT
    if not (1 <= units <= MAX_QUALITY * QUALITY_UNIT and units == int(units)):
        raise _malformed(
            name, f"quality {stream.quality:.10g} is no multiple of 1/{QUALITY_UNIT} up to {MAX_QUALITY}"
        )
    if stream.metric not in METRICS:
        raise _malformed(name, f"the metric {stream.metric!r} is not one of {', '.join(METRICS)}")
    for what, field in (("fingerprint", stream.fingerprint), ("digest", stream.digest)):
        if len(field) != 4:
            raise _malformed(name, f"the {what} has {len(field)} bytes instead of 4")
    if not 1 <= len(stream.strings) <= MAX_STRINGS:
        raise _malformed(name, f"it has {len(stream.strings)} strings instead of 1 to {MAX_STRINGS}")
    if any(len(data) >= _VARINT_LIMIT for data in (*stream.strings, *stream.boxes.values())):
        raise _malformed(name, "a string or box has 4 GiB or more")
    known = stream.codec in CODEC_NUMBERS
    check_size(
        stream,
        name,
        max_pixels=max_pixels,
        pixels_per_byte=KNOWN_PIXELS_PER_BYTE if known else PIXELS_PER_BYTE,
    )
    _check_boxes(stream.boxes, name)


def _check_boxes(boxes: Mapping[bytes, bytes], name: str) -> None:
    if len(boxes) > MAX_BOXES:
        raise _malformed(name, f"it has more than {MAX_BOXES} boxes")
    for kind in boxes:
        if not _KIND_PATTERN.fullmatch(kind):
            raise _malformed(name, f"the box kind {kind!r} is not a letter and three letters or digits")
        if kind[:1].isupper() and kind not in CRITICAL_BOXES:
            raise StreamError(
                f"{name}: cannot be shown without its box {kind.decode()}, unknown to this lof; update lof"
            )


def _read_codec(cursor: Cursor, name: str) -> str:
    number = _read_varint(cursor, name)
    if number > 0:
        if number not in _NAMES:
            raise StreamError(f"{name}: was made by codec number {number}, unknown to this lof; update lof")
        return _NAMES[number]
    size = _read_varint(cursor, name)
    if not 1 <= size <= 64:
        raise _malformed(name, f"its codec name has {size} characters instead of 1 to 64")
    # Latin-1 maps each byte to one character, so that the check of the name sees what is there.
    codec = cursor.take(size).decode("latin-1")
    if codec in CODEC_NUMBERS:
        raise _malformed(name, f"it spells out the codec {codec}, which has a number")
    return codec


def _read_boxes(cursor: Cursor, name: str) -> dict[bytes, bytes]:
    boxes: dict[bytes, bytes] = {}
    before = b""
    while cursor.left:
        if len(boxes) == MAX_BOXES:
            raise _malformed(name, f"it has more than {MAX_BOXES} boxes")
        kind = cursor.take(4)
        if kind <= before:
            raise _malformed(name, f"its box {kind!r} comes after {before!r}, not in order")
        boxes[kind] = cursor.take(_read_varint(cursor, name))
        before = kind
    return boxes


def _read_varint(cursor: Cursor, name: str) -> int:
    """The next varint, 0..2^32 - 1."""
    value = 0
    for shift in range(0, 35, 7):
        byte = cursor.take(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= _VARINT_LIMIT or (byte == 0 and shift > 0):
                break
            return value
    raise _malformed(name, f"the number before byte {cursor.at} is not in its shortest form")


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
