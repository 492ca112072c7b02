"""What every container has in common: the record of a stream, the interface, and limits on sizes.

Nothing here needs torch: :meth:`Container.to_pixels` calls methods of the tensor that it gets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

from lof.errors import StreamError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from lof.results import Pixels

METRICS: Final = ("mse", "ms-ssim")

MAX_SIDE: Final = 65535
MAX_PIXELS: Final = 2**28

# Without a bound, a forged header of 30 bytes makes a decoder allocate 50 gigabytes. CompressAI's rANS coder has
# 16-bit probabilities, so no latent element costs less than -log2(1 - 2^-16) = 2.2e-5 bits: with M elements per 16×16
# pixels one byte covers at most 9.3e7/M pixels, below 2^20 for every M from 89 on.
PIXELS_PER_BYTE: Final = 2**20
"""What one byte of strings may stand for, at most, in a stream of a codec about which no more is known."""
# The tables of trained codecs cost far more. At the most probable symbol everywhere, one byte covers 3980 pixels with
# the bundled weights (msp-fast, quality 2; the factorised prior is what costs), whatever the image. The zoo's networks
# are built alike but their weights are not at hand, so this leaves them a factor of 16.
KNOWN_PIXELS_PER_BYTE: Final = 2**16
"""The same for codecs whose tables are known: those that have a number in lof's container."""
_SPARE_BYTES: Final = 16
_PIXELS_AT_ONCE: Final = 2**22


@dataclass(frozen=True)
class Stream:
    """What one file says, in whatever container.

    Attributes:
        codec: name of the codec.
        quality: rate point of the codec, above 0.
        metric: what the codec was trained for, ``"mse"`` or ``"ms-ssim"``.
        height: rows of the image in pixels, 1..65535.
        width: columns of the image in pixels, 1..65535.
        strings: the codec's own strings, in the codec's order.
        fingerprint: first 4 bytes of the SHA-256 over the codec's weights; empty where the container has none.
        digest: of the symbols, see :func:`lof.containers.digest.symbols_digest`; empty where the container has none.
        boxes: what else the file holds, by kind, for example ``b"exif"``; the kinds stand in :mod:`lof.containers.lof`.
        container: name of the container that it was read from; no part of what is compared.
        plain: the picture without what this codec adds, where the file shows that to every program; no part either.
        note: what of the file could not be used, and why, in a sentence; no part either.
    """

    codec: str
    quality: float
    metric: str
    height: int
    width: int
    strings: tuple[bytes, ...]
    fingerprint: bytes = b""
    digest: bytes = b""
    boxes: Mapping[bytes, bytes] = field(default_factory=dict)
    container: str = field(default="", compare=False)
    plain: Stream | None = field(default=None, compare=False, repr=False)
    note: str = field(default="", compare=False)


class Container(ABC):
    """A file format: how a :class:`Stream` becomes bytes, and what the format's own decoders do to the image.

    Containers have no state; :data:`lof.containers.CONTAINERS` holds one object of each class.
    """

    name: ClassVar[str]
    """What users call it."""
    summary: ClassVar[str]
    """A few words for help texts and ``lof inspect``."""
    suffix: ClassVar[str]
    """What names of its files end in, with the dot."""
    codecs: ClassVar[str]
    """A few words: the codecs that it can hold."""
    native: ClassVar[frozenset[str]] = frozenset()
    """Codecs that pack such files anew, and whose streams are written in this format unless another is asked for."""
    checksum: ClassVar[bool] = False
    """Whether its files show damage by themselves."""
    pixel_offset: ClassVar[float] = 0.0
    """How far above the wanted grey level, in grey levels, a decoded image should lie before it is rounded."""

    @abstractmethod
    def recognises(self, head: bytes) -> bool:
        """Whether a file that starts with ``head`` (4 bytes suffice) looks like one of these."""

    @abstractmethod
    def holds(self, codec: str) -> bool:
        """Whether streams of this codec fit in."""

    def is_native(self, codec: str) -> bool:
        """Whether streams of this codec are written in this format unless another is asked for."""
        return codec in self.native

    @abstractmethod
    def keeps(self, kind: bytes, data: bytes) -> bool:
        """Whether a box fits in."""

    @abstractmethod
    def pack(self, stream: Stream, name: str = "stream") -> bytes:
        """The file that holds ``stream``.

        A fingerprint or digest for which the container has no place is left out. A box for which it has no place is an
        error, ``… holds no metadata; leave it out or write a lof file``.

        Raises:
            StreamError: a field is out of range or has no place; the message starts with ``name``.
        """

    @abstractmethod
    def unpack(self, data: bytes, name: str = "stream", max_pixels: int = MAX_PIXELS) -> Stream:
        """What the file ``data`` says; never allocates more than a small multiple of ``len(data)``.

        Args:
            max_pixels: larger images are refused.

        Raises:
            StreamError: ``data`` is no such file, damaged, cut short, absurd, or of a newer version; the message is
                one line that starts with ``name``.
        """

    def require(self, codec: str) -> None:
        """Refuse a codec whose streams do not fit in.

        Raises:
            UsageError: :meth:`holds` says no.
        """
        if not self.holds(codec):
            raise UsageError(f"format {self.name} holds {self.codecs} only, not {codec}; use --format lof")

    def to_pixels(self, decoded: Tensor) -> Pixels:
        """The 8-bit image, (H, W, 3) uint8, of a decoded one, (3, H, W) float32 in [0, 1], rounded to nearest."""
        _, height, width = decoded.shape
        pixels: Pixels = decoded.new_empty((height, width, 3)).byte().cpu().numpy()
        at_once = max(1, _PIXELS_AT_ONCE // max(1, width))
        for top in range(0, height, at_once):
            rows = decoded[:, top : top + at_once].clamp(0, 1).mul(255).round().byte()
            pixels[top : top + at_once] = rows.permute(1, 2, 0).cpu().numpy()
        return pixels


class Cursor:
    """Hands out ``data[start:end]`` in order; asking for more than is there is a :class:`StreamError`."""

    def __init__(self, data: bytes, name: str, start: int = 0, end: int | None = None) -> None:
        self._data, self._name, self.at = data, name, start
        self._end = len(data) if end is None else end

    @property
    def left(self) -> int:
        """Bytes not handed out yet."""
        return self._end - self.at

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if size > self.left:
            raise StreamError(
                f"{self._name}: is cut short ({size} bytes wanted at byte {self.at}, {self.left} left); "
                "copy it again from its source"
            )
        self.at += size
        return self._data[self.at - size : self.at]


def check_size(
    stream: Stream, name: str, *, max_pixels: int = MAX_PIXELS, pixels_per_byte: int = PIXELS_PER_BYTE
) -> None:
    """Refuse an image size out of range, above ``max_pixels``, or one that the strings are too short to describe.

    Raises:
        StreamError: the message starts with ``name``.
    """
    height, width, string_bytes = stream.height, stream.width, sum(map(len, stream.strings))
    size = f"{width} × {height} pixels"
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise StreamError(
            f"{name}: {size} are out of range (1 to {MAX_SIDE} a side, at most {MAX_PIXELS} in all); "
            "compress a smaller or cropped image"
        )
    if height * width > max_pixels:
        raise StreamError(
            f"{name}: {size} are more than the limit of {max_pixels}; raise that limit to read it"
        )
    if height * width > (string_bytes + _SPARE_BYTES) * pixels_per_byte:
        raise StreamError(
            f"{name}: {size} cannot come from {string_bytes} bytes of strings, so no encoder wrote this; "
            "compress the image again"
        )
