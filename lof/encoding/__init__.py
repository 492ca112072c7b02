"""From latents to a file and back: plain encodings, and files that the standard decoder has read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lof.codecs import Codec, Latents, load_codec
from lof.codecs.checks import strings_of
from lof.containers import Stream, container, unpack
from lof.containers.digest import symbols_digest
from lof.errors import LofError, SearchError, StreamError
from lof.measure import TrueCost
from lof.pictures.picture import Picture
from lof.results import Measured, Pixels

_MEANT = 0.25  # of a quantisation step, which a warm start may be away from the stream's latents

Symbols = Mapping[str, torch.Tensor]
"""Rounded residuals by latent tensor, as :meth:`Codec.compress` takes them."""


@dataclass(frozen=True)
class Written:
    """A file, and what the standard decoder makes of it."""

    data: bytes
    pixels: Pixels
    measured: Measured


@dataclass(frozen=True)
class Writer:
    """Writes symbols of one picture, reads the file back with the standard decoder, and measures what came out."""

    codec: Codec
    picture: Picture
    format: str
    cost: TrueCost

    def pack(self, symbols: Symbols) -> bytes:
        """The file.

        Raises:
            UsageError: the format cannot hold the codec's streams.
            SearchError: the codec cannot write the symbols.
        """
        kind = container(self.format)
        kind.require(self.codec.name)
        height, width = self.picture.pixels.shape[:2]
        stream = Stream(
            codec=self.codec.name,
            quality=self.codec.quality,
            metric=self.codec.metric,
            height=height,
            width=width,
            strings=tuple(strings_of(self.codec, symbols)),
            fingerprint=self.codec.fingerprint[:4],
            digest=symbols_digest(arrays_of(self.codec, symbols)),
            boxes={box: data for box, data in self.picture.boxes.items() if kind.keeps(box, data)},
        )
        return kind.pack(stream)

    def read(self, data: bytes) -> Pixels:
        """What the standard decoder makes of a file, (H, W, 3)."""
        strings = unpack(data).strings
        return container(self.format).to_pixels(
            self.codec.decoded_image(strings, *self.picture.pixels.shape[:2])
        )

    def measured(self, data: bytes) -> Written:
        """A file, read back and measured.

        Raises:
            SearchError: the codec reads other symbols than were written.
            StreamError: it reads none, or no integers.
        """
        stream = unpack(data)
        found = self.codec.decompress(stream.strings, stream.height, stream.width)
        if stream.digest and symbols_digest(arrays_of(self.codec, found.symbols)) != stream.digest:
            raise SearchError(
                f"codec {self.codec.name}: reads other symbols than it has written; where compress cannot write large "
                "ones, say so with symbol_limit, and let lof.testing.check_codec look at it"
            )
        pixels = container(self.format).to_pixels(found.image)
        return Written(data, pixels, self.cost.measure(len(data), pixels))

    def write(self, symbols: Symbols) -> Written:
        """The file, read back and measured."""
        return self.measured(self.pack(symbols))


def arrays_of(codec: Codec, symbols: Symbols) -> dict[str, np.ndarray[Any, Any]]:
    """Symbols in decoding order, as the digest takes them.

    Raises:
        StreamError: they are no integers.
    """
    arrays = {name: symbols[name].cpu().numpy() for name in codec.latents}
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.integer):
            raise StreamError(
                f"codec {codec.name}: its symbols of {name} are {array.dtype}, not integers; correct its decompress"
            )
    return arrays


def codec_of(
    stream: Stream, *, name: str = "stream", weights: str | Path | None = None, download: bool = False
) -> Codec:
    """The codec that a file asks for, for pictures of its size, checked against the fingerprint in the file.

    Raises:
        StreamError: the weights at hand are not those that the file was written with.
        UnknownCodecError: there is no such codec here, or it lacks the quality or the metric.
        WeightsError: the weights cannot be had.
    """
    try:
        codec = load_codec(
            stream.codec,
            stream.quality,
            metric=stream.metric,
            weights=weights,
            device="cpu",
            download=download,
        ).for_size(stream.height, stream.width)
    except LofError as error:
        raise type(error)(f"{name}: {error}") from error
    if stream.fingerprint and codec.fingerprint[:4] != stream.fingerprint:
        raise StreamError(
            f"{name}: written with other weights of {stream.codec} quality {stream.quality:.10g} "
            f"(fingerprint {stream.fingerprint.hex()}, here {codec.fingerprint[:4].hex()}); {_remedy(codec)}"
        )
    return codec


def _remedy(codec: Codec) -> str:
    return (
        "name theirs with --weights" if codec.state() else "install the version of its package that wrote it"
    )


def latents_in(
    data: bytes, codec: Codec, guess: Latents, height: int, width: int, *, large: bool = False
) -> Latents:
    """The latents of a stream, drawn towards the encoder's guess.

    Args:
        large: whether the image is searched in windows, so that a search's predictions for all of it do not fit.

    Raises:
        StreamError: it is none, or one of another codec or size.
    """
    parsed = unpack(data, "warm start")
    if (parsed.codec, parsed.quality, parsed.metric) != (codec.name, codec.quality, codec.metric):
        raise StreamError(f"warm start: is of another codec than {codec.name} quality {codec.quality:.10g}")
    if parsed.fingerprint and parsed.fingerprint != codec.fingerprint[:4]:
        raise StreamError(f"warm start: was written with other weights of {codec.name}; {_remedy(codec)}")
    if (parsed.height, parsed.width) != (height, width):
        raise StreamError(
            f"warm start: has {parsed.width}×{parsed.height} pixels, the image {width}×{height}"
        )
    decoded = codec.decompress(parsed.strings, height, width).values
    values: Mapping[str, torch.Tensor] = decoded
    if not large:
        with torch.no_grad():  # predictions in the search's precision differ a little from the decoder's
            coded = codec.code(
                {name: tensor.to(codec.device) for name, tensor in decoded.items()}, codec.rounded
            )
        values = {name: part.value for name, part in coded.items()}
    latents = {}
    for name in codec.latents:
        # Between the integers lies what the encoder meant; a search from the integers alone finds less.
        value = values[name]
        latents[name] = value + (guess[name].to(value) - value).clamp(-_MEANT, _MEANT)
    return latents
