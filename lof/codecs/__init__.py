"""Image codecs behind one contract (:class:`Codec`). A new one is a folder here, or a package with an entry point.

What needs torch waits until it is asked for: lists of codecs come without it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lof.codecs.rates import Continuous, Points, RatePoint
from lof.codecs.registry import (
    DEFAULT_CODEC,
    CodecSpec,
    Request,
    codec_for,
    codec_spec,
    codec_specs,
    codec_tiers,
    recipes,
    register,
    register_tiers,
    register_training,
    tiers_of,
    trainable,
)
from lof.containers.lof import QUALITY_UNIT
from lof.results import check_arguments

if TYPE_CHECKING:
    from lof.codecs.base import (
        Begun,
        Codec,
        Coded,
        Decoded,
        Latents,
        Locality,
        Quantize,
        hard_rounding,
        symbols_of,
        tensor_of,
    )
    from lof.codecs.weights import weights_name

_CONTRACT = (
    "Begun",
    "Codec",
    "Coded",
    "Decoded",
    "Latents",
    "Locality",
    "Quantize",
    "hard_rounding",
    "symbols_of",
    "tensor_of",
)

__all__ = [
    "DEFAULT_CODEC",
    "QUALITY_UNIT",
    "Begun",
    "Codec",
    "CodecSpec",
    "Coded",
    "Continuous",
    "Decoded",
    "Latents",
    "Locality",
    "Points",
    "Quantize",
    "RatePoint",
    "Request",
    "codec_for",
    "codec_spec",
    "codec_specs",
    "codec_tiers",
    "hard_rounding",
    "load_codec",
    "recipes",
    "register",
    "register_tiers",
    "register_training",
    "symbols_of",
    "tensor_of",
    "tiers_of",
    "trainable",
    "weights_name",
]


def load_codec(
    name: str = DEFAULT_CODEC,
    quality: float | None = None,
    *,
    metric: str | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    download: bool = True,
) -> Codec:
    """A codec, ready to search with and to decode.

    Args:
        name: as ``lof codecs`` lists them.
        quality: rate point, 1 (smallest) to 8 for most codecs; the codec's default if ``None``.
        metric: what the codec was trained for, ``mse`` or ``ms-ssim``; ``mse`` if ``None``, or else its only one.
        weights: a folder with weights; see ``lof codecs`` for the file names. Without it: lof's own
            folder, then the one in ``LOF_WEIGHTS_DIR``, then CompressAI's zoo.
        device: where the search runs: ``auto``, ``cpu``, ``cuda``, ``cuda:N``. Files are always written
            and read on the CPU, in float32.
        precision: of the search's synthesis: ``auto``, ``bf16`` or ``fp32``.
        download: whether the zoo's weights may be fetched from the network; never where ``LOF_OFFLINE`` is set.

    Raises:
        UnknownCodecError: no such codec, quality or metric.
        WeightsError: the weights cannot be had or are not this codec's, or its loader fails.
        UsageError: the quality is no number, the weights are no path, or the loader gives another codec than was
            asked for.
    """
    check_arguments(quality=quality, weights=weights)
    spec = codec_spec(name)
    quality = spec.default_quality if quality is None else float(quality)
    metric = spec.made_for("mse") if metric is None else metric
    spec.rate_point(metric, quality)
    folder = str(Path(weights).resolve()) if weights is not None else None
    from lof.codecs.weights import weights_name

    place, written = folder or os.environ.get("LOF_WEIGHTS_DIR"), 0
    if place is not None:
        with suppress(OSError):
            written = Path(place, weights_name(name, metric, quality)).stat().st_mtime_ns
    return _load(name, quality, metric, folder, device, precision, download, (place, written))


def __getattr__(name: str) -> Any:
    if name in _CONTRACT:
        return getattr(import_module("lof.codecs.base"), name)
    if name == "weights_name":
        return import_module("lof.codecs.weights").weights_name
    raise AttributeError(f"module 'lof.codecs' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


@lru_cache(maxsize=8)
def _load(
    name: str,
    quality: float,
    metric: str,
    folder: str | None,
    device: str,
    precision: str,
    download: bool,
    found: tuple[str | None, int],
) -> Codec:
    """Loaded anew where ``found``, the folder of the weights and the time they were written, has changed."""
    return codec_spec(name).load(
        quality, metric=metric, weights=folder, device=device, precision=precision, download=download
    )
