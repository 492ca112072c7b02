"""What a notebook imports: :func:`optimize`, :func:`encode`, :func:`decode`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lof.codecs import DEFAULT_CODEC, Codec, codec_for, codec_spec, load_codec, tensor_of
from lof.containers import Stream, container, container_for, container_of, unpack
from lof.containers.digest import check_digest
from lof.encoding import Symbols, Writer, arrays_of, codec_of, latents_in
from lof.errors import LowMemoryError, StreamError, UnknownCodecError, UsageError, WeightsError
from lof.machine.memory import require_memory
from lof.measure import TrueCost, region_of
from lof.pictures.picture import Picture
from lof.pictures.reading import picture_of
from lof.profiles import Profile, load_profile
from lof.results import Result, Target, check_arguments, check_batch, check_quality, checked_lambda
from lof.search import Progress, begin, search, search_in_windows, windows_for, with_gradients
from lof.targets import Ladder, reach_target

if TYPE_CHECKING:
    from PIL import Image

    ImageLike = Image.Image | np.ndarray[Any, Any] | torch.Tensor | Picture


def optimize(
    image: ImageLike,
    *,
    codec: str | Codec = DEFAULT_CODEC,
    quality: float | None = None,
    metric: str | None = None,
    profile: str | Path | Profile = "medium",
    lmbda: float | None = None,
    seed: int = 0,
    device: str = "auto",
    format: str | None = None,
    region: np.ndarray[Any, Any] | None = None,
    warm_start: bytes | None = None,
    portable: bool = True,
    never_bigger: bool = False,
    target: Target | None = None,
    memory: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Search better latents for one image and write them; the standard decoder reads the result.

    Args:
        image: PIL image, (H, W, 3) uint8 array, (3, H, W) float tensor in [0, 1], or a :class:`Picture`,
            whose boxes (ICC profile, EXIF, XMP, …) travel in the file.
        codec: name of a codec or of several (``msp``, of which the profile selects one), or a loaded one
            (``quality`` and ``device`` are then its own; another quality is refused).
        quality: rate point of the codec; its default if ``None``.
        metric: what is optimised, ``mse`` or ``ms-ssim``: by a codec made for it, where there is one of that name, or
            else by one made for the other. What a loaded codec was made for, or ``mse``, if ``None``.
        profile: ``fast``, ``medium``, ``high``, ``max``, the path of a TOML file, or a profile.
        lmbda: λ of ``bpp + λ·D``; :meth:`~lof.codecs.Codec.lambda_for` the metric if ``None``.
        seed: of the search's random numbers. Same image, profile, seed and device: same bytes.
        device: where the search runs; see :func:`lof.load_codec`.
        format: name of the container, ``lof``, ``jpeg`` or ``compressai``; the codec's own if ``None``. See
            :mod:`lof.containers`.
        region: (H, W), 0 or more, how much each pixel's error counts, in the search and in what is kept.
        warm_start: a stream of this image by this codec, from whose latents the search starts.
        portable: write files that CPUs with other instructions read too (:meth:`Codec.widen`), the plain encoding
            included.
        never_bigger: keep the plain encoding where the better file would have more bytes.
        target: a size or a quality to come to, such as ``Target(size=200_000)`` or ``Target(psnr=38)``, over all
            qualities of a codec that is named, and over λ. With ``quality``, or a loaded codec, λ alone moves.
        memory: bytes that this process may take. An image whose search does not fit is searched in windows
            (:mod:`lof.search.windows`); the file is an ordinary one.
        on_progress: called after every gradient evaluation.

    Raises:
        LofError: one of its kinds, with one line that says what to do. For a target: :class:`lof.errors.TargetError`
            where no file meets it, and ``UsageError`` beside ``lmbda`` or ``warm_start``.
    """
    check_arguments(quality=quality, metric=metric, lmbda=lmbda, seed=seed, target=target, memory=memory)
    check_quality(codec, quality)
    plan = profile if isinstance(profile, Profile) else load_profile(profile)
    if target is not None:
        if lmbda is not None or warm_start is not None or never_bigger:
            raise UsageError(
                "a target decides on λ itself, the start and the size; leave out lmbda, warm_start and never_bigger"
            )
        return optimize_to(
            image,
            target,
            _ladder(codec, plan, quality, metric or "mse", device),
            plan,
            metric=metric,
            seed=seed,
            format=format,
            region=region,
            portable=portable,
            memory=memory,
            on_progress=on_progress,
        )
    if not isinstance(codec, Codec):
        name = codec_for(codec, plan.name)
        codec = load_codec(name, quality, metric=codec_spec(name).made_for(metric or "mse"), device=device)
    return optimize_batch(
        [image],
        codec,
        plan,
        metric=metric,
        lmbda=lmbda,
        seed=seed,
        format=format,
        regions=None if region is None else [region],
        warm_starts=None if warm_start is None else [warm_start],
        portable=portable,
        never_bigger=never_bigger,
        memory=memory,
        on_progress=on_progress,
    )[0]


@with_gradients
def optimize_to(
    image: ImageLike,
    target: Target,
    ladder: Ladder,
    profile: Profile,
    *,
    metric: str | None = None,
    seed: int = 0,
    format: str | None = None,
    region: np.ndarray[Any, Any] | None = None,
    portable: bool = True,
    memory: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Result:
    """:func:`optimize` with a target, at the qualities of a :class:`lof.targets.Ladder`; the rest is as there."""
    check_arguments(metric=metric, seed=seed, target=target, memory=memory)
    picture = picture_of(image)
    return reach_target(
        picture,
        target,
        ladder,
        profile,
        format=format or container_for(ladder.load(ladder.start).name),
        metric=metric,
        seed=int(seed),
        region=None if region is None else region_of(region, *picture.pixels.shape[:2]),
        portable=portable,
        memory=memory,
        on_progress=on_progress,
    )


@with_gradients
def optimize_batch(
    images: Sequence[ImageLike],
    codec: Codec,
    profile: str | Path | Profile = "medium",
    *,
    metric: str | None = None,
    lmbda: float | None = None,
    seed: int = 0,
    format: str | None = None,
    regions: Sequence[np.ndarray[Any, Any]] | None = None,
    warm_starts: Sequence[bytes | None] | None = None,
    portable: bool = True,
    never_bigger: bool = False,
    memory: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Result]:
    """:func:`optimize` for several images of one size at once; the seconds are shared out evenly.

    Raises:
        UsageError: there are no images, they differ in size, or there are other numbers of regions or warm starts;
            λ is not a positive number, or there is no such metric.
        StreamError: a warm start is no stream, or one of another codec or size.
        SearchError: a region does not fit its image, or the codec cannot write, or not read again, what it is given.
        LowMemoryError: too little memory is free, or ``memory`` is too little for any window.
    """
    started = time.perf_counter()
    check_arguments(metric=metric, lmbda=lmbda, seed=seed, memory=memory)
    seed = int(seed)  # torch takes no NumPy number
    if not isinstance(codec, Codec):
        raise UsageError(f"codec {codec!r}: must be a loaded one, such as lof.load_codec('lapped')")
    plan = profile if isinstance(profile, Profile) else load_profile(profile)
    pictures = [picture_of(image) for image in images]
    check_batch([picture.pixels.shape for picture in pictures], regions=regions, warm_starts=warm_starts)
    metric = metric or codec.metric
    lmbda = checked_lambda(codec.lambda_for(metric) if lmbda is None else lmbda)
    height, width = pictures[0].pixels.shape[:2]
    codec = codec.for_size(height, width)
    format = format or container_for(codec.name)
    windows = [] if memory is None else windows_for(codec, height, width, memory)
    needed = memory if memory and windows else codec.memory_needed(height, width, len(pictures))
    require_memory(needed, codec.device, f"a {width}×{height} image")
    maps = [None] * len(pictures) if regions is None else [region_of(one, height, width) for one in regions]
    writers = [
        Writer(codec, picture, format, TrueCost(picture.pixels, lmbda, metric, region))
        for picture, region in zip(pictures, maps, strict=True)
    ]
    begun = [begin(codec, picture, windows) for picture in pictures]
    notes = [each.note for each in begun]
    plain: list[Symbols] = [codec.symbols(each.plain) for each in begun]
    files = [writer.pack(symbols) for writer, symbols in zip(writers, plain, strict=True)]
    if codec.portable:
        plain.clear()
    baselines = [writer.measured(data) for writer, data in zip(writers, files, strict=True)]
    starts = [
        each.start
        if stream is None
        else latents_in(stream, codec, each.plain, height, width, large=bool(windows))
        for each, stream in zip(begun, warm_starts or [None] * len(begun), strict=True)
    ]
    del begun  # of a large image everything that is not needed any more is dropped, here and above
    if windows:
        found = [
            search_in_windows(
                codec,
                picture.pixels,
                plan,
                windows,
                latents=start,
                lmbda=lmbda,
                metric=metric,
                seed=seed,
                region=region,
                offset=container(format).pixel_offset,
                on_progress=on_progress,
            )
            for picture, start, region in zip(pictures, starts, maps, strict=True)
        ]
    else:
        found = search(
            codec,
            torch.cat([tensor_of(picture) for picture in pictures]),
            plan,
            initial={name: torch.cat([start[name] for start in starts]) for name in codec.latents},
            lmbda=lmbda,
            metric=metric,
            seed=seed,
            region=None if regions is None else torch.stack([torch.as_tensor(one)[None] for one in maps]),
            offset=container(format).pixel_offset,
            on_progress=on_progress,
        )
    starts.clear()
    results = []
    for index, (writer, first, best) in enumerate(zip(writers, baselines, found, strict=True)):
        baseline, symbols = first, codec.symbols(best.latents)
        best.latents.clear()
        data = writer.pack(codec.widen(symbols) if portable else symbols)
        del symbols
        searched = writer.measured(data)
        bigger = never_bigger and len(searched.data) > len(baseline.data)
        if portable and not codec.portable and (bigger or searched.measured.cost >= baseline.measured.cost):
            # Only now: widening takes a while, and where the search wins nobody reads the plain encoding.
            baseline = writer.write(codec.widen(plain[index]))
            bigger = never_bigger and len(searched.data) > len(baseline.data)
        won = searched.measured.cost < baseline.measured.cost and not bigger
        kept = searched if won else baseline
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
                kept="search" if won else "plain",
                evaluations=best.evaluations,
                seconds=0.0,
                seed=seed,
                metric=metric,
                trace=best.trace,
                note=notes[index],
            )
        )
    seconds = (time.perf_counter() - started) / len(results)
    return [replace(result, seconds=seconds) for result in results]


@with_gradients
def encode(
    image: ImageLike,
    *,
    codec: str | Codec = DEFAULT_CODEC,
    quality: float | None = None,
    format: str | None = None,
    portable: bool = True,
) -> bytes:
    """The plain encoding: the encoder's guess, rounded. What ``optimize`` is measured against.

    Raises:
        LofError: as for :func:`optimize`.
    """
    check_quality(codec, quality)
    if not isinstance(codec, Codec):
        codec = load_codec(codec_for(codec, "medium"), quality, device="cpu")
    picture = picture_of(image)
    codec = codec.for_size(*picture.pixels.shape[:2])
    symbols = codec.symbols(begin(codec, picture, ()).plain)
    cost = TrueCost(picture.pixels, codec.lmbda, codec.metric)
    writer = Writer(codec, picture, format or container_for(codec.name), cost)
    return writer.pack(codec.widen(symbols) if portable else symbols)


def repack(data: bytes, *, name: str = "file") -> bytes:
    """A JPEG in fewer bytes: the same coefficients, pixels and metadata, which is checked; ``data`` itself at most.

    Raises:
        StreamError: damaged, of a kind that cannot be packed anew, or no such file; one line that starts with ``name``.
    """
    codecs = sorted(container_of(data, name).native)
    if not codecs:
        raise StreamError(f"{name}: is no JPEG; give lof optimize the picture that it was made from")
    try:
        return load_codec(codecs[0], device="cpu").repack(data)
    except (StreamError, LowMemoryError) as error:
        raise type(error)(f"{name}: {error}") from error


def decode(
    data: bytes,
    *,
    name: str = "stream",
    weights: str | Path | None = None,
    download: bool = False,
) -> Picture:
    """Decode a file in any container through the codec's own decoder.

    A JPEG to which a codec added something that cannot be used here is decoded as the plain picture that it is, and the
    picture's notes say so.

    Args:
        data: the whole file.
        name: what errors call it.
        weights: folder with weights, as for :func:`lof.load_codec`.
        download: whether weights that are not on this machine may be fetched from the network.

    Raises:
        StreamError: not a stream, damaged, written with other weights than those at hand, or read here as other
            symbols than were written.
        WeightsError: the codec's weights cannot be had.
        LowMemoryError: too little memory is free to decode it.
    """
    return decode_shown(unpack(data, name), name=name, weights=weights, download=download)


def decode_shown(
    stream: Stream, *, name: str = "stream", weights: str | Path | None = None, download: bool = False
) -> Picture:
    """:func:`decode` for a file that has been unpacked already: the plain picture where the file has one, and no more
    can be made of it. The picture's notes say so.
    """
    try:
        picture, _ = decode_stream(stream, name=name, weights=weights, download=download)
    except (StreamError, WeightsError, UnknownCodecError) as error:
        if stream.plain is None:
            raise
        why = str(error).removeprefix(f"{name}: ")
        note = f"{name}: what lof added to this JPEG cannot be used ({why}); this is the plain picture"
        return decode_shown(replace(stream.plain, note=note), name=name)
    return replace(picture, notes=(*picture.notes, stream.note)) if stream.note else picture


@with_gradients
def decode_stream(
    stream: Stream, *, name: str = "stream", weights: str | Path | None = None, download: bool = False
) -> tuple[Picture, dict[str, np.ndarray[Any, Any]]]:
    """A file's picture, decoded as its codec does it or not at all, and its symbols, (1, C, h, w) by latent tensor.

    Raises:
        LofError: as for :func:`decode`.
    """
    codec = codec_of(stream, name=name, weights=weights, download=download)
    needed = codec.decoding_memory(stream.height, stream.width)
    require_memory(needed, None, f"{name}: a {stream.width}×{stream.height} image", "decode")
    try:
        decoded = codec.decompress(stream.strings, stream.height, stream.width)
        symbols = arrays_of(codec, decoded.symbols)
    except (StreamError, LowMemoryError) as error:
        raise type(error)(f"{name}: {error}") from error
    check_digest(stream, symbols, name, portable=codec.portable)
    return Picture(container(stream.container).to_pixels(decoded.image), stream.boxes), symbols


def _ladder(codec: str | Codec, plan: Profile, quality: float | None, metric: str, device: str) -> Ladder:
    if isinstance(codec, Codec):
        return Ladder.of_one(codec)
    spec = codec_spec(codec_for(codec, plan.name))
    made_for = spec.made_for(metric)
    load = partial(load_codec, spec.name, metric=made_for, device=device)
    return Ladder.of(spec, made_for, load) if quality is None else Ladder.of_one(load(quality))
