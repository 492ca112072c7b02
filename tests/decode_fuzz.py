"""Decode crafted files, one line for each; ``test_api.py`` gives it a process of its own, so that a crash is seen.

The container's checksum is right in all of them: what arrives at the entropy decoder is what somebody made up.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

import lof
from lof.containers import Stream, container, unpack
from lof.pictures.picture import Picture

SIDE = 64
CASES = 300


def damaged(rng: random.Random, string: bytes) -> bytes:
    """One string flipped, cut, spliced, drawn out, or made up; mostly of whole words, as rANS writes them."""
    words = 4 * rng.randrange(len(string) // 4 + 1)
    at = rng.randrange(len(string))
    kinds = (
        lambda: string[:at] + bytes([string[at] ^ 1 << rng.randrange(8)]) + string[at + 1 :],
        lambda: string[:words],
        lambda: string[:at],
        lambda: string[words:] + string[:words],
        lambda: string[:words] + rng.randbytes(4 * rng.randrange(40)) + string[words:],
        lambda: rng.randbytes(4 * rng.randrange(200)),
        # Ones are the escape of CompressAI's coder: they ask for more bits than the string has.
        lambda: (
            string[:words]
            + rng.choice([b"\xff", b"\x00"]) * (4 * rng.choice([2, 20, 50, 200, 1000, 100_000]))
        ),
    )
    return rng.choice(kinds)()


def crafted(rng: random.Random, valid: Stream, zoo: Stream) -> Iterator[bytes]:
    """Files that every check of their format lets through."""
    own = container("lof")
    for _ in range(CASES):
        strings = list(valid.strings)
        for index in rng.choice([(0,), (1,), (0, 1)]):
            strings[index] = damaged(rng, strings[index])
        yield own.pack(replace(valid, strings=tuple(strings)))
    for height, width in ((1, 1), (300, 200), (65, 64)):
        yield own.pack(replace(valid, height=height, width=width))
    yield own.pack(replace(valid, strings=valid.strings[::-1]))
    yield own.pack(replace(valid, strings=valid.strings[:1]))
    yield own.pack(replace(valid, strings=valid.strings * 2))
    for _ in range(CASES // 10):
        strings = [damaged(rng, string) for string in zoo.strings]
        yield container("compressai").pack(replace(zoo, strings=tuple(strings)))


def decode_crafted(weights: Path, verdicts: Path) -> None:
    """Write a line to ``verdicts`` for each file."""
    warnings.simplefilter("error", RuntimeWarning)
    with verdicts.open("w") as lines:
        for verdict in _verdicts(weights):
            print(verdict, file=lines, flush=True)


def _verdicts(weights: Path) -> Iterator[str]:
    rng = random.Random(0)
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    tiny = lof.load_codec("tiny", device="cpu")
    zoo = lof.load_codec("mbt2018-mean", 1, weights=weights, device="cpu")
    for data in crafted(
        rng,
        unpack(lof.encode(pixels, codec=tiny)),
        unpack(lof.encode(pixels, codec=zoo, format="compressai")),
    ):
        header = unpack(data)
        try:
            picture = lof.decode(data, weights=None if header.codec == "tiny" else weights)
        except lof.LofError as error:
            yield "refused" if "\n" not in str(error) else f"not one line: {error}"
        else:
            assert isinstance(picture, Picture)
            assert picture.pixels.shape == (header.height, header.width, 3)
            assert picture.pixels.dtype == np.uint8
            yield "decoded"
