"""What a notebook imports: :func:`optimize`, :func:`encode`, :func:`decode`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lof.codecs import DEFAULT_CODEC, Codec, Latents, hard_rounding, load_codec
from lof.containers import DEFAULT_CONTAINER, Stream, container, unpack
from lof.containers.digest import symbols_digest
from lof.errors import SearchError, StreamError, UsageError
from lof.machine.memory import require_memory
from lof.measure import region_of
from lof.metrics import bpp, ms_ssim, mse, psnr
from lof.pictures.picture import Picture
from lof.pictures.reading import picture_of
from lof.profiles import Profile, load_profile
from lof.results import Measured, Pixels, Result
from lof.search import Progress, search, symbols_of

if TYPE_CHECKING:
    from PIL import Image

    ImageLike = Image.Image | np.ndarray[Any, Any] | torch.Tensor | Picture

Symbols = Mapping[str, torch.Tensor]
"""Rounded residuals by latent tensor, as :meth:`Codec.compress` takes them."""

_MEANT = 0.25  # of a quantisation step, which a warm start may be away from the stream's latents


@dataclass(frozen=True)
class Written:
    """A stream, and what the standard decoder makes of it."""

    data: bytes
    pixels: Pixels
    measured: Measured


def optimize(
    image: ImageLike,
    *,
    codec: str | Codec = DEFAULT_CODEC,
    quality: float | None = None,
    profile: str | Path | Profile = "medium",
    lmbda: float | None = None,
    seed: int = 0,
    device: str = "auto",
    format: str = DEFAULT_CONTAINER,
    region: np.ndarray[Any, Any] | None = None,
    warm_start: bytes | None = None,
    portable: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Search better latents for one image and write them; the standard decoder reads the result.

    Args:
        image: PIL image, (H, W, 3) uint8 array, (3, H, W) float tensor in [0, 1], or a :class:`Picture`,
            whose boxes (ICC profile, EXIF, XMP, …) travel in the file.
        codec: name of a codec, or a loaded one (``quality`` and ``device`` are then its own).
        quality: rate point of the codec; its default if ``None``.
        profile: ``fast``, ``medium``, ``high``, ``max``, the path of a TOML file, or a profile.
        lmbda: λ of ``bpp + λ·D``; the codec's training λ if ``None``, which keeps its rate point.
        seed: of all randomness. Same image, profile, seed and device: same bytes.
        device: where the search runs; see :func:`lof.load_codec`.
        format: ``lof``, or ``compressai`` for the layout of CompressAI's ``examples/codec.py``.
        region: (H, W) non-negative, how much each pixel's error counts.
        warm_start: a stream of this image by this codec, from whose latents the search starts.
        portable: widen what the search found (:meth:`Codec.widen`), so that CPUs with other instructions read it
            too; where the plain encoding is kept, it stays as it is.
        on_progress: called after every gradient evaluation.

    Raises:
        LofError: one of its kinds, with one line that says what to do.
    """
    loaded = codec if isinstance(codec, Codec) else load_codec(codec, quality, device=device)
    return optimize_batch(
        [image],
        loaded,
        profile,
        lmbda=lmbda,
        seed=seed,
        format=format,
        regions=None if region is None else [region],
        warm_starts=None if warm_start is None else [warm_start],
        portable=portable,
        on_progress=on_progress,
    )[0]


def optimize_batch(
    images: Sequence[ImageLike],
    codec: Codec,
    profile: str | Path | Profile = "medium",
    *,
    lmbda: float | None = None,
    seed: int = 0,
    format: str = DEFAULT_CONTAINER,
    regions: Sequence[np.ndarray[Any, Any]] | None = None,
    warm_starts: Sequence[bytes | None] | None = None,
    portable: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Result]:
    """:func:`optimize` for several images of one size at once; the seconds are shared out evenly.

    Raises:
        UsageError: the images differ in size, or λ is not a positive number.
        StreamError: a warm start is no stream, or one of another codec or size.
    """
    started = time.perf_counter()
    plan = profile if isinstance(profile, Profile) else load_profile(profile)
    pictures = [image if isinstance(image, Picture) else picture_of(image) for image in images]
    if len({picture.pixels.shape for picture in pictures}) != 1:
        raise UsageError("a batch holds images of one size")
    lmbda = _positive(codec.lmbda if lmbda is None else lmbda)
    height, width = pictures[0].pixels.shape[:2]
    _require_memory(codec, height, width, len(pictures))
    maps = None if regions is None else [region_of(region, height, width) for region in regions]
    tensors = [_to_tensor(picture) for picture in pictures]
    guesses = [codec.analyse(codec.pad(tensor)) for tensor in tensors]
    baselines = [
        _write(codec, picture, _plain(codec, guess), lmbda, format)
        for picture, guess in zip(pictures, guesses, strict=True)
    ]
    starts = [
        guess if stream is None else _latents_in(stream, codec, guess, height, width)
        for guess, stream in zip(guesses, warm_starts or [None] * len(guesses), strict=True)
    ]
    found = search(
        codec,
        torch.cat(tensors),
        plan,
        initial={name: torch.cat([start[name] for start in starts]) for name in codec.latents},
        lmbda=lmbda,
        seed=seed,
        region=None if maps is None else torch.stack([torch.from_numpy(r)[None] for r in maps]),
        offset=container(format).pixel_offset,
        on_progress=on_progress,
    )
    results = []
    for picture, baseline, best in zip(pictures, baselines, found, strict=True):
        symbols = codec.widen(best.symbols) if portable else best.symbols
        written = _write(codec, picture, symbols, lmbda, format)
        kept_search = written.measured.cost < baseline.measured.cost
        kept = written if kept_search else baseline
        results.append(
            Result(
                data=kept.data,
                pixels=kept.pixels,
                baseline=baseline.measured,
                optimised=kept.measured,
                baseline_pixels=baseline.pixels,
                codec=codec.name,
                quality=codec.quality,
                profile=plan.name,
                lmbda=lmbda,
                kept="search" if kept_search else "plain",
                evaluations=best.evaluations,
                seconds=(time.perf_counter() - started) / len(pictures),
                seed=seed,
                trace=best.trace,
            )
        )
    return results


def encode(
    image: ImageLike,
    *,
    codec: str | Codec = DEFAULT_CODEC,
    quality: float | None = None,
    format: str = DEFAULT_CONTAINER,
) -> bytes:
    """The plain encoding: the encoder network's guess, rounded. What ``optimize`` is measured against.

    Raises:
        LofError: as for :func:`optimize`.
    """
    loaded = codec if isinstance(codec, Codec) else load_codec(codec, quality, device="cpu")
    picture = image if isinstance(image, Picture) else picture_of(image)
    symbols = _plain(loaded, loaded.analyse(loaded.pad(_to_tensor(picture))))
    return _pack(loaded, picture, symbols, format)


def decode(data: bytes, *, name: str = "stream", weights: str | Path | None = None) -> Picture:
    """Decode a file in any container through the codec's own decoder.

    Args:
        data: the whole file.
        name: what errors call it.
        weights: folder with weights, as for :func:`lof.load_codec`.

    Raises:
        StreamError: not a stream, damaged, or written with other weights than those at hand.
        WeightsError: the codec's weights cannot be had.
    """
    return decode_parsed(unpack(data, name), name=name, weights=weights)


def decode_parsed(parsed: Stream, *, name: str = "stream", weights: str | Path | None = None) -> Picture:
    """:func:`decode` for a file that has been read already."""
    codec = codec_for(parsed, name=name, weights=weights)
    _require_memory(codec, parsed.height, parsed.width)
    try:
        decoded = codec.decompress(parsed.strings, parsed.height, parsed.width).image
    except StreamError as error:
        raise StreamError(f"{name}: {error}") from error
    pixels = container(parsed.container).to_pixels(decoded)
    return Picture(pixels, parsed.boxes)


def codec_for(parsed: Stream, *, name: str = "stream", weights: str | Path | None = None) -> Codec:
    """The codec that a file asks for, checked against the fingerprint in the file.

    Raises:
        StreamError: the weights at hand are not those that the file was written with.
    """
    codec = load_codec(parsed.codec, parsed.quality, metric=parsed.metric, weights=weights, device="cpu")
    if parsed.fingerprint and codec.fingerprint[:4] != parsed.fingerprint:
        raise StreamError(
            f"{name}: written with other weights of {parsed.codec} quality {parsed.quality:g} "
            f"(fingerprint {parsed.fingerprint.hex()}, here {codec.fingerprint[:4].hex()}); name theirs with --weights"
        )
    return codec


def _latents_in(data: bytes, codec: Codec, guess: Latents, height: int, width: int) -> Latents:
    """The latents of a stream, drawn towards the encoder's guess."""
    parsed = unpack(data, "warm start")
    if (parsed.codec, parsed.quality, parsed.metric) != (codec.name, codec.quality, codec.metric):
        raise StreamError(f"warm start: is of another codec than {codec.name} quality {codec.quality}")
    if parsed.fingerprint and parsed.fingerprint != codec.fingerprint[:4]:
        raise StreamError(
            f"warm start: was written with other weights of {codec.name}; name theirs with --weights"
        )
    if (parsed.height, parsed.width) != (height, width):
        raise StreamError(
            f"warm start: has {parsed.width}×{parsed.height} pixels, the image {width}×{height}"
        )
    decoded = codec.decompress(parsed.strings, height, width).values
    with torch.no_grad():  # predictions in the search's precision differ a little from the decoder's
        coded = codec.code({name: tensor.to(codec.device) for name, tensor in decoded.items()}, hard_rounding)
    latents = {}
    for name in codec.latents:
        # Between the integers lies what the encoder meant; a search from the integers alone finds less.
        value = coded[name].value
        latents[name] = value + (guess[name].to(value) - value).clamp(-_MEANT, _MEANT)
    return latents


def _plain(codec: Codec, latents: Latents) -> Symbols:
    """The encoder's guess, rounded where a standard encoder rounds it."""
    with torch.no_grad():
        return symbols_of(codec.code(latents, hard_rounding, exact=True))


def _pack(codec: Codec, picture: Picture, symbols: Symbols, format: str) -> bytes:
    height, width = picture.pixels.shape[:2]
    kind = container(format)
    kind.require(codec.name)
    stream = Stream(
        codec=codec.name,
        quality=codec.quality,
        metric=codec.metric,
        height=height,
        width=width,
        strings=tuple(codec.compress(symbols)),
        fingerprint=codec.fingerprint[:4],
        digest=symbols_digest({name: symbols[name].to(torch.int32).cpu().numpy() for name in codec.latents}),
        boxes={box: data for box, data in picture.boxes.items() if kind.keeps(box)},
    )
    return kind.pack(stream)


def _write(codec: Codec, picture: Picture, symbols: Symbols, lmbda: float, format: str) -> Written:
    """Write symbols, read the file back with the standard decoder, and measure what came out."""
    data = _pack(codec, picture, symbols, format)
    decoded = codec.decompress(unpack(data).strings, *picture.pixels.shape[:2])
    pixels = container(format).to_pixels(decoded.image)
    return Written(data, pixels, _measure(codec, picture.pixels, pixels, len(data), lmbda))


def _measure(codec: Codec, original: Pixels, decoded: Pixels, size: int, lmbda: float) -> Measured:
    error, similarity = mse(original, decoded), ms_ssim(original, decoded)
    if codec.metric == "ms-ssim":
        if similarity is None:
            raise SearchError("the image is too small for MS-SSIM; use a codec trained for mse")
        distortion = 1 - similarity
    else:
        distortion = error
    rate = bpp(size, *original.shape[:2])
    return Measured(size, rate, error, psnr(error), similarity, rate + lmbda * distortion)


def _to_tensor(picture: Picture) -> torch.Tensor:
    """(1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(picture.pixels).permute(2, 0, 1)[None].float() / 255


def _require_memory(codec: Codec, height: int, width: int, count: int = 1) -> None:
    require_memory(codec.memory_needed(height, width, count), codec.device, f"a {width}×{height} image")


def _positive(lmbda: float) -> float:
    if not (0 < lmbda < float("inf")):
        raise UsageError(f"lambda {lmbda}: must be a number above 0")
    return lmbda
