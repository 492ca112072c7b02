"""Strings of descriptors: the text that describes them is enough to read them, in every codec that has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from descriptors_numpy_decoder import NumpyDecoder, in_jpeg, of_rate
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file

import lof
from lof.codecs import load_codec, trainable
from lof.codecs.descriptors.classes import NAME
from lof.codecs.descriptors.context import Context
from lof.codecs.descriptors.strings import Coder
from lof.codecs.jpeg.descriptors.config import CONFIGS
from lof.codecs.jpeg.descriptors.network import DescriptorNetwork
from lof.codecs.lapped.jointiq.config import DESCRIBED
from lof.containers import container, unpack

SHIPPED = Path(lof.codecs.__path__[0]) / "jpeg" / "descriptors" / "data"
TINY = "jpeg-descriptors-tiny"
SIZES = [(1, 1), (13, 140), (101, 27), (150, 190)]
"""Of pictures: 1×1, 1×9, 7×2 and 10×12 descriptors."""


def lively(context: Context) -> None:
    """Untrained, but its predictions differ from place to place and from level to level."""
    with torch.no_grad():
        for name, layer in context.layers().items():
            layer.weight.mul_({"near": 8, "leave": 40}.get(name, 2))
            layer.bias.add_(torch.rand_like(layer.bias))
    context.to_grid()


def some_map(rows: int, columns: int) -> NDArray[np.int64]:
    """Of all classes, if it has room for them, with smooth parts and noise."""
    random = np.random.default_rng(rows)
    chosen = np.where(random.random((rows, columns)) < 0.5, 3, random.integers(0, 16, (rows, columns)))
    chosen[0, 0] = 7  # a map of 0 or 15 alone has no string to speak of
    return chosen


def some_pixels(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height).integers(60, 200, (height, width, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = DescriptorNetwork(*CONFIGS[TINY].sizes)
    lively(net.context)
    folder = tmp_path_factory.mktemp("untrained")
    save_file(net.shippable_state(), folder / f"{TINY}.safetensors")
    return folder


@pytest.fixture(scope="module", params=["untrained", "shipped"])
def learned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a learned codec with descriptors, whose probability model is new, or that which ships for JPEGs."""
    torch.manual_seed(1)
    sizes = (DESCRIBED, 8, 4, 2, 1, CONFIGS[TINY].width)
    net: Any = trainable("jointiq-tiny").build({"enhancement": sizes})
    lively(net.enhancement.context)
    state = dict(trainable("jointiq-tiny").ship(net.state_dict(), "mse", None, "a test").tensors)
    if request.param == "shipped":
        own = load_tensors(SHIPPED / f"{TINY}.safetensors")
        state |= {f"enhancement.{key}": value for key, value in own.items() if key.startswith("context.")}
    folder = tmp_path_factory.mktemp("learned")
    save_file(state, folder / "jointiq-tiny.safetensors")
    return folder


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("quality", [3, 40, 98])
@pytest.mark.parametrize("kind", ["untrained", TINY, "jpeg-descriptors"])
def test_a_second_decoder_reads_the_descriptors_of_a_jpeg(
    kind: str, quality: int, size: tuple[int, int], untrained: Path
) -> None:
    name, folder = (TINY, untrained) if kind == "untrained" else (kind, SHIPPED)
    codec = load_codec(name, quality, weights=folder, device="cpu").for_size(*size)
    plain = unpack(lof.encode(some_pixels(*size), codec="jpeg", quality=quality))
    symbols = load_codec("jpeg", quality).for_size(*size).decompress(plain.strings, *size).symbols
    rows, columns = (-(-side // 16) for side in size)
    chosen = some_map(rows, columns)
    strings = codec.compress(symbols | {NAME: torch.from_numpy(chosen)[None, None]})
    about = {"codec": name, "fingerprint": codec.fingerprint[:4], "digest": bytes(4)}
    data = container("jpeg").pack(replace(plain, strings=tuple(strings), **about))
    told, string, *shape, level = in_jpeg(data)
    assert (told, shape) == (name, [rows, columns])
    assert level == {3: 31, 40: 25, 98: 5}[quality]
    check(NumpyDecoder(load_file(folder / f"{name}.safetensors"), "context."), string, chosen, level)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("quality", [1, 3.5, 8])
def test_a_second_decoder_reads_the_descriptors_of_a_learned_codec(
    learned: Path, quality: float, size: tuple[int, int]
) -> None:
    codec = load_codec("jointiq-tiny", quality, weights=learned, device="cpu", precision="fp32")
    pixels = torch.from_numpy(some_pixels(*size)).permute(2, 0, 1)[None] / 255
    symbols = codec.symbols(codec.analyse(codec.pad(pixels)))
    rows, columns = (-(-side // 16) for side in size)
    chosen = some_map(rows, columns)
    _, string = codec.compress(symbols | {NAME: torch.from_numpy(chosen)[None, None]})
    weights = load_file(learned / "jointiq-tiny.safetensors")
    level = of_rate(int(64 * quality) - 288)
    check(NumpyDecoder(weights, "enhancement.context."), string, chosen, level)


def check(decoder: NumpyDecoder, string: bytes, chosen: NDArray[np.int64], level: int) -> None:
    """Each number is read, and what a number depends on matters, or the test says nothing."""
    rows, columns = chosen.shape
    assert len(string) >= 8
    assert np.array_equal(decoder.decode(string, rows, columns, level), chosen)
    for short, number in ((b"", 0), (b"\x0f", 15)):
        assert (decoder.decode(short, rows, columns, level) == number).all()
    if chosen.size < 100:
        return
    assert len(np.unique(chosen)) == 16
    known = {at: int(chosen[at]) for at in np.ndindex(rows, columns)}
    here, there = (decoder.frequencies(known, 5, column, level) for column in (4, 6))
    assert np.abs(np.subtract(here, there)).max() > 50
    with pytest.raises(ValueError, match=r"end|never"):
        decoder.decode(string, rows, columns, level ^ 1)


def test_every_level_has_a_string_of_its_own_that_is_read_back(untrained: Path) -> None:
    path = untrained / f"{TINY}.safetensors"
    encoder = Coder(DescriptorNetwork.from_state(load_tensors(path)).context)
    decoder = NumpyDecoder(load_file(path), "context.")
    chosen = some_map(3, 5)
    strings = [encoder.encode(chosen, level / 4) for level in range(32)]
    assert len(set(strings)) == 32
    for level, string in enumerate(strings):
        assert np.array_equal(decoder.decode(string, 3, 5, level), chosen)


def test_among_equal_frequencies_the_first_one_gets_the_rest() -> None:
    context = Context(3)
    with torch.no_grad():
        for parameter in context.parameters():
            parameter.zero_()
    context.to_grid()
    state = context.state_dict() | {
        f"{name}.{leaf}": value
        for name, layer in context.layers().items()
        for leaf, value in layer.counts().items()
    }
    decoder = NumpyDecoder({key: value.numpy() for key, value in state.items()}, "")
    assert decoder.frequencies({}, 0, 0, 9) == [4110, *[4095] * 15, 1]
    chosen = some_map(6, 4)
    assert np.array_equal(decoder.decode(Coder(context).encode(chosen, 9 / 4), 6, 4, 9), chosen)
