"""Cuts of pictures for the page, and maps of their errors."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lof.results import Crops, Pixels

SCALES = (4, 8, 16, 32, 64, 128, 255)
"""Grey levels at the bright end of an error map."""
_COLOURS = "magma"


def panels(crops: Crops, *, lossless: bool) -> dict[str, Any]:
    """What the page shows of one cut: images as ``data:`` addresses, and the absolute errors of both encodings.

    Errors are means over the three channels in grey levels, computed from the exact pixels whatever ``lossless`` is;
    ``scale`` is the bright end of both maps.
    """
    before, after = (error_map(crops.original, decoded) for decoded in (crops.baseline, crops.optimised))
    scale = common_scale(before, after)
    height, width = before.shape
    return dict(
        width=width,
        height=height,
        original=picture_address(crops.original, lossless),
        baseline=picture_address(crops.baseline, lossless),
        optimised=picture_address(crops.optimised, lossless),
        baseline_map=picture_address(coloured(before, scale), lossless=False),
        optimised_map=picture_address(coloured(after, scale), lossless=False),
        scale=scale,
        baseline_error=float(before.mean()),
        optimised_error=float(after.mean()),
        region=None if crops.region is None else picture_address(crops.region, lossless),
    )


def address(kind: str, data: bytes) -> str:
    """An image file as a ``data:`` address."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def colour_bar(steps: int = 9) -> list[str]:
    """Colours of the error maps from no error to the end of the scale, as ``#rrggbb``."""
    levels = coloured(np.linspace(0, 1, steps)[None], scale=1)[0]
    return ["#{:02x}{:02x}{:02x}".format(*level) for level in levels]


def error_map(original: Pixels, decoded: Pixels) -> NDArray[np.float64]:
    """(H, W): absolute errors in grey levels, means over the three channels."""
    error: NDArray[np.float64] = np.abs(original.astype(np.int16) - decoded).mean(axis=2)
    return error


def common_scale(*errors: NDArray[np.float64]) -> int:
    """The grey levels of :data:`SCALES` that suit all of these maps."""
    # A few extreme pixels may saturate, so that the rest of the map can be seen.
    wanted = max(float(np.percentile(error, 99.5)) for error in errors)
    return next((scale for scale in SCALES if scale >= wanted), SCALES[-1])


def coloured(error: NDArray[np.float64], scale: int) -> Pixels:
    """(H, W, 3) uint8 of a map whose bright end is ``scale``."""
    colours = matplotlib.colormaps[_COLOURS](np.clip(error / scale, 0, 1), bytes=True)
    return np.ascontiguousarray(colours[..., :3])


def picture_address(pixels: Pixels, lossless: bool) -> str:
    """A picture as a ``data:`` address: WebP without loss, or JPEG."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if lossless:
        image.save(buffer, "WEBP", lossless=True, quality=60, method=4)
        kind = "webp"
    else:
        image.save(buffer, "JPEG", quality=92, subsampling=0)
        kind = "jpeg"
    return address(kind, buffer.getvalue())
