"""Codecs of others with a fault: one clear error instead of a file that nobody can read."""

from __future__ import annotations

import copy
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
from lof.codecs import Codec, Coded, Decoded, Locality, Request
from lof.errors import LofError, SearchError, StreamError
from lof.jobs import JobSettings
from lof.profiles import parse_profile
from lof.testing import check_attributes, check_codec, check_parts_are_as_in_the_whole, picture

Cosine: Any = guest().CosineCodec
ATTRIBUTES = ("latents", "synthesised", "stride", "name", "quality", "metric", "lmbda")
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


class Limited(Cosine):
    symbol_limit = None

    def compress(self, symbols: Mapping[str, Tensor]) -> list[bytes]:
        for tensor in symbols.values():
            if int(tensor.abs().max()) > 9999:
                raise OverflowError("out of the table")
        return super().compress(symbols)


class Double(Cosine):
    def analyse(self, images: Tensor) -> dict[str, Tensor]:
        return {name: tensor.double() for name, tensor in super().analyse(images).items()}


class Nested(Cosine):
    def compress(self, symbols: Mapping[str, Tensor]) -> Any:
        return [[string] for string in super().compress(symbols)]


class Silent(Cosine):
    def compress(self, symbols: Mapping[str, Tensor]) -> Any:
        super().compress(symbols)


class Unpriced(Cosine):
    def code(self, latents: Mapping[str, Tensor], quantize: Any, *, exact: bool = False) -> dict[str, Coded]:
        return {"luma": super().code(latents, quantize, exact=exact)["luma"]}


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
        (Silent, SearchError, "compress gives a NoneType where a list of strings belongs"),
        (Unpriced, SearchError, "there are no symbols of chroma, which latents names; correct analyse and"),
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


def test_another_version_of_a_codec_without_weights_is_noticed(
    crop: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (loaded(guest(version).CosineCodec) for version in (1, 2))
    data = lof.encode(crop, codec=first)
    monkeypatch.setattr(encoding, "load_codec", lambda *args, **options: first)
    lof.decode(data)
    monkeypatch.setattr(encoding, "load_codec", lambda *args, **options: second)
    with pytest.raises(StreamError, match=r"^face\.lof: written with other .*fingerprint "):
        lof.decode(data, name="face.lof")
    settings = JobSettings("cosine", PROFILE)
    assert settings.digest(first) != settings.digest(second)


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


class Histories(Cosine):
    def analyse(self, images: Tensor) -> dict[str, Tensor]:
        return super().analyse(images * torch.ones(1, requires_grad=True))


class Unscaled(Cosine):
    """Latents and values in units of the transform, so that a step in a residual is none in the value."""

    def analyse(self, images: Tensor) -> dict[str, Tensor]:
        return {name: tensor * self.step for name, tensor in super().analyse(images).items()}

    def code(self, latents: Mapping[str, Tensor], quantize: Any, *, exact: bool = False) -> dict[str, Coded]:
        coded = super().code({n: tensor / self.step for n, tensor in latents.items()}, quantize)
        return {name: replace(one, value=one.value * self.step) for name, one in coded.items()}

    def synthesise(self, values: Mapping[str, Tensor], *, exact: bool = False) -> Tensor:
        return super().synthesise({name: value / self.step for name, value in values.items()})

    def decompress(self, strings: Sequence[bytes], height: int, width: int) -> Decoded:
        found = super().decompress(strings, height, width)
        values = {name: value * self.step for name, value in found.values.items()}
        return Decoded(
            self.crop(self.synthesise(values), height, width)[0].clamp(0, 1), found.symbols, values
        )


class HalfScaled(Unscaled):
    def analyse(self, images: Tensor) -> dict[str, Tensor]:
        return {name: tensor / self.step for name, tensor in super().analyse(images).items()}

    def code(self, latents: Mapping[str, Tensor], quantize: Any, *, exact: bool = False) -> dict[str, Coded]:
        return super().code({n: tensor * self.step for n, tensor in latents.items()}, quantize)


class Accented(Cosine):
    latents = synthesised = ("ŷ",)


class Many(Cosine):
    def compress(self, symbols: Mapping[str, Tensor]) -> list[bytes]:
        return [*super().compress(symbols), *[b"x"] * 15]


class Nameless(Cosine):
    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.name = "a name"


class Partial(Cosine):
    def analyse(self, images: Tensor) -> dict[str, Tensor]:
        return {"luma": super().analyse(images)["luma"]}


class Listed(Cosine):
    def analyse(self, images: Tensor) -> Any:
        return list(super().analyse(images).values())


class Inexact(Cosine):
    def code(self, latents: Mapping[str, Tensor], quantize: Any) -> dict[str, Coded]:
        return super().code(latents, quantize)


class Arrays(Cosine):
    def decompress(self, strings: Sequence[bytes], height: int, width: int) -> Any:
        found = super().decompress(strings, height, width)
        return replace(found, image=found.image.numpy())


class Bare(Cosine):
    def decompress(self, strings: Sequence[bytes], height: int, width: int) -> Any:
        return super().decompress(strings, height, width).image


class Raising(Cosine):
    def synthesise(self, values: Mapping[str, Tensor], *, exact: bool = False) -> Tensor:
        raise ValueError("wrong in\ntwo lines")


class Nowhere(Cosine):
    def for_size(self, height: int, width: int) -> Any:
        return None


class Global(Cosine):
    """All is told as a difference to the first column."""

    locality = Locality(grid=8, reach=16)

    def analyse(self, images: Tensor) -> dict[str, Tensor]:
        return super().analyse(images - images[..., :1])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NotFinite, "analyse: latents of luma are not finite for a flat picture"),
        (Double, r"analyse: latents of luma are torch\.float64, not float32"),
        (Limited, "compress fails on symbols of up to ±20000 .* symbol_limit"),
        (Histories, r"analyse: run it under torch\.no_grad\(\)"),
        (FloatSymbols, "its symbols of luma are float32, not integers"),
        (Losing, r"decompress: other symbols than a file has \(128×128\)"),
        (Nested, "compress gives a list where a string of bytes belongs"),
        (Unscaled, "value: that of luma does not rise by 1 with its residual; .* into synthesise"),
        (HalfScaled, "value: that of luma is not the latent, though nothing was rounded; .* into synthesise"),
        (Accented, "latents: 'ŷ' is not 1 to 255 ASCII characters"),
        (Many, "a file of a 128×128 image: .* 17 strings instead of 1 to 16"),
        (Nameless, "a file of a 128×128 image: .* the codec name 'a name' is not"),
        (Silent, "compress gives a NoneType where a list of strings belongs"),
        (Partial, "^analyse: holds luma; latents names luma, chroma$"),
        (Listed, "^analyse: a list, not a dict by latent tensor$"),
        (Unpriced, "there are no symbols of chroma, which latents names"),
        (Inexact, r"TypeError: .*code\(\) got an unexpected keyword argument 'exact'$"),
        (Arrays, "^decompress: its image is a ndarray, not a Tensor$"),
        (Bare, r"^decompress: gives a Tensor, not a lof\.codecs\.Decoded$"),
        (Raising, r"^Raising\.synthesise: ValueError: wrong in two lines$"),
        (Nowhere, "^for_size: gives no codec$"),
        (Global, "locality: analyse gives another luma in a part than in the whole"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_the_checks_of_the_contract_find_it(kind: type[Codec], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_codec(loaded(kind))


@pytest.mark.parametrize(
    "name",
    [*ATTRIBUTES, "bytes_per_pixel", "decoding_bytes_per_pixel"],
)
def test_the_checks_say_which_attribute_is_missing(name: str) -> None:
    codec = loaded(guest().CosineCodec)
    delattr(codec if name in vars(codec) else type(codec), name)
    with pytest.raises(AssertionError, match=rf"^{name}: is missing$|has no attribute '{name}'$"):
        check_codec(codec)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stride", 0, "stride 0: not above 0"),
        ("stride", 8.0, r"stride 8\.0: must be a whole number"),
        ("device", "cpu", r"device 'cpu': must be a torch\.device"),
        ("precision", "fp32", r"precision 'fp32': must be a torch\.dtype"),
        ("quality", "4", "quality '4': must be a number"),
        ("lmbda", "0.1", "lmbda '0.1': must be a number"),
        ("lmbda", float("inf"), "lmbda: lambda inf: must be a number above 0, from 1e-20 to "),
        ("lmbda", 0.0, "lmbda: lambda 0: must be a number above 0, from 1e-20 to "),
        ("fingerprint", "ab" * 16, "fingerprint '(ab)+': must be bytes"),
    ],
)
def test_the_checks_say_what_is_wrong_with_an_attribute(name: str, value: Any, message: str) -> None:
    codec = loaded(Cosine)
    setattr(codec, name, value)
    with pytest.raises(AssertionError, match=f"^{message}"):
        check_codec(codec)


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    codec = loaded(Cosine)
    for codec.quality, codec.lmbda in ((np.float64(4), np.float32(0.01)), (4, torch.tensor(0.01))):
        check_attributes(codec, picture())


@pytest.mark.parametrize(
    ("name", "grid", "message"),
    [
        ("jointiq-tiny", 64, "code gives another y in a part than in the whole"),
        ("lapped-tiny", 32, "grid is no multiple of the 64 pixels of a place of z"),
    ],
)
def test_the_checks_know_grids_that_are_too_fine(name: str, grid: int, message: str) -> None:
    codec = copy.copy(lof.load_codec(name, device="cpu"))
    codec.locality = Locality(grid=grid, reach=128)
    with pytest.raises(AssertionError, match=f"^locality: {message}"):
        check_parts_are_as_in_the_whole(codec, picture())


def test_a_part_that_is_as_in_the_whole_may_have_any_grid_and_stride() -> None:
    codec = loaded(Cosine)
    codec.stride, codec.locality = 48, Locality(grid=32, reach=8)  # type: ignore[misc]
    check_codec(codec)
