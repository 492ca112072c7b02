"""Pictures as files of other formats, to measure lof's beside: JPEG, WebP, AVIF and JPEG XL, by Pillow's encoders."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from PIL import Image, ImageFile

from lof.errors import ImageError, LowMemoryError, MissingExtraError, UsageError
from lof.metrics import mse, psnr
from lof.pictures.refusing import load_jxl, pillow_errors_mapped
from lof.results import Pixels

_WORST, _MIDDLE = 1, 50  # of what encoders call quality; Pillow takes 0 of JPEG for its default


@dataclass(frozen=True)
class Format:
    """An image format, at settings that take their time.

    Attributes:
        name: for tables.
        pillow: Pillow's name of it.
        variants: settings by name, of which the best one counts, picture by picture.
        options: settings that all variants share. One thread, so that bytes do not depend on the machine.
        best: quality, at most 100.
        draft: in their place where nearly the same file is wanted soon; empty where they are quick enough.
    """

    name: str
    pillow: str
    variants: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    best: int = 100
    draft: Mapping[str, Any] = field(default_factory=dict)

    def encode(self, pixels: Pixels, variant: str, quality: int) -> bytes:
        """A file of pixels, (H, W, 3) uint8, at a quality from 1 to ``best``."""
        buffer = io.BytesIO()
        settings = {**self.options, **self.variants[variant]}
        before = ImageFile.MAXBLOCK
        try:
            # Progressive JPEGs must fit in it, or writing them fails.
            ImageFile.MAXBLOCK = max(before, 2 * pixels.size)
            Image.fromarray(pixels).save(buffer, self.pillow, quality=quality, **settings)
        finally:
            ImageFile.MAXBLOCK = before
        return buffer.getvalue()


COLOURS: Final = {f"4:{two}": {"subsampling": f"4:{two}"} for two in ("2:0", "4:4")}
FORMATS: Final[Mapping[str, Format]] = {
    "jpeg": Format("JPEG, progressive", "JPEG", COLOURS, {"progressive": True, "optimize": True}),
    "webp": Format("WebP, method 6", "WEBP", {"4:2:0": {}}, {"method": 6}),
    "avif": Format(
        "AVIF, speed 4", "AVIF", COLOURS, {"speed": 4, "max_threads": 1}, draft={"speed": 6, "max_threads": 1}
    ),
    "jxl": Format("JPEG XL, effort 7", "JXL", {"effort": {"effort": 7}}, {"num_threads": 1}, best=99),
}
"""By the names that users type."""


def require_formats(names: Iterable[str], option: str) -> None:
    """Check that pictures can be written in these formats, before any work; JPEG XL's plugin is loaded for it.

    Args:
        option: asked for them, as the message begins: ``--against``.

    Raises:
        UsageError: one is unknown.
        MissingExtraError: Pillow cannot write one here.
    """
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"{option} {name}: is no format that lof knows; use {', '.join(FORMATS)}")
        if name == "jxl":
            load_jxl()
        Image.init()
        if FORMATS[name].pillow not in Image.SAVE:
            raise MissingExtraError(
                f"{option} {name} needs a Pillow that writes it, which this one does not; "
                "install it with: pip install --force-reinstall --only-binary :all: pillow"
            )


def decode(data: bytes) -> Pixels:
    """(H, W, 3) uint8 of a file that :meth:`Format.encode` wrote."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def bytes_at(pixels: Pixels, target: float, format: Format) -> int | None:
    """The bytes that a format needs for a picture at a PSNR, by the variant that needs fewest.

    The logarithm of the bytes is interpolated linearly between the two neighbouring qualities of the encoder. Where its
    worst file is better than asked for, the bytes of that file.

    Args:
        pixels: (H, W, 3) uint8.
        target: PSNR in dB of the decoded picture.

    Returns:
        ``None`` where no quality reaches the PSNR, or the format cannot hold the picture.
    """
    variants = list(format.variants)
    start, step = _MIDDLE, _MIDDLE // 2
    if format.draft:  # finds out quickly where to look, and which variant is the best
        drafts = {
            v: _needed(pixels, target, replace(format, options=format.draft), v, start, step)
            for v in variants
        }
        found = {variant: needed for variant, needed in drafts.items() if needed is not None}
        variants = sorted(found, key=lambda variant: found[variant][0])[:1]
        start, step = (found[variants[0]][1], 1) if variants else (start, step)
    needed = [_needed(pixels, target, format, variant, start, step) for variant in variants]
    return min((size for size, _ in filter(None, needed)), default=None)


def _needed(
    pixels: Pixels, target: float, format: Format, variant: str, start: int, step: int
) -> tuple[int, int] | None:
    """Bytes at the PSNR and a quality that reaches it: away from ``start`` by growing steps, then in between."""
    low, high, quality = _WORST - 1, format.best + 1, start
    sizes: dict[int, int] = {}
    reached: dict[int, float] = {}
    while high - low > 1:
        try:
            with pillow_errors_mapped():
                data = format.encode(pixels, variant, quality)
                sizes[quality], reached[quality] = len(data), psnr(mse(pixels, decode(data)))
        except (ImageError, LowMemoryError):  # too many pixels on a side, for one
            return None
        if reached[quality] < target:
            low = quality
        else:
            high = quality
        if low not in sizes:
            quality = max(quality - step, _WORST)
        elif high not in sizes:
            quality = min(quality + step, format.best)
        else:
            between = low + int((high - low) * _share(target, reached[low], reached[high]))
            quality = min(max(between, low + 1), high - 1)
        step *= 2
    if high not in sizes:
        return None
    share = _share(target, reached[low], reached[high]) if low in sizes else 1.0
    return round(sizes.get(low, 1) ** (1 - share) * sizes[high] ** share), high


def _share(target: float, low: float, high: float) -> float:
    """How far the target lies from the lower PSNR to the upper one, as a share: 1 where the upper one is infinite."""
    return 1.0 if math.isinf(high) else (target - low) / (high - low)
