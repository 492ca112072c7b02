"""Lapped codecs: exact arithmetic, the decoder that stands alone, every quality between the whole ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import check_damaged
from lapped_numpy_decoder import NumpyDecoder
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

import lof
from lof.codecs import Codec, codec_spec, codec_specs, hard_rounding, load_codec
from lof.codecs.lapped import bits
from lof.codecs.lapped.bits import FARTHEST
from lof.codecs.lapped.codec import LappedCodec
from lof.codecs.lapped.config import LAPPED, LAPPED_TINY, LappedConfig, rate_of
from lof.codecs.lapped.fixed import LIMIT, SUM_LIMIT, FixedDepthwise, FixedLinear, counts, to_grid
from lof.codecs.lapped.network import LappedNetwork, arranged, parted
from lof.codecs.lapped.prior import PLACES, POWERS
from lof.codecs.lapped.synthesis import striped
from lof.codecs.lapped.tables import GAUSSIAN, Form, numbers_of
from lof.codecs.lapped.transforms import lap, lapping
from lof.errors import TrainingError, UnknownCodecError, WeightsError
from lof.training.trained import read_trained

NAMES = [spec.name for spec in codec_specs(hidden=True) if spec.name.startswith("lapped")]
WEIGHTS = Path(lof.codecs.__path__[0]) / "lapped" / "data" / "lapped-tiny.safetensors"
STANDALONE = """
import sys
for name in ("lof.search", "lof.api", "lof.jobs", "lof.training", "ray", "optuna", "pydantic", "typer"):
    sys.modules[name] = None
import torch
from lof.codecs.lapped.decoder import Decoder
from lof.codecs.lapped.weights import read_weights
torch.set_num_threads(int(sys.argv[2]))
decoder = Decoder(read_weights(sys.argv[1] + "/weights"))
z, y, values = decoder.decode(open(sys.argv[1] + "/string", "rb").read(), -32, 32, 32)
wanted = torch.load(sys.argv[1] + "/symbols")
assert torch.equal(z[0], wanted["z"]) and torch.equal(y[0], wanted["y"])
assert decoder.synthesise(values, -32).shape == (1, 512, 512, 3)
"""
SIZES = [(1, 1), (1, 40), (17, 16), (50, 70), (64, 64)]


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load_codec("lapped-tiny", device="cpu", precision="fp32")


def tensor_of(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def symbols_of(codec: Codec, pixels: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
    """The plain encoding."""
    with torch.no_grad():
        coded = codec.code(codec.analyse(codec.pad(tensor_of(pixels))), hard_rounding, exact=True)
    return {name: one.residual.int() for name, one in coded.items()}


def lively(config: LappedConfig, seed: int = 0) -> LappedNetwork:
    """Untrained, but its predictions differ from place to place."""
    torch.manual_seed(seed)
    net = LappedNetwork(*config.sizes).eval()
    net.prior.spread[0] = torch.randint(-60, 200, (config.latent_channels,))
    net.prior.spread[1] = torch.randint(-80, 80, (config.latent_channels,))
    with torch.no_grad():
        net.side_scale.copy_(torch.randn_like(net.side_scale))
        for layer in net.prior.modules():
            if isinstance(layer, FixedLinear | FixedDepthwise):
                layer.weight.mul_(2)
                layer.bias.add_(torch.randn_like(layer.bias))
    net.settle()
    return net


def codec_of(net: LappedNetwork, quality: float) -> LappedCodec:
    cpu = torch.device("cpu")
    return LappedCodec(net, name="test", quality=quality, lmbda=0.01, device=cpu, precision=torch.float32)


FORMS = pytest.mark.parametrize("form", [GAUSSIAN, Form(0.3, 0.8, 1.6)])


def test_latents_beyond_what_the_coder_writes_are_rounded_to_what_it_does() -> None:
    codec = load_codec("lapped-tiny", device="cpu")
    latents = {name: 3e8 * torch.sign(one) for name, one in codec.analyse(torch.rand(1, 3, 64, 64)).items()}
    symbols = codec.symbols(latents)
    assert {int(one.abs().max()) for one in symbols.values()} == {2**24 - 1}
    found = codec.decompress(codec.compress(symbols), 64, 64).symbols
    assert all(torch.equal(found[name].int(), symbols[name].int()) for name in symbols)


@FORMS
def test_bits_of_whole_residuals_are_those_of_any(form: Form) -> None:
    bits_of, bits_of_whole = (partial(f, form=form) for f in (bits.bits_of, bits.bits_of_whole))
    residual = torch.tensor([0.0, 1, -1, 7, -90, FARTHEST, -FARTHEST])[:, None].repeat(1, PLACES)
    whole = torch.arange(PLACES, dtype=torch.float32)[None]
    assert torch.allclose(bits_of_whole(residual, whole), bits_of(residual, whole))
    few = residual[:3, 27:]
    between = (whole[:, 26:-1] + 0.3).requires_grad_()  # σ from 1 on
    near = bits_of_whole(few, between)
    assert torch.allclose(near, bits_of(few, between), atol=0.05)
    near.sum().backward()
    row = 1 / 16  # its rows are so far apart; 0.3 is between the fourth and the fifth
    slope = (bits_of(few, whole[:, 26:-1] + 5 * row) - bits_of(few, whole[:, 26:-1] + 4 * row)) / row
    assert between.grad is not None
    assert torch.allclose(between.grad, slope.sum(0, keepdim=True), atol=1e-4)
    steps = torch.tensor([-3.75, -0.25, 0.0, 0.25, 1.5, 80.5])[:, None].repeat(1, PLACES).requires_grad_()
    lines = bits.bits_between(steps, whole, form)
    below = steps.detach().floor()
    costs = bits_of(below, whole), bits_of(below + 1, whole)
    assert torch.allclose(lines, torch.lerp(*costs, steps.detach() - below), atol=1e-4)
    lines.sum().backward()
    assert steps.grad is not None
    assert torch.allclose(steps.grad, costs[1] - costs[0], atol=1e-4)
    beyond = torch.full((1, PLACES), FARTHEST + 1.0)
    assert torch.equal(bits_of_whole(beyond, whole), bits_of(beyond, whole))
    last = bits_of(beyond - 2, whole), bits_of(beyond - 1, whole)
    assert torch.allclose(bits.bits_between(-beyond, whole, form), torch.lerp(*last, 2.0), atol=1e-4)


@FORMS
@pytest.mark.parametrize(
    "place", [torch.arange(PLACES, dtype=torch.float32), torch.linspace(0, PLACES - 1, 777)]
)
@pytest.mark.parametrize("farthest", [FARTHEST - 1, FARTHEST, FARTHEST + 5])
def test_bits_rise_between_whole_residuals_as_they_stand_there(
    place: torch.Tensor, farthest: int, form: Form
) -> None:
    residual = torch.tensor([0.0, 1, -1, 7, -90, farthest, -farthest])[:, None].repeat(1, len(place))
    below, here, above = (bits.bits_of_whole(residual + step, place[None], form) for step in (-1, 0, 1))
    to_here, onwards = bits.rises_of_whole(residual, place[None], form)
    assert torch.allclose(to_here, here - below, atol=2e-3)
    assert torch.allclose(onwards, above - here, atol=2e-3)


def test_tables_have_the_form_that_bits_are_told_of() -> None:
    wanted = Form(0.4, 0.6, 1.8)
    net = lively(LAPPED_TINY)
    with torch.no_grad():
        assert net.tails is not None
        net.tails.copy_(numbers_of(wanted))
    net.settle()
    assert net.form == pytest.approx(wanted, rel=1e-3)
    generator = torch.Generator().manual_seed(2)
    y = 9 * torch.randn(1, LAPPED_TINY.latent_channels, 32, 32, generator=generator)
    z = 4 * torch.randn(1, LAPPED_TINY.side_channels, 8, 8, generator=generator)
    strings = []
    for other in (net, LappedNetwork.from_state(net.shippable_state())):
        codec = codec_of(other, 4)
        with torch.no_grad():
            coded = codec.code({"z": z, "y": y}, hard_rounding, exact=True)
        strings.append(codec.compress({name: one.residual.int() for name, one in coded.items()})[0])
        assert sum(float(one.bits.sum()) for one in coded.values()) == pytest.approx(
            8 * len(strings[-1]), rel=0.005
        )
    assert strings[0] == strings[1]


def test_weights_from_before_tables_had_a_form_stay_as_they_are() -> None:
    state = {
        name: tensor for name, tensor in lively(LAPPED_TINY).shippable_state().items() if name != "tails"
    }
    net = LappedNetwork.from_state(state)
    assert net.form == GAUSSIAN
    assert net.shippable_state().keys() == state.keys()


class TestExactness:
    @pytest.mark.parametrize("quality", [1, 4.359375, 8])
    @pytest.mark.parametrize("size", [(1, 1), (5, 9), (8, 8), (13, 3)])
    def test_a_second_decoder_with_integers_reads_the_same_latents(
        self, size: tuple[int, int], quality: float
    ) -> None:
        net = lively(LappedConfig(4, 4, 1, 1, 3, 10, (2, 4, 3), turned=(1,)))
        codec = codec_of(net, quality)
        rows, columns = size
        generator = torch.Generator().manual_seed(1)
        y = 9 * torch.randn(1, 9, rows, columns, generator=generator)
        z = 4 * torch.randn(1, 3, -(-rows // 4), -(-columns // 4), generator=generator)
        with torch.no_grad():
            coded = codec.code({"z": z, "y": y}, hard_rounding, exact=True)
        symbols = {name: one.residual.int() for name, one in coded.items()}
        assert float(coded["y"].bits.std()) > 0.5  # predictions differ, or the test says nothing
        string = codec.compress(symbols)[0]
        weights = {key: value.numpy() for key, value in net.shippable_state().items()}
        again_z, again_y = NumpyDecoder(weights, quality).decode(string, rows, columns)
        assert np.array_equal(again_z, symbols["z"][0].permute(1, 2, 0).numpy())
        assert np.array_equal(again_y, 64 * coded["y"].value[0].permute(1, 2, 0).double().numpy())

    def test_a_walk_by_strips_writes_and_reads_what_a_walk_of_the_whole_does(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        codec = codec_of(lively(LappedConfig(4, 4, 1, 1, 3, 10, (2, 4, 3))), 4)
        generator = torch.Generator().manual_seed(1)
        latents = {
            "z": 4 * torch.randn(1, 3, 6, 2, generator=generator),
            "y": 9 * torch.randn(1, 9, 23, 7, generator=generator),
        }
        whole = codec.symbols(latents)
        string = codec.compress(whole)
        coded = codec.code(latents, hard_rounding, exact=True)
        monkeypatch.setattr("lof.codecs.lapped.prior._PLACES_AT_ONCE", 30)
        strips = codec.symbols(latents)
        again = codec.code(latents, hard_rounding, exact=True)
        assert codec.compress(strips) == string
        for name, read in codec.decompress(string, 23 * 16, 7 * 16).symbols.items():
            assert torch.equal(read, whole[name])
            assert torch.equal(strips[name], coded[name].residual.int())
            assert torch.equal(again[name].value, coded[name].value)

    def test_an_image_made_in_bands_is_that_made_at_once(
        self, codec: Codec, photograph: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        string = codec.compress(symbols_of(codec, photograph[:, :40]))
        whole = codec.decompress(string, 512, 40).image
        monkeypatch.setattr("lof.codecs.lapped.synthesis.BAND", 9)
        assert torch.allclose(codec.decompress(string, 512, 40).image, whole, atol=1e-5)

    @pytest.mark.parametrize("name", NAMES)
    def test_the_shipped_weights_are_read_by_the_second_decoder_too(
        self, name: str, crop: NDArray[np.uint8]
    ) -> None:
        codec = load_codec(name, 3.5, device="cpu")
        symbols = symbols_of(codec, crop)
        string = codec.compress(symbols)[0]
        weights = {key: value.numpy() for key, value in codec.state().items()}
        _, again = NumpyDecoder(weights, 3.5).decode(string, 8, 8)
        values = codec.decompress([string], 128, 128).values["y"]
        assert np.array_equal(again, 64 * values[0].permute(1, 2, 0).double().numpy())

    def test_the_decoder_stands_alone_and_every_machine_reads_the_same_symbols(
        self, codec: Codec, photograph: NDArray[np.uint8], tmp_path: Path
    ) -> None:
        symbols = symbols_of(codec, photograph)
        (tmp_path / "string").write_bytes(codec.compress(symbols)[0])
        torch.save(
            {name: tensor[0].permute(1, 2, 0) for name, tensor in symbols.items()}, tmp_path / "symbols"
        )
        shutil.copy(WEIGHTS, tmp_path / "weights")
        oldest = {
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        }
        for machine, threads in ((oldest, 1), ({"ATEN_CPU_CAPABILITY": "avx2"}, 2)):
            subprocess.run(
                [sys.executable, "-c", STANDALONE, str(tmp_path), str(threads)],
                env=os.environ | machine,
                check=True,
            )

    def test_the_decoders_image_has_the_same_bits_with_two_threads(
        self, codec: Codec, photograph: NDArray[np.uint8]
    ) -> None:
        string = codec.compress(symbols_of(codec, photograph))
        once = codec.decompress(string, 512, 512).image
        torch.set_num_threads(2)
        assert torch.equal(codec.decompress(string, 512, 512).image, once)

    def test_sums_stay_exact_in_float32_whatever_the_weights(self) -> None:
        torch.manual_seed(1)
        for layer in (FixedLinear(448, 16), FixedDepthwise(16, 5)):
            with torch.no_grad():
                layer.weight.mul_(torch.logspace(-6, 4, 16).reshape(-1, *[1] * (layer.weight.dim() - 1)))
            to_grid(layer)
            found = counts(layer)
            most = LIMIT * found["weight"].long().abs().flatten(1).sum(1) + found["bias"].long().abs()
            assert bool((most < SUM_LIMIT).all())
            inside = slice(4, 8)  # where the grid is not at its coarsest or finest
            assert int(found["weight"].long().abs().flatten(1).amax(1)[inside].min()) >= 16

    def test_powers_have_nine_binary_digits(self) -> None:
        digits = torch.frexp(POWERS)[0] * 2**9
        assert torch.equal(digits, digits.round())


class TestCoding:
    @pytest.mark.parametrize("size", SIZES)
    def test_symbols_survive_at_every_size(
        self, codec: Codec, photograph: NDArray[np.uint8], size: tuple[int, int]
    ) -> None:
        pixels = photograph[: size[0], : size[1]]
        symbols = symbols_of(codec, pixels)
        decoded = codec.decompress(codec.compress(symbols), *size)
        assert decoded.image.shape == (3, *size)
        assert all(torch.equal(decoded.symbols[name], symbols[name].long()) for name in symbols)

    @pytest.mark.parametrize("name", NAMES)
    def test_bits_are_those_of_the_string(self, name: str, photograph: NDArray[np.uint8]) -> None:
        codec = load_codec(name, device="cpu")
        with torch.no_grad():
            coded = codec.code(codec.analyse(tensor_of(photograph)), hard_rounding, exact=True)
        written = 8 * len(codec.compress({n: one.residual.int() for n, one in coded.items()})[0])
        estimated = sum(float(one.bits.sum()) for one in coded.values())
        assert estimated == pytest.approx(written, rel=0.005 if name == "lapped" else 0.01)  # short strings

    @pytest.mark.parametrize("name", NAMES)
    def test_every_step_of_quality_costs_more_and_looks_better(
        self, name: str, photograph: NDArray[np.uint8]
    ) -> None:
        pixels = photograph[64:320, 128:384]
        lengths, errors = [], []
        for quality in (1, 1.5, 2.25, 3, 4, 4.5, 5.125, 6, 7, 8):
            codec = load_codec(name, quality, device="cpu")
            strings = codec.compress(symbols_of(codec, pixels))
            image = codec.decompress(strings, 256, 256).image
            lengths.append(len(strings[0]))
            errors.append(float((image - tensor_of(pixels)[0]).square().mean()))
        assert lengths == sorted(set(lengths))
        if name == "lapped":  # the tiny one's are at its few channels' limit
            assert errors == sorted(errors, reverse=True)
        assert errors[-1] < errors[0]

    def test_qualities_outside_and_between_the_steps_are_unknown(self) -> None:
        for quality in (0.5, 8.015625, 4.001):
            with pytest.raises(UnknownCodecError, match="multiple of 1/64 from 1 to 8"):
                load_codec("lapped-tiny", quality)
        assert [rate_of(quality) for quality in (1, 4.5, 4.515625, 8)] == [-224, 0, 1, 224]

    def test_damaged_strings_end_in_one_error_or_in_an_image(
        self, codec: Codec, crop: NDArray[np.uint8]
    ) -> None:
        string = codec.compress(symbols_of(codec, crop))[0]
        check_damaged(codec, string, 128, 128, "lapped")

    def test_parts_are_put_together_again(self) -> None:
        for rows, columns in ((1, 1), (1, 2), (5, 4)):
            y = torch.randn(2, rows, columns, LAPPED_TINY.latent_channels)
            assert torch.equal(arranged(parted(y, LAPPED_TINY), rows, columns), y)


class TestTransforms:
    def test_lapping_is_orthogonal_and_undone_by_its_transpose(self) -> None:
        x = torch.randn(1, 48, 32, 3)
        there = lap(x, lapping())
        assert not torch.allclose(there, x, atol=0.1)
        assert torch.allclose(lap(there, lapping().T), x, atol=1e-5)

    def test_the_decoders_synthesis_is_the_networks(self, codec: Codec, crop: NDArray[np.uint8]) -> None:
        found = codec.analyse(tensor_of(crop))
        assert torch.allclose(codec.synthesise(found), codec.synthesise(found, exact=True), atol=1e-5)

    @pytest.mark.parametrize("quality", [2, 5, 8])
    def test_patterns_unlike_photographs_are_left_to_the_linear_transform(self, quality: float) -> None:
        rows, columns = np.mgrid[:128, :128]
        picture = np.stack([2 * rows, 2 * columns, rows + columns], 2).astype(np.uint8)
        picture[32:64, 32:64] = 255 * ((rows // 2 + columns // 2) % 2)[:32, :32, None]
        found = lof.decode(lof.encode(picture, codec="lapped", quality=quality)).pixels
        errors = np.square(found.astype(float) - picture)
        assert errors.mean() < 150
        assert errors[80:].mean() < 10


class TestWeights:
    def test_shipped_weights_come_back_from_a_file(self, tmp_path: Path, crop: NDArray[np.uint8]) -> None:
        codec = load_codec("lapped-tiny", 5, device="cpu")
        save_file(codec.state(), tmp_path / "lapped-tiny.safetensors")
        again = load_codec("lapped-tiny", 5, weights=tmp_path, device="cpu")
        assert again.fingerprint == codec.fingerprint
        assert codec.compress(symbols_of(codec, crop)) == again.compress(symbols_of(again, crop))

    def test_files_of_something_else_are_refused(self, codec: Codec, tmp_path: Path) -> None:
        path = tmp_path / "lapped-tiny.safetensors"
        with pytest.raises(WeightsError, match=r"lapped-tiny\.safetensors"):
            load_codec("lapped-tiny", weights=tmp_path)
        state = codec.state()
        state.pop("prior.enter.weight")
        save_file(state, path)
        with pytest.raises(WeightsError, match="cannot be read as weights of a lapped codec"):
            load_codec("lapped-tiny", 2, weights=tmp_path)

    def test_forms_of_tables_that_cannot_be_are_refused(self, tmp_path: Path) -> None:
        state = lively(LAPPED_TINY).shippable_state()
        state["tails"] = torch.tensor([0.0, 0.0, 900.0]).half()
        save_file(state, tmp_path / "lapped-tiny.safetensors")
        with pytest.raises(WeightsError, match="tails hold numbers that cannot be"):
            load_codec("lapped-tiny", weights=tmp_path)

    def test_deviations_of_channels_that_cannot_be_are_refused(self, tmp_path: Path) -> None:
        state = lively(LAPPED_TINY).shippable_state()
        state["prior.spread"].fill_(2**31 - 1)
        save_file(state, tmp_path / "lapped-tiny.safetensors")
        with pytest.raises(WeightsError, match=r"prior\.spread holds numbers that cannot be"):
            load_codec("lapped-tiny", weights=tmp_path)

    def test_a_pipe_in_the_place_of_weights_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "lapped-tiny.safetensors")
        with pytest.raises(WeightsError, match="not a regular file"):
            load_codec("lapped-tiny", weights=tmp_path)
        with pytest.raises(TrainingError, match="not a regular file"):
            read_trained(tmp_path / "lapped-tiny.safetensors")

    def test_sizes_that_describe_no_codec_are_refused(self) -> None:
        for sizes in (
            (8, 12, 1, 1, 4, 8),
            (0, 8, 12, 1, 1, 4, 8),
            (8, 12, 1, 1, 4, 0, 8),
            (0, 0, 8, 1, 1, 4, 8, 9),
        ):
            with pytest.raises(ValueError, match="lapped codec"):
                LappedConfig.from_sizes(sizes)
        with pytest.raises(ValueError, match="no such lapped codec"):
            replace(LAPPED_TINY, turned=(2,))
        for config in (LAPPED, replace(LAPPED_TINY, turned=(1,)), replace(LAPPED_TINY, turned=())):
            assert LappedConfig.from_sizes(config.sizes) == config
            assert LappedNetwork.from_state(lively(config).shippable_state()).config == config

    def test_the_tiny_weights_are_small(self) -> None:
        assert WEIGHTS.stat().st_size < 100_000
        assert codec_spec("lapped-tiny").hidden
        assert load_file(WEIGHTS)["sizes"].tolist() == list(LAPPED_TINY.sizes)


def test_a_synthesis_that_fails_leaves_torch_its_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ZeroDivisionError), striped() as strips:
            strips(torch.zeros(1, 4, 4, 1), lambda top, end: torch.zeros(1 // (top - end + 4)))
        with ThreadPoolExecutor(1) as others:
            assert others.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)
