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
from typing import Final

from lof.containers.lof import METRICS, Cursor, check_size
from lof.errors import StreamError

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


@dataclass(frozen=True)
class ZooStream:
    """What a file says.

    Attributes:
        codec: name of a model in :data:`ZOO_MODELS`.
        quality: 1 to 8, for the cheng2020 models 1 to 6.
        metric: what the model was trained for, ``"mse"`` or ``"ms-ssim"``.
        height: rows of the image in pixels, 1..65535.
        width: columns of the image in pixels, 1..65535.
        shape: rows and columns of the latents; what :func:`latent_shape` says.
        strings: what the model's ``compress`` returned, in its order.
    """

    codec: str
    quality: int
    metric: str
    height: int
    width: int
    shape: tuple[int, int]
    strings: tuple[bytes, ...]


def can_hold(codec: str) -> bool:
    """Whether the layout has a number for ``codec`` (the zoo's codecs for images, each with fixed rates)."""
    return codec in ZOO_MODELS


def latent_shape(codec: str, height: int, width: int) -> tuple[int, int]:
    """The latent shape that the script writes for an image of ``height`` × ``width`` pixels."""
    per_tile = PADDING // ZOO_MODELS[codec].stride
    return -(-height // PADDING) * per_tile, -(-width // PADDING) * per_tile


def write(stream: ZooStream, name: str = "stream") -> bytes:
    """The file that holds ``stream``.

    Raises:
        StreamError: a field is out of range or the layout has no such codec; the message starts with
            ``name``.
    """
    _check(stream, name)
    code = METRICS.index(stream.metric) << 4 | stream.quality - 1
    number = ZOO_MODELS[stream.codec].number
    size = (stream.height, stream.width)
    parts = [_HEAD.pack(number, code, *size, _BIT_DEPTH, *stream.shape, len(stream.strings))]
    for string in stream.strings:
        parts += [_LENGTH.pack(len(string)), string]
    return b"".join(parts)


def read(data: bytes, name: str = "stream") -> ZooStream:
    """What the file ``data`` says; never allocates more than a small multiple of ``len(data)``.

    Raises:
        StreamError: ``data`` is no such file, cut short, absurd, or holds what lof does not decode; the
            message is one line that starts with ``name``.
    """
    cursor = Cursor(data, name)
    if data and data[0] not in _NAMES:
        raise StreamError(
            f"{name}: is neither a lof file nor one of CompressAI's codec.py for the codecs "
            f"{', '.join(ZOO_MODELS)}; check the path"
        )
    number, code, height, width, depth, *shape, count = _HEAD.unpack(cursor.take(_HEAD.size))
    codec = _NAMES[number]
    if depth != _BIT_DEPTH:
        raise StreamError(
            f"{name}: says {depth} bits per sample where lof reads {_BIT_DEPTH} (early versions of codec.py "
            "left this number out); encode the image again with CompressAI 1.2"
        )
    if code >> 4 >= len(METRICS):
        raise _malformed(name, f"there is no metric number {code >> 4}")
    if count != ZOO_MODELS[codec].strings:
        raise _malformed(name, _count_error(codec, count))
    strings = tuple(cursor.take(_LENGTH.unpack(cursor.take(_LENGTH.size))[0]) for _ in range(count))
    if cursor.left:
        raise _malformed(name, f"the bytes after its last string ({cursor.left}) belong to nothing")
    size = (shape[0], shape[1])
    stream = ZooStream(codec, (code & 15) + 1, METRICS[code >> 4], height, width, size, strings)
    _check(stream, name)
    return stream


def _check(stream: ZooStream, name: str) -> None:
    if not can_hold(stream.codec):
        raise StreamError(
            f"{name}: CompressAI's layout has no place for the codec {stream.codec}, only for "
            f"{', '.join(ZOO_MODELS)}; write a lof file instead"
        )
    model = ZOO_MODELS[stream.codec]
    if not 1 <= stream.quality <= model.qualities:
        raise _malformed(
            name, f"{stream.codec} has the qualities 1 to {model.qualities}, not {stream.quality}"
        )
    if stream.metric not in METRICS:
        raise _malformed(name, f"the metric {stream.metric!r} is not one of {', '.join(METRICS)}")
    if len(stream.strings) != model.strings:
        raise _malformed(name, _count_error(stream.codec, len(stream.strings)))
    check_size(stream.height, stream.width, sum(map(len, stream.strings)), name)
    expected = latent_shape(stream.codec, stream.height, stream.width)
    if stream.shape != expected:
        raise _malformed(
            name, f"its latent shape {_by(stream.shape)} does not fit its image, which needs {_by(expected)}"
        )


def _count_error(codec: str, count: int) -> str:
    return f"the number of strings of {codec} is {ZOO_MODELS[codec].strings}, not {count}"


def _by(shape: tuple[int, int]) -> str:
    return f"{shape[0]} × {shape[1]}"


def _malformed(name: str, what: str) -> StreamError:
    # Without a checksum, damage, another program's file and a faulty writer all look like this.
    return StreamError(
        f"{name}: {what}, so it is damaged or not from CompressAI's codec.py; encode the image again"
    )
