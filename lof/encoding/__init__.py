"""From latents to a file and back: plain encodings, and files that the standard decoder has read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lof.codecs import Codec, Latents
from lof.containers import Stream, container, unpack
from lof.containers.digest import symbols_digest
from lof.measure import TrueCost
from lof.pictures.picture import Picture
from lof.results import Measured, Pixels
from lof.search import symbols_of

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
            strings=tuple(self.codec.compress(symbols)),
            fingerprint=self.codec.fingerprint[:4],
            digest=symbols_digest(arrays_of(self.codec, symbols)),
            boxes={box: data for box, data in self.picture.boxes.items() if kind.keeps(box)},
        )
        return kind.pack(stream)

    def read(self, data: bytes) -> Pixels:
        """What the standard decoder makes of a file, (H, W, 3)."""
        decoded = self.codec.decompress(unpack(data).strings, *self.picture.pixels.shape[:2])
        return container(self.format).to_pixels(decoded.image)

    def write(self, symbols: Symbols) -> Written:
        """The file, read back and measured."""
        data = self.pack(symbols)
        pixels = self.read(data)
        return Written(data, pixels, self.cost.measure(len(data), pixels))


def plain_symbols(codec: Codec, latents: Latents) -> Symbols:
    """The encoder's guess, rounded where a standard encoder rounds it."""
    with torch.no_grad():
        return symbols_of(codec.code(latents, codec.rounded, exact=True))


def arrays_of(codec: Codec, symbols: Symbols) -> dict[str, np.ndarray[Any, Any]]:
    """Symbols in decoding order, as the digest takes them."""
    return {name: symbols[name].cpu().numpy() for name in codec.latents}
