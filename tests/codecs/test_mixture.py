"""Mixtures of Gaussians: the coder's integers against their real-valued meaning, training, search."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from compressai import ans
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import lof
from lof.codecs import hard_rounding, load_codec, trainable
from lof.codecs.entropy.mixture import (
    MixtureConditional,
    MixtureTables,
    centre_and_form,
    scale_of,
    weight_of,
)
from lof.codecs.msp.codec import MSPCodec
from lof.codecs.msp.config import MSPConfig
from lof.codecs.network_training import LatentRate, RateDistortion
from lof.codecs.training import Aim
from lof.errors import WeightsError
from lof.search import symbols_of
from lof.training import export_weights, parse_recipe, train

SIZES = (16, 24, 2, 2, 16, 1, 8, 16, 2)
Component = tuple[int, int, int]
components = st.lists(
    st.tuples(st.integers(-6400, 6400), st.integers(0, 63), st.integers(1, 255)), min_size=2, max_size=4
)


def tables(mixture: list[Component]) -> tuple[list[int], int]:
    """Frequencies and first symbol of one element, from its components' offsets, places and weights."""
    (found,) = MixtureTables(MixtureConditional()).of(np.array(mixture).T.reshape(-1, 1), len(mixture))
    (cdf,), (first,) = found.cdfs, found.offsets
    assert found.lengths == [len(cdf)]
    return cdf, first


class TestTables:
    @settings(deadline=None, max_examples=60)
    @given(mixture=components)
    def test_every_symbol_and_the_escape_can_be_written(self, mixture: list[Component]) -> None:
        cdf, first = tables([(0, *mixture[0][1:]), *mixture[1:]])
        assert (cdf[0], cdf[-1]) == (0, 2**16)
        assert min(np.diff(cdf)) >= 1
        assert first < 0 < first + len(cdf) - 2

    @settings(deadline=None, max_examples=60)
    @given(mixture=components)
    def test_frequencies_are_the_probabilities_that_are_priced(self, mixture: list[Component]) -> None:
        mixture = [(0, *mixture[0][1:]), *mixture[1:]]
        cdf, first = tables(mixture)
        count = len(cdf) - 2
        symbols = torch.arange(first, first + count).float().reshape(1, 1, 1, -1)
        offset, index, weight = torch.tensor(mixture).T.reshape(3, 1, -1, 1, 1, 1)
        priced = MixtureConditional().likelihood(symbols, offset / 64, scale_of(index), weight)[0, 0, 0]
        expected = (1 + priced.double().numpy() * (2**16 - count - 1)) / 2**16
        assert np.abs(np.diff(cdf)[:-1] / 2**16 - expected).max() < 2.5e-5  # a unit of 2^-16 and roundings

    def test_a_mixture_of_equal_components_is_the_component(self) -> None:
        assert tables([(0, 20, 7), (0, 20, 90)]) == tables([(0, 20, 1), (0, 20, 1)])

    def test_tables_do_not_depend_on_how_many_are_computed_at_a_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        random = np.random.default_rng(0)
        form = np.concatenate([random.integers(0, high, (2, 50)) for high in (200, 60, 255)])
        form[4:] += 1
        model = MixtureTables(MixtureConditional())
        monkeypatch.setattr(MixtureTables, "BOUNDARIES", 10**9)
        (whole,) = model.of(form, 2)
        monkeypatch.setattr(MixtureTables, "BOUNDARIES", 500)
        pieces = list(model.of(form, 2))
        assert len(pieces) > 5
        assert [cdf for piece in pieces for cdf in piece.cdfs] == whole.cdfs
        assert [first for piece in pieces for first in piece.offsets] == whole.offsets

    def test_values_far_outside_the_support_come_back(self) -> None:
        cdf, first = tables([(0, 0, 200), (640, 5, 3)])
        symbols = [-100_000, first - 1, first, 0, first + len(cdf) - 3, first + len(cdf) - 2, 70_000]
        encoder, where = ans.BufferedRansEncoder(), [0] * len(symbols)
        encoder.encode_with_indexes(symbols, where, [cdf], [len(cdf)], [first])
        decoder = ans.RansDecoder()
        decoder.set_stream(encoder.flush())
        assert decoder.decode_stream(where, [cdf], [len(cdf)], [first]) == symbols


class TestForm:
    def test_the_centre_is_the_mean_of_the_first_of_the_heaviest(self) -> None:
        mean = torch.tensor([1.0, 2, 3, 4, 5, 6]).reshape(1, 6, 1, 1)
        weight = torch.tensor([9.0, 1, 9, 4, 2, 4]).reshape(1, 6, 1, 1)  # two elements, three components
        centre, form = centre_and_form(mean, torch.zeros_like(mean), weight, 3)
        assert centre.flatten().tolist() == [1, 4]
        assert form.flatten()[:6].tolist() == [0, -2, 2, 0, 4, 2]

    def test_weights_are_whole_in_exact_arithmetic_and_pushed_back_only_from_their_bounds(self) -> None:
        predicted = torch.tensor([-1.0, 0.47, 40.0], requires_grad=True)
        assert weight_of(predicted, exact=True).tolist() == [1, 15, 255]
        for sign, expected in ((1, [False, True, True]), (-1, [True, True, False])):
            (gradient,) = torch.autograd.grad((sign * weight_of(predicted, exact=False)).sum(), predicted)
            assert (gradient != 0).tolist() == expected

    def test_the_number_of_components_follows_the_groups(self) -> None:
        assert MSPConfig.from_sizes(SIZES).components == 2
        assert MSPConfig.from_sizes(SIZES[:-1]).components == 1
        for wrong in ((*SIZES[:-1], 1), (*SIZES[:-1], 9), (*SIZES, 2)):
            with pytest.raises(ValueError, match="MSP codec"):
                MSPConfig.from_sizes(wrong)


class TestGradients:
    def test_equal_components_are_drawn_as_the_one_gaussian(self) -> None:
        torch.manual_seed(0)
        net, mixed = (trainable("msp-tiny").build({"components": count}) for count in (1, 2))
        for one in (net, mixed):
            LatentRate(one, torch.float32, 16)
        y, mean = 3 * torch.randn(1, 24, 6, 6), torch.randn(1, 24, 6, 6).requires_grad_()
        y[..., 0] += 200  # where probabilities are none means are drawn all the same
        scale = (0.2 + 2 * torch.rand_like(y)).requires_grad_()
        expected = net.gaussian_conditional(y, scale, means=mean)
        twice = scale.unsqueeze(1).expand(-1, 2, -1, -1, -1)
        offset = torch.stack([mean - mean, mean - mean], 1)
        found = mixed.mixture(y, mean, offset, twice, torch.full_like(twice, 3))
        assert torch.equal(found[0], expected[0])
        assert torch.allclose(found[1], expected[1], atol=1e-6)
        for one in (mean, scale):
            ours, theirs = (
                torch.autograd.grad(-p.log2().sum(), one, retain_graph=True)[0] for _, p in (found, expected)
            )
            certain = expected[1] > 1e-6 if one is scale else torch.ones_like(y, dtype=torch.bool)
            assert torch.allclose(ours[certain], theirs[certain], rtol=1e-3, atol=1e-4)

    def test_the_better_component_gains_weight(self) -> None:
        mixture = MixtureConditional()
        weight = torch.full((1, 2, 1, 1, 1), 9.0, requires_grad=True)
        scale = torch.tensor([0.3, 5.0]).reshape(1, 2, 1, 1, 1)
        for residual, better in ((0.0, 0), (4.0, 1)):
            value = torch.full((1, 1, 1, 1), residual)
            bits = -mixture.likelihood(value, torch.zeros_like(scale), scale, weight).log2()
            (gradient,) = torch.autograd.grad(bits.sum(), weight)
            assert int(gradient.flatten().argmin()) == better
            assert gradient.sum() == pytest.approx(0, abs=1e-6)

    def test_the_transforms_get_a_gradient_where_they_are_trained_too(self) -> None:
        torch.manual_seed(0)
        net = trainable("msp-tiny").build({"components": 2})
        model = RateDistortion(net, Aim("mse", 4, 0.01, torch.float32))
        loss, *_ = model(torch.rand(1, 3, 64, 64))
        loss.backward()
        assert all(float(p.grad.abs().sum()) > 0 for p in (net.g_a[0].weight, net.g_s[0].weight))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, photograph: NDArray[np.uint8]) -> Path:
    """Weights of a mixture after a short training."""
    folder = tmp_path_factory.mktemp("mixture")
    (folder / "photos").mkdir()
    Image.fromarray(photograph[:, :300]).save(folder / "photos" / "one.png")
    recipe = parse_recipe(
        {
            "name": "test",
            "codec": "msp-tiny",
            "network": {"components": 2},
            "frozen": "tiny",
            "crop": 64,
            "batch": 4,
            "ema": 0.9,
            "validate_every": 1000,
            "precision": "fp32",
            "rung": [{"quality": 4, "lmbda": 0.013, "steps": 60, "learning_rate": 1e-2}],
            "schedule": {"warmup": 5},
            "data": {"train": [str(folder / "photos")]},
        }
    )
    export_weights(train(recipe, folder / "run", device="cpu"), folder / "weights")
    return folder / "weights"


@pytest.fixture(scope="module")
def codec(weights: Path) -> MSPCodec:
    loaded = load_codec("msp-tiny", 4, weights=weights, device="cpu", precision="fp32")
    assert isinstance(loaded, MSPCodec)
    return loaded


class TestTrained:
    def test_estimated_bits_are_within_half_a_percent_of_the_string(
        self, codec: MSPCodec, photograph: NDArray[np.uint8]
    ) -> None:
        image = torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None].float() / 255
        latent = codec.analyse(image)
        exact = codec.code(latent, hard_rounding, exact=True)
        written = 8 * len(codec.compress(symbols_of(exact))[0])
        assert float(exact["y"].bits.sum()) / written == pytest.approx(1, abs=0.005)
        searched = codec.code(latent, hard_rounding)["y"].bits.sum()
        assert float(searched) / written == pytest.approx(1, abs=0.01)

    def test_a_search_is_never_worse_and_its_file_decodes(
        self, codec: MSPCodec, weights: Path, crop: NDArray[np.uint8]
    ) -> None:
        result = lof.optimize(crop[:80, :61], codec=codec, profile="fast")
        assert result.optimised.cost < result.baseline.cost
        assert result.kept == "search"
        assert np.array_equal(lof.decode(result.data, weights=weights).pixels, result.pixels)

    def test_the_rate_of_an_element_counts_in_every_context_that_it_feeds(self, codec: MSPCodec) -> None:
        y = (6 * torch.randn(1, 24, 8, 8)).requires_grad_()
        coded = codec.code({"y": y}, lambda _, residual: residual)["y"]
        (gradient,) = torch.autograd.grad(coded.bits[..., 1::2, 1::2].sum(), y)
        assert bool(gradient.isfinite().all())
        assert float(gradient[..., ::4, ::4].abs().sum()) > 0
        assert math.isfinite(float(coded.bits.detach().sum()))

    def test_predictions_do_not_depend_on_threads_or_neighbours_in_the_batch(self, codec: MSPCodec) -> None:
        y = 6 * torch.randn(2, 24, 13, 7, generator=torch.Generator().manual_seed(0))
        together = codec.code({"y": y}, hard_rounding, exact=True)["y"]
        torch.set_num_threads(3)
        try:
            alone = codec.code({"y": y[1:]}, hard_rounding, exact=True)["y"]
            string = codec.compress({"y": torch.round(alone.residual)})
        finally:
            torch.set_num_threads(1)
        assert torch.equal(alone.value[0], together.value[1])
        assert torch.equal(alone.bits[0], together.bits[1])
        assert torch.equal(codec.decoder.read(string[0], 13, 7)[1], alone.value)


def test_weights_whose_sizes_describe_no_codec_are_one_clear_error(weights: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(weights / "msp-tiny-4.safetensors")
    state["sizes"][-1] = 99
    save_file(state, tmp_path / "msp-tiny-4.safetensors")
    with pytest.raises(WeightsError, match="no such MSP codec"):
        load_codec("msp-tiny", 4, weights=tmp_path, device="cpu")
