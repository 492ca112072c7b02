"""The byte layout of CompressAI's ``examples/codec.py`` (1.2), for images coded with the weights of its zoo.

All numbers are big-endian and of fixed size::

    bytes   field
    1       model: its position in ``compressai.zoo.models``
    1       upper 4 bits: metric (0 mse, 1 ms-ssim); lower 4 bits: quality minus 1
    4, 4    height and width of the image in pixels
    1       bit depth of the image: 8
    4, 4    height and width of the latents that come last (``z``, or ``y`` without a hyperprior)
    4       number of strings
    ...     the strings, each: 4 bytes length n, then n bytes

There is no magic, no version and no checksum: another file is told by its model number and by sizes that do
not fit each other, and damage inside a string goes unnoticed. Early versions of the script left out the bit
depth; what stands in its place is then never 8, so that their files are refused.

The script pads the image with zeros to multiples of 64 pixels, half on each side, the odd pixel at the bottom
and right, and crops the decoded image alike. It turns [0, 1] into 8 bits by truncating 255·x, not by
rounding.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from lof.containers.base import (
    KNOWN_PIXELS_PER_BYTE,
    MAX_PIXELS,
    METRICS,
    Container,
    Cursor,
    Stream,
    check_size,
)
from lof.errors import StreamError

if TYPE_CHECKING:
    from torch import Tensor

    from lof.results import Pixels

PADDING: Final = 64
"""The script pads every image to multiples of this many pixels, whatever the model needs."""

_BIT_DEPTH: Final = 8
_HEAD: Final = struct.Struct(">BBIIBIII")
_LENGTH: Final = struct.Struct(">I")


@dataclass(frozen=True)
class ZooModel:
    """What the layout says about one model of the zoo.

    Attributes:
        number: position in ``compressai.zoo.models``.
        stride: pixels per latent in the shape that is written.
        strings: how many strings its ``compress`` returns.
        qualities: its qualities are 1 to this.
    """

    number: int
    stride: int
    strings: int
    qualities: int

    def latent_shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns that the script writes for an image of ``height`` × ``width`` pixels."""
        per_tile = PADDING // self.stride
        return -(-height // PADDING) * per_tile, -(-width // PADDING) * per_tile


ZOO_MODELS: Final[Mapping[str, ZooModel]] = MappingProxyType(
    {
        "bmshj2018-factorized": ZooModel(0, 16, 1, 8),
        "bmshj2018-factorized-relu": ZooModel(1, 16, 1, 8),
        "bmshj2018-hyperprior": ZooModel(2, 64, 2, 8),
        "mbt2018-mean": ZooModel(3, 64, 2, 8),
        "mbt2018": ZooModel(4, 64, 2, 8),
        "cheng2020-anchor": ZooModel(5, 64, 2, 6),
        "cheng2020-attn": ZooModel(6, 64, 2, 6),
    }
)
_NAMES: Final = {model.number: name for name, model in ZOO_MODELS.items()}


class CompressAIContainer(Container):
    """Holds the streams of the zoo's codecs, without fingerprint, digest and metadata."""

    name = "compressai"
    summary = "the layout of CompressAI's examples/codec.py"
    suffix = ".bin"
    codecs = "zoo codecs"
    pixel_offset = 0.5

    def recognises(self, head: bytes) -> bool:
        """See :meth:`Container.recognises`; the number of a model is all there is to see."""
        return bool(head) and head[0] in _NAMES

    def holds(self, codec: str) -> bool:
        """See :meth:`Container.holds`: the zoo's codecs for images, each with fixed rates."""
        return codec in ZOO_MODELS

    def keeps(self, kind: bytes, data: bytes) -> bool:
        """See :meth:`Container.keeps`: none."""
        return False

    def to_pixels(self, decoded: Tensor) -> Pixels:
        """See :meth:`Container.to_pixels`; rounded down."""
        return super().to_pixels(decoded.clamp(0, 1).mul(255).floor().div(255))

    def pack(self, stream: Stream, name: str = "stream") -> bytes:
        """See :meth:`Container.pack`."""
        _check(stream, name, MAX_PIXELS)
        if stream.boxes:
            raise StreamError(
                f"{name}: CompressAI's layout holds no metadata; leave it out or write a lof file"
            )
        code = METRICS.index(stream.metric) << 4 | int(stream.quality) - 1
        model = ZOO_MODELS[stream.codec]
        size = (stream.height, stream.width)
        shape = model.latent_shape(*size)
        parts = [_HEAD.pack(model.number, code, *size, _BIT_DEPTH, *shape, len(stream.strings))]
        for string in stream.strings:
            parts += [_LENGTH.pack(len(string)), string]
        return b"".join(parts)

    def unpack(self, data: bytes, name: str = "stream", max_pixels: int = MAX_PIXELS) -> Stream:
        """See :meth:`Container.unpack`."""
        cursor = Cursor(data, name)
        if data and data[0] not in _NAMES:
            raise StreamError(
                f"{name}: is no file of CompressAI's codec.py for the codecs {', '.join(ZOO_MODELS)}; check the path"
            )
        number, code, height, width, depth, *shape, count = _HEAD.unpack(cursor.take(_HEAD.size))
        codec, model = _NAMES[number], ZOO_MODELS[_NAMES[number]]
        if depth != _BIT_DEPTH:
            raise StreamError(
                f"{name}: says {depth} bits per sample where lof reads {_BIT_DEPTH} (early versions of codec.py "
                "left this number out); encode the image again with CompressAI 1.2"
            )
        if code >> 4 >= len(METRICS):
            raise _malformed(name, f"there is no metric number {code >> 4}")
        if count != model.strings:
            raise _malformed(name, _count_error(codec, count))
        strings = tuple(cursor.take(_LENGTH.unpack(cursor.take(_LENGTH.size))[0]) for _ in range(count))
        if cursor.left:
            raise _malformed(name, f"the bytes after its last string ({cursor.left}) belong to nothing")
        stream = Stream(
            codec, float((code & 15) + 1), METRICS[code >> 4], height, width, strings, container=self.name
        )
        _check(stream, name, max_pixels)
        expected = model.latent_shape(height, width)
        if tuple(shape) != expected:
            raise _malformed(
                name, f"its latent shape {_by(*shape)} does not fit its image, which needs {_by(*expected)}"
            )
        return stream


def _check(stream: Stream, name: str, max_pixels: int) -> None:
    if stream.codec not in ZOO_MODELS:
        raise StreamError(
            f"{name}: CompressAI's layout has no place for the codec {stream.codec}, only for "
            f"{', '.join(ZOO_MODELS)}; write a lof file instead"
        )
    model = ZOO_MODELS[stream.codec]
    if stream.quality not in range(1, model.qualities + 1):
        raise _malformed(
            name, f"{stream.codec} has the qualities 1 to {model.qualities}, not {stream.quality:.10g}"
        )
    if stream.metric not in METRICS:
        raise _malformed(name, f"the metric {stream.metric!r} is not one of {', '.join(METRICS)}")
    if len(stream.strings) != model.strings:
        raise _malformed(name, _count_error(stream.codec, len(stream.strings)))
    check_size(stream, name, max_pixels=max_pixels, pixels_per_byte=KNOWN_PIXELS_PER_BYTE)


def _count_error(codec: str, count: int) -> str:
    return f"the number of strings of {codec} is {ZOO_MODELS[codec].strings}, not {count}"


def _by(rows: int, columns: int) -> str:
    return f"{rows} × {columns}"


def _malformed(name: str, what: str) -> StreamError:
    # Without a checksum, damage, another program's file and a faulty writer all look like this.
    return StreamError(
        f"{name}: {what}, so it is damaged or not from CompressAI's codec.py; encode the image again"
    )
