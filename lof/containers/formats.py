"""The two file formats behind one pair of functions: lof's container and CompressAI's example layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from lof.containers import compressai as compressai_layout
from lof.containers import lof as stream
from lof.errors import UsageError
from lof.results import Pixels

if TYPE_CHECKING:
    from torch import Tensor

    from lof.codecs import Codec

Format = Literal["lof", "compressai"]
FORMATS: tuple[str, ...] = get_args(Format)
SUFFIXES: dict[Format, str] = {"lof": ".lof", "compressai": ".bin"}


@dataclass(frozen=True)
class Parsed:
    """What a file of either format says about itself.

    Attributes:
        fingerprint: first 4 bytes of the weights' SHA-256; empty where the format has none.
        boxes: metadata by kind, for example ``b"ICCP"``.
    """

    format: Format
    codec: str
    quality: int
    metric: str
    fingerprint: bytes
    height: int
    width: int
    strings: tuple[bytes, ...]
    boxes: dict[bytes, bytes]


def pack(
    format: Format,
    codec: Codec,
    strings: Sequence[bytes],
    height: int,
    width: int,
    boxes: dict[bytes, bytes],
) -> bytes:
    """The bytes of a file.

    Raises:
        UsageError: the format cannot hold streams of this codec, or cannot hold boxes.
    """
    if format == "lof":
        return stream.write(
            stream.Stream(
                codec=codec.name,
                quality=int(codec.quality),
                metric=codec.metric,
                fingerprint=codec.fingerprint[:4],
                height=height,
                width=width,
                strings=tuple(strings),
                boxes=tuple(stream.Box(kind, data) for kind, data in sorted(boxes.items())),
            )
        )
    if not compressai_layout.can_hold(codec.name):
        raise UsageError(f"--format compressai holds zoo codecs only, not {codec.name}; use --format lof")
    if boxes:
        raise UsageError("--format compressai holds no metadata; use --format lof or --strip")
    padded_height, padded_width = codec.padded_size(height, width)
    return compressai_layout.write(
        compressai_layout.ZooStream(
            codec=codec.name,
            quality=int(codec.quality),
            metric=codec.metric,
            height=height,
            width=width,
            shape=(padded_height // codec.stride, padded_width // codec.stride),
            strings=tuple(strings),
        )
    )


def unpack(data: bytes, name: str = "stream") -> Parsed:
    """Read a file of either format; lof's is known by its magic, anything else is read as CompressAI's.

    Raises:
        StreamError: it is neither, or damaged.
    """
    if stream.is_stream(data):
        s = stream.read(data, name)
        boxes = {box.kind: box.data for box in s.boxes}
        return Parsed("lof", s.codec, s.quality, s.metric, s.fingerprint, s.height, s.width, s.strings, boxes)
    z = compressai_layout.read(data, name)
    return Parsed("compressai", z.codec, z.quality, z.metric, b"", z.height, z.width, z.strings, {})


def to_pixels(decoded: Tensor, format: Format) -> Pixels:
    """The 8-bit image of a decoded one, as the format's own decoder rounds it.

    lof rounds to nearest; CompressAI's ``examples/codec.py`` truncates.

    Args:
        decoded: (3, H, W) float32 in [0, 1].
    """
    levels = decoded.clamp(0, 1).mul(255)
    levels = levels.round() if format == "lof" else levels.floor()
    return np.ascontiguousarray(levels.to("cpu").permute(1, 2, 0).numpy().astype(np.uint8))


def pixel_offset(format: Format) -> float:
    """How far above the wanted grey level the decoder's output should lie, in grey levels."""
    return 0.0 if format == "lof" else 0.5
