"""Learned image codecs behind one contract (:class:`Codec`): to add one is to touch this folder alone."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lof.codecs.registry import DEFAULT_CODEC, CodecSpec, RatePoint, codec_spec, codec_specs, register
from lof.errors import WeightsError

if TYPE_CHECKING:
    from lof.codecs.base import Codec, Coded, Latents, Quantize, hard_rounding
    from lof.codecs.weights import weights_name

# What needs torch waits until it is asked for: lists of codecs and their names come without.
_HOMES = {
    "Codec": "lof.codecs.base",
    "Coded": "lof.codecs.base",
    "Latents": "lof.codecs.base",
    "Quantize": "lof.codecs.base",
    "hard_rounding": "lof.codecs.base",
    "weights_name": "lof.codecs.weights",
}

__all__ = [
    "DEFAULT_CODEC",
    "Codec",
    "CodecSpec",
    "Coded",
    "Latents",
    "Quantize",
    "RatePoint",
    "codec_spec",
    "codec_specs",
    "hard_rounding",
    "load_codec",
    "register",
    "weights_name",
]


def load_codec(
    name: str = DEFAULT_CODEC,
    quality: int | None = None,
    *,
    metric: str = "mse",
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Codec:
    """A trained codec, ready to search with and to decode.

    Args:
        name: as ``lof codecs`` lists them.
        quality: rate point, 1 (smallest) to 8; the codec's default if ``None``.
        metric: what the codec was trained for, ``mse`` or ``ms-ssim``.
        weights: a folder with weights; see ``lof codecs`` for the file names. Without it: the bundled
            weights, then the folder in ``LOF_WEIGHTS_DIR``, then CompressAI's zoo.
        device: where the search runs: ``auto``, ``cpu``, ``cuda``, ``cuda:N``. Files are always written
            and read on the CPU, in float32.
        precision: of the search's synthesis: ``auto``, ``bf16`` or ``fp32``.

    Raises:
        UnknownCodecError: no such codec, quality or metric.
        WeightsError: the weights cannot be had or are not this codec's.
    """
    spec = codec_spec(name)
    quality = spec.default_quality if quality is None else quality
    spec.rate_point(metric, quality)
    folder = str(Path(weights).resolve()) if weights is not None else None
    return _load(name, quality, metric, folder, device, precision)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'lof.codecs' has no attribute {name!r}")


@lru_cache(maxsize=4)
def _load(name: str, quality: int, metric: str, folder: str | None, device: str, precision: str) -> Codec:
    from lof.codecs.weights import build_network, load_weights
    from lof.machine.devices import resolve_device, resolve_precision

    spec = codec_spec(name)
    point = spec.rate_point(metric, quality)
    where = resolve_device(device)
    state, lmbda = load_weights(spec, metric, quality, Path(folder) if folder else None)
    origin = f"{folder or spec.source} weights of {name} quality {quality}"
    codec = spec.load_class()(
        build_network(spec, point, state, origin),
        name=name,
        quality=quality,
        metric=metric,
        lmbda=point.lmbda if lmbda is None else lmbda,
        device=where,
        precision=resolve_precision(precision, where),
    )
    if folder is None and point.fingerprint is not None and codec.fingerprint.hex() != point.fingerprint:
        raise WeightsError(
            f"{origin}: damaged (their fingerprint is not the registered one); install lof again"
        )
    return codec
