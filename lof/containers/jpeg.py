"""JPEG files as they are: every program shows them, and metadata stand where cameras put them.

A file is the codec's own string, a JPEG without application segments, into which this puts, after its first two bytes:
the segments of JFIF, EXIF, XMP, ICC profile and IPTC as Pillow writes them, and a comment ``lof 75 mse 0123abcd`` with
the quality and the metric that the file was made for, and the digest of its coefficients, which other programs leave
alone as long as they leave those alone. A file without that comment, of another program, is read too: it then
has the quality at which libjpeg's luma table comes nearest to its own.

The second string of a codec whose first one is a JPEG stands before the comment, see :mod:`lof.containers.jpeg_side`;
the digest stands there too, not in the comment. Where it is damaged the picture is that of the codec ``jpeg``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
from PIL import Image

from lof.containers.base import MAX_PIXELS, METRICS, Container, Stream, check_size
from lof.containers.jpeg_side import MARKER, PREFIX, Side
from lof.containers.lof import CODEC_NUMBERS
from lof.errors import ImageError, LowMemoryError, StreamError
from lof.pictures.metadata import take_boxes
from lof.pictures.picture import Picture
from lof.pictures.refusing import pillow_errors_mapped
from lof.pictures.writing import image_bytes, is_held

_START: Final = b"\xff\xd8"
_SEGMENTS: Final = (*range(0xE0, 0xF0), 0xFE)
"""Application segments and comments: what is no part of the codec's string."""
_ADOBE: Final = 0xEE
_SCAN: Final = 0xDA
_COMMENT: Final = re.compile(rb"lof (\d{1,3}) ([a-z-]{1,16})(?: ([0-9a-f]{8}))?")
# A block that equals its neighbour costs about 6 bits in the worst of scans, and far less in progressive ones.
_PIXELS_PER_BYTE: Final = 2**16
_SUM: Final = 3690
"""Of the luma table in Annex K of the standard."""


class JpegContainer(Container):
    """Holds the streams of the codec ``jpeg``, without fingerprint, and of those whose first string is such a file."""

    name = "jpeg"
    summary = "a JPEG that every program shows"
    suffix = ".jpg"
    codecs = "the codecs jpeg and jpeg-descriptors"
    native = frozenset({"jpeg"})

    def recognises(self, head: bytes) -> bool:
        """See :meth:`Container.recognises`."""
        return head[:3] == b"\xff\xd8\xff"

    def holds(self, codec: str) -> bool:
        """See :meth:`Container.holds`."""
        return codec in self.native or (codec.startswith(PREFIX) and codec in CODEC_NUMBERS)

    def is_native(self, codec: str) -> bool:
        """See :meth:`Container.is_native`."""
        return self.holds(codec)

    def keeps(self, kind: bytes, data: bytes) -> bool:
        """See :meth:`Container.keeps`: all that pictures have and a segment holds."""
        return is_held(kind, data, "JPEG")

    def pack(self, stream: Stream, name: str = "stream") -> bytes:
        """See :meth:`Container.pack`."""
        known = self.holds(stream.codec) and stream.metric in METRICS
        if not known or len(stream.strings) != 1 + (stream.codec not in self.native):
            raise StreamError(
                f"{name}: a JPEG has no place for the codec {stream.codec}, only for jpeg; write a lof file instead"
            )
        if not all(self.keeps(kind, box) for kind, box in stream.boxes.items()):
            raise StreamError(
                f"{name}: a JPEG holds no metadata of this kind or size; leave it out or write a lof file"
            )
        if stream.quality not in range(1, 101):
            raise StreamError(f"{name}: a JPEG has whole qualities from 1 to 100, not {stream.quality:g}")
        string, *others = stream.strings
        if not string.startswith(_START):
            raise StreamError(f"{name}: its string is no JPEG; encode the picture again")
        check_size(stream, name, pixels_per_byte=_PIXELS_PER_BYTE)
        dot = Picture(np.zeros((1, 1, 3), np.uint8), stream.boxes)
        metadata = b"".join(
            segment for kind, segment in _parts(image_bytes(dot, "JPEG"), name) if kind in _SEGMENTS
        )
        digest, side = stream.digest, b""
        if others:
            side = Side(stream.codec, stream.fingerprint, digest, others[0]).segments(name)
            digest = b""
        comment = f"lof {int(stream.quality)} {stream.metric} {digest.hex()}".rstrip().encode()
        return _START + metadata + side + b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment + string[2:]

    def unpack(self, data: bytes, name: str = "stream", max_pixels: int = MAX_PIXELS) -> Stream:
        """See :meth:`Container.unpack`."""
        string, sides, comment, adobe = [], [], None, b""
        for kind, part in _parts(data, name):
            if kind not in _SEGMENTS:
                string.append(part)
            elif kind == _ADOBE:
                adobe = part
            elif kind == MARKER:
                sides.append(part)
            elif kind == 0xFE and comment is None:
                comment = _COMMENT.fullmatch(part[4:])
        try:
            with pillow_errors_mapped(), Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                width, height = image.size
                tables = getattr(image, "quantization", {})
                if "jfif" not in image.info and image.info.get("adobe_transform") == 0:
                    string.insert(1, adobe)  # without it RGB would pass for YCbCr
                boxes, orientation = take_boxes(image, [])
        except (ImageError, LowMemoryError) as error:
            raise StreamError(f"{name}: {error}") from error
        if orientation != 1:
            raise StreamError(
                f"{name}: is a JPEG to be turned (orientation {orientation}); optimize it as a picture"
            )
        quality, metric = (
            int(comment[1]) if comment else _quality_of(tables),
            comment[2].decode() if comment else "mse",
        )
        if not 1 <= quality <= 100 or metric not in METRICS:
            raise StreamError(
                f"{name}: has the quality {quality} for {metric}, which no JPEG of lof has; check the file"
            )
        stream = Stream(
            "jpeg",
            float(quality),
            metric,
            height,
            width,
            (b"".join(string),),
            digest=bytes.fromhex(((comment and comment[3]) or b"").decode()),
            boxes=boxes,
            container=self.name,
        )
        check_size(stream, name, max_pixels=max_pixels, pixels_per_byte=_PIXELS_PER_BYTE)
        try:
            side = Side.read(sides)
        except ValueError as error:
            return replace(
                stream, note=f"{name}: what lof added to this JPEG is {error}; this is the plain picture"
            )
        if side is None:
            return stream
        return replace(
            stream,
            codec=side.codec,
            fingerprint=side.fingerprint,
            digest=side.digest,
            strings=(*stream.strings, side.string),
            plain=stream,
        )


def _parts(data: bytes, name: str) -> Iterator[tuple[int, bytes]]:
    """A JPEG in pieces, with their markers: 0 for the start, each segment, and all from the first scan on."""
    if not data.startswith(_START):
        raise StreamError(f"{name}: is no JPEG; check the path")
    yield 0, _START
    at = 2
    while True:
        while data[at : at + 2] == b"\xff\xff":  # bytes that fill
            at += 1
        head = data[at : at + 4]
        size = int.from_bytes(head[2:])
        if len(head) < 4 or head[0] != 0xFF or size < 2 or at + 2 + size > len(data):
            raise StreamError(
                f"{name}: is a JPEG cut short or damaged at byte {at}; copy it again from its source"
            )
        if head[1] == _SCAN:
            yield _SCAN, data[at:]
            return
        yield head[1], data[at : at + 2 + size]
        at += 2 + size


def _quality_of(tables: dict[int, list[int]]) -> int:
    """The quality whose luma table of libjpeg has about the same sum."""
    total = sum(tables.get(0, [255] * 64))

    def distance(quality: int) -> float:
        scale = 5000 / quality if quality < 50 else 200 - 2 * quality
        return abs(min(255 * 64, max(64, _SUM * scale / 100)) - total)

    return min(range(1, 101), key=distance)
