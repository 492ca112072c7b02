"""Codecs of others with a fault: one clear error instead of a file that nobody can read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from guest import guest, loaded
from numpy.typing import NDArray
from torch import Tensor

import lof
from lof import encoding
from lof.codecs import Codec, Decoded
from lof.errors import LofError, SearchError, StreamError
from lof.jobs import JobSettings
from lof.profiles import parse_profile

Cosine: Any = guest().CosineCodec
FLAT = np.zeros((64, 64, 3), np.uint8)
PROFILE = parse_profile({"name": "short", "stage": [{"kind": "mean-field", "evaluations": 2}]})


class NotFinite(Cosine):
    def analyse(self, images: Tensor) -> dict[str, Tensor]:
        spread = images.std((1, 2, 3), keepdim=True)
        return super().analyse(images / spread * spread)


class FloatSymbols(Cosine):
    def decompress(self, strings: Sequence[bytes], height: int, width: int) -> Decoded:
        found = super().decompress(strings, height, width)
        return replace(found, symbols=found.values)


class Losing(Cosine):
    def compress(self, symbols: Mapping[str, Tensor]) -> list[bytes]:
        return super().compress({name: tensor.clamp(-9, 9) for name, tensor in symbols.items()})


class Refusing(Cosine):
    def compress(self, symbols: Mapping[str, Tensor]) -> list[bytes]:
        if max(int(tensor.abs().max()) for tensor in symbols.values()) > 9:
            raise OverflowError("out of\nthe table")
        return super().compress(symbols)


class Nested(Cosine):
    def compress(self, symbols: Mapping[str, Tensor]) -> Any:
        return [[string] for string in super().compress(symbols)]


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (NotFinite, SearchError, "its latents of luma are not finite for this image"),
        (FloatSymbols, StreamError, "its symbols of luma are float32, not integers"),
        (Losing, SearchError, "reads other symbols than it has written; .* symbol_limit"),
        (
            Refusing,
            SearchError,
            r"compress fails on symbols of up to ±\d\d+ \(OverflowError: out of the table\); ",
        ),
        (Nested, SearchError, "compress gives a list where a string of bytes belongs"),
    ],
)
def test_what_cannot_be_read_again_is_not_written(
    kind: type[Codec], error: type[LofError], message: str, crop: NDArray[np.uint8]
) -> None:
    with pytest.raises(error, match=rf"^codec cosine: {message}") as caught:
        lof.optimize(FLAT if kind is NotFinite else crop, codec=loaded(kind), profile=PROFILE)
    assert "\n" not in str(caught.value)


def test_symbols_that_only_a_search_comes_to_and_that_cannot_be_written_are_one_clear_error(
    crop: NDArray[np.uint8],
) -> None:
    codec = loaded(Refusing)
    symbols = {
        name: torch.full_like(one, 10)
        for name, one in codec.symbols(codec.analyse(torch.zeros(1, 3, 8, 8))).items()
    }
    with pytest.raises(SearchError, match=r"symbols of up to ±10 .* symbol_limit$"):
        codec.rate(symbols)


def test_symbols_that_are_no_integers_are_one_error_of_decoding_that_names_the_file(
    crop: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lof.encode(crop, codec=loaded(FloatSymbols))
    monkeypatch.setattr(encoding, "load_codec", lambda *args, **options: loaded(FloatSymbols))
    with pytest.raises(StreamError, match=r"^face\.lof: codec cosine: its symbols of luma are float32"):
        lof.decode(data, name="face.lof")


def test_a_lambda_may_be_a_number_of_numpy(crop: NDArray[np.uint8]) -> None:
    codec, plain = loaded(Cosine), loaded(Cosine)
    codec.lmbda = np.float32(2**-6)  # type: ignore[assignment]
    plain.lmbda = 2**-6
    settings = JobSettings("cosine", PROFILE)
    assert settings.digest(codec) == settings.digest(plain)
    record = lof.optimize(crop, codec=codec, profile=PROFILE).record()
    assert json.loads(json.dumps(record))["lambda"] == 2**-6


def test_a_latent_that_is_not_finite_has_no_plain_encoding() -> None:
    with pytest.raises(SearchError, match="its latents of luma are not finite"):
        lof.encode(FLAT, codec=loaded(NotFinite))
