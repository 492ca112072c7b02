"""JointIQ codecs: exact arithmetic of every part, with and without each, and a picture that is repaired."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import check_damaged
from jointiq_numpy_decoder import NumpyDecoder
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch._subclasses.fake_tensor import FakeTensorMode

import lof
from lof.codecs import Codec, codec_spec, hard_rounding, load_codec
from lof.codecs.entropy.mixture import MixtureTables
from lof.codecs.lapped.bits import bits_of
from lof.codecs.lapped.fixed import FixedDepthwise, FixedLinear
from lof.codecs.lapped.jointiq.bits import mixture_bits_of
from lof.codecs.lapped.jointiq.codec import JointCodec
from lof.codecs.lapped.jointiq.config import DESCRIBED, GATED, GRDN, JOINTIQ, JOINTIQ_TINY, JointConfig
from lof.codecs.lapped.jointiq.enhancement import Grdn
from lof.codecs.lapped.jointiq.network import JointNetwork
from lof.codecs.lapped.transforms import BLOCK, half_turn, mirrored
from lof.errors import WeightsError
from lof.testing import CHECKS, Check, picture

NAME = "jointiq-tiny"
WEIGHTS = Path(lof.codecs.__path__[0]) / "lapped" / "data" / f"{NAME}.safetensors"
FULL = JointConfig(
    *(4, 4, 1, 1, 3, 10),
    slices=(2, 4, 3),
    components=3,
    mixed=2,
    refinement=(5,),
    context=(4, 6),
    turned=(1,),
    enhancement=(GRDN, 8, 6, 4, 2, 2, 2),
)
WITHOUT = {
    "all": FULL,
    "mixtures": replace(FULL, components=1, refinement=()),
    "refinement": replace(FULL, refinement=()),
    "context": replace(FULL, context=()),
    "turn": replace(FULL, turned=()),
    "mirrored views": replace(FULL, turned=(2,)),
    "enhancement": replace(FULL, enhancement=()),
    "grdn": replace(FULL, enhancement=(GATED, 4, 6, 2)),
    "grdn, but with descriptors": replace(FULL, enhancement=(DESCRIBED, 4, 6, 3, 2, 5)),
    "two passes": replace(FULL, serial=(1,)),
    "passes and parts": replace(
        FULL, serial=(1,), components=1, refinement=(), context=(), turned=(), enhancement=()
    ),
    "anything": replace(FULL, components=1, refinement=(), context=(), turned=(), enhancement=()),
}


def lively(config: JointConfig) -> JointNetwork:
    """Untrained, but its predictions differ from place to place, and it changes its pictures."""
    torch.manual_seed(0)
    net = JointNetwork(*config.sizes).eval()
    net.prior.spread[0] = torch.randint(-60, 200, (config.latent_channels,))
    net.prior.spread[1] = torch.randint(-80, 80, (config.latent_channels,))
    with torch.no_grad():
        net.side_scale.copy_(torch.randn_like(net.side_scale))
        for layer in net.prior.modules():
            if isinstance(layer, FixedLinear | FixedDepthwise):
                layer.weight.mul_(2).add_(0.1 * torch.randn_like(layer.weight))
                layer.bias.add_(torch.randn_like(layer.bias))
        if net.enhancement is not None:
            net.enhancement.leave.weight.normal_(0, 0.1)
            net.enhancement.gain.normal_(0, 0.3)
    net.settle()
    return net


def codec_of(net: JointNetwork, quality: float) -> JointCodec:
    cpu = torch.device("cpu")
    return JointCodec.of(net)(
        net, name="test", quality=quality, lmbda=0.01, device=cpu, precision=torch.float32
    )


def latents_of(config: JointConfig, rows: int, columns: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    y = 9 * torch.randn(1, config.latent_channels, rows, columns, generator=generator)
    z = 4 * torch.randn(1, config.side_channels, -(-rows // 4), -(-columns // 4), generator=generator)
    chosen = torch.randint(0, 16, (1, 1, rows, columns), generator=generator)
    return {"z": z, "y": y} | ({"descriptors": chosen.float()} if config.described else {})


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load_codec(NAME, device="cpu", precision="fp32")


@pytest.mark.parametrize("without", WITHOUT)
class TestEveryConfiguration:
    @pytest.mark.parametrize(("size", "quality"), [((1, 1), 4), ((5, 9), 1), ((8, 6), 6.359375)])
    def test_a_second_decoder_with_integers_reads_the_same_latents(
        self, without: str, size: tuple[int, int], quality: float
    ) -> None:
        net = lively(WITHOUT[without])
        codec = codec_of(net, quality)
        with torch.no_grad():
            coded = codec.code(latents_of(net.joint, *size), hard_rounding, exact=True)
        symbols = {name: one.residual.int() for name, one in coded.items()}
        assert float(coded["y"].bits.std()) > 0.5  # predictions differ, or the test says nothing
        string = codec.compress(symbols)[0]
        weights = {key: value.numpy() for key, value in net.shippable_state().items()}
        again_z, again_y = NumpyDecoder(weights, quality).decode(string, *size)
        assert np.array_equal(again_z, symbols["z"][0].permute(1, 2, 0).numpy())
        assert np.array_equal(again_y, 64 * coded["y"].value[0].permute(1, 2, 0).double().numpy())

    @pytest.mark.parametrize("check", CHECKS[1:3], ids=lambda check: check.__name__)
    def test_its_strings_are_what_was_priced_and_give_its_picture(self, without: str, check: Check) -> None:
        check(codec_of(lively(WITHOUT[without]), 4), picture(128))

    def test_its_weights_come_back_from_their_state(self, without: str) -> None:
        net = lively(WITHOUT[without])
        again = JointNetwork.from_state(net.shippable_state())
        assert again.joint == net.joint
        latents = latents_of(net.joint, 6, 6)
        strings = [codec_of(one, 4).compress(codec_of(one, 4).symbols(latents)) for one in (net, again)]
        assert strings[0] == strings[1]


class TestMixtures:
    def test_a_mixture_of_one_costs_what_a_gaussian_does(self) -> None:
        place = torch.linspace(0, 79, 40)[:, None].repeat(1, 3)
        residual = torch.round(4 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0)))
        form = torch.cat([torch.zeros_like(place), place, torch.ones_like(place)], 1)
        inside = residual.abs() < 3 * 2 ** ((place - 26) / 8)  # farther out is escaped, in either's own way
        found, expected = mixture_bits_of(residual, form, 1), bits_of(residual, place)
        assert torch.allclose(found[inside], expected[inside], atol=0.05)

    def test_bits_are_those_of_the_tables(self) -> None:
        random, count = np.random.default_rng(0), 200
        place, weight = random.integers(11, 70, (3, count)), random.integers(1, 256, (3, count))
        offset = random.integers(-200, 200, (3, count)) * np.array([[0], [1], [1]])
        form = np.concatenate([offset, place, weight])
        tables = list(MixtureTables(JointNetwork(*FULL.sizes).mixture).of(form, 3))
        cdfs, firsts = ([one for t in tables for one in getattr(t, name)] for name in ("cdfs", "offsets"))
        assert len(cdfs) == count
        for numbers, cdf, first in zip(form.T, cdfs, firsts, strict=True):
            written = torch.from_numpy(16 - np.log2(np.diff(cdf)[:-1])).float()
            told = torch.tensor(numbers).float()
            told[:3] /= 64
            symbols = torch.arange(first, first + len(written)).float()[:, None]
            found = mixture_bits_of(symbols, told.expand(len(written), -1), 3)[:, 0]
            likely = written < 12
            assert int(likely.sum()) > 2
            assert torch.allclose(found[likely], written[likely], atol=0.1)


class TestContext:
    def test_what_is_far_away_in_a_window_changes_predictions_and_what_is_outside_does_not(self) -> None:
        config = replace(FULL, context=(16, 6), slices=(3,), mixed=1)
        net = lively(config)
        (piece,) = net.prior.slices
        h = torch.randn(1, 32, 16, 10)
        known = torch.randn(1, 32, 16, 10)
        with torch.no_grad():
            before = piece.recall(h, known)  # type: ignore[operator]
            known[0, 0, 0] += 3
            moved = (piece.recall(h, known) - before).abs().sum((0, 3))  # type: ignore[operator]
        odd = torch.arange(32)[:, None] + torch.arange(16) & 1 == 1
        assert bool((moved[:16][odd[:16]] > 0).all())
        assert float(moved[16:].abs().sum()) == 0
        assert float(moved[~odd].abs().sum()) == 0


class TestViews:
    @pytest.mark.parametrize(("turned", "view"), [(1, "turn"), (2, "turn"), (2, "mirror")])
    def test_they_follow_from_the_linear_transforms_and_all_are_treated_alike(
        self, turned: int, view: str
    ) -> None:
        pixels = 3 * BLOCK**2
        torch.manual_seed(0)
        config = replace(FULL, slices=(pixels,), mixed=1, turned=(turned,), enhancement=())
        net, move = JointNetwork(*config.sizes).transforms, {"turn": half_turn, "mirror": mirrored}[view]
        with torch.no_grad():
            net.klt.weight.copy_(torch.linalg.qr(torch.randn(pixels, pixels))[0])
            net.iklt.weight.copy_(net.klt.weight.T)
            net.mean.normal_()
            net.do.weight.normal_(0, 0.1)
            for name in net.views:
                net.start_view(name)
            y, t = torch.randn(1, 5, 4, pixels) / 9, torch.full((1, 1, 1, 1), 0.5)
            steps = net.steps(t)
            moved = move(net.views[view](y * steps)) / steps
            shown = net.synthesis(y, t)
            assert torch.allclose(net.synthesis(moved, t), move(shown), atol=1e-4)
            net.do.weight.zero_()
            assert float((shown - net.synthesis(y, t)).abs().max()) > 0.01  # what the network adds counts

    @pytest.mark.parametrize("turned", [(), (1,), (2,)])
    def test_an_image_made_in_bands_is_that_made_at_once(
        self, monkeypatch: pytest.MonkeyPatch, turned: tuple[int, ...]
    ) -> None:
        codec = codec_of(lively(replace(FULL, turned=turned)), 4)
        values = {"y": codec.code(latents_of(FULL, 40, 3), hard_rounding, exact=True)["y"].value / 40}
        once = codec.synthesise(values, exact=True)
        monkeypatch.setattr("lof.codecs.lapped.synthesis.BAND", 3 * 7)
        assert torch.allclose(codec.synthesise(values, exact=True), once, atol=1e-5)


class TestEnhancement:
    def test_it_begins_as_nothing_and_reaches_every_pixel_when_trained(self) -> None:
        torch.manual_seed(0)
        net = JointNetwork(*FULL.sizes)
        plain = JointNetwork(*WITHOUT["enhancement"].sizes)
        plain.load_state_dict(
            {k: v for k, v in net.state_dict().items() if k in plain.state_dict()} | {"sizes": plain.sizes}
        )
        y, t = torch.randn(1, 4, 4, 9), torch.zeros(1, 1, 1, 1)
        assert torch.equal(net.reconstruct(y, t), plain.reconstruct(y, t))
        changed = lively(FULL)
        image = torch.rand(1, 64, 64, 3)
        assert changed.enhancement is not None
        assert bool(((changed.enhancement(image, t) - image).abs() > 0).all())

    @pytest.mark.parametrize("without", ["all", "grdn"])
    def test_the_decoder_makes_it_in_strips_the_same_for_every_number_of_threads(
        self, without: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        codec = codec_of(lively(WITHOUT[without]), 4)
        values = {"y": codec.code(latents_of(FULL, 12, 5), hard_rounding, exact=True)["y"].value / 40}
        with torch.no_grad():
            whole = codec.synthesise(values)
        monkeypatch.setattr("lof.codecs.lapped.synthesis.PLACES", 40)
        strips = codec.synthesise(values, exact=True)
        assert torch.allclose(strips, whole, atol=1e-5)
        torch.set_num_threads(3)
        assert torch.equal(codec.synthesise(values, exact=True), strips)

    def test_the_paper_s_size_can_be_built_and_the_shipped_one_is_small(self) -> None:
        with torch.device("meta"):
            paper = Grdn(2, 64, 64, 8, 4, 4)
            shipped = Grdn(*JOINTIQ.enhancement[1:])
        assert 21e6 < sum(p.numel() for p in paper.parameters()) < 23e6
        per_pixel = sum(p.numel() for p in shipped.parameters() if p.dim() > 1) / JOINTIQ.enhancement[1] ** 2
        assert per_pixel < 60_000

    def test_a_search_moves_latents_for_the_repaired_picture(self) -> None:
        """The gradient of the error is that of the enhanced picture, not of what is before it."""
        net = lively(FULL)
        codec, plain = codec_of(net, 4), codec_of(lively(WITHOUT["enhancement"]), 4)
        target = torch.rand(1, 3, 64, 64)
        gradients = []
        for one in (codec, plain):
            y = torch.zeros(1, 9, 4, 4, requires_grad=True)
            (one.synthesise({"y": y}) - target).square().sum().backward()
            assert y.grad is not None
            gradients.append(y.grad)
        assert not torch.allclose(gradients[0], gradients[1], rtol=0.01)


class TestShipped:
    def test_the_second_decoder_reads_it_too(self, crop: NDArray[np.uint8]) -> None:
        codec = load_codec(NAME, 3.5, device="cpu")
        stream = codec.compress(codec.symbols(codec.analyse(tensor_of(crop))))
        weights = {key: value.numpy() for key, value in codec.state().items()}
        _, again = NumpyDecoder(weights, 3.5).decode(stream[0], 8, 8)
        values = codec.decompress(stream, 128, 128).values["y"]
        assert np.array_equal(again, 64 * values[0].permute(1, 2, 0).double().numpy())

    def test_its_enhancement_brings_pictures_nearer_to_their_originals(
        self, photograph: NDArray[np.uint8]
    ) -> None:
        image = tensor_of(photograph)
        codec = load_codec(NAME, 4, device="cpu")
        assert isinstance(codec, JointCodec)
        with torch.no_grad():
            y = codec.code(codec.analyse(image), hard_rounding, exact=True)["y"].value
            plain = codec.net.transforms.synthesis(y.permute(0, 2, 3, 1), torch.full((1, 1, 1, 1), -32 / 224))
            repaired = codec.synthesise({"y": y})
        errors = [(one - image).square().mean() for one in (plain.permute(0, 3, 1, 2), repaired)]
        assert errors[1] < 0.99 * errors[0]

    def test_a_search_gains(self, crop: NDArray[np.uint8]) -> None:
        found = lof.optimize(crop, codec=NAME, quality=4, profile="fast", device="cpu")
        assert found.optimised.cost < 0.98 * found.baseline.cost
        assert lof.decode(found.data).pixels.shape == crop.shape

    def test_strings_of_lapped_are_refused_or_become_a_picture(
        self, codec: Codec, crop: NDArray[np.uint8]
    ) -> None:
        string = codec.compress(codec.symbols(codec.analyse(tensor_of(crop))))[0]
        check_damaged(codec, string, 128, 128, "JointIQ|jointiq")

    def test_the_tiny_weights_are_small(self) -> None:
        assert WEIGHTS.stat().st_size < 100_000
        assert codec_spec(NAME).hidden


def test_sizes_that_describe_no_codec_are_refused() -> None:
    for config in (*WITHOUT.values(), JOINTIQ, JOINTIQ_TINY):
        assert JointConfig.from_sizes(config.sizes) == config
    for change in (
        {"components": 9},
        {"mixed": 4},
        {"refinement": (1, 2)},
        {"components": 1},
        {"context": (5, 2)},
        {"enhancement": (3, 8, 8)},
        {"enhancement": (GRDN, 3, 6, 4, 2, 2, 2)},
        {"width": 0},
        {"serial": (2,)},
        {"turned": (3,)},
    ):
        with pytest.raises(ValueError, match="no such JointIQ codec"):
            replace(FULL, **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="codec"):
        JointConfig.from_sizes(FULL.sizes[:-3])
    with pytest.raises(ValueError, match="codec"):
        JointConfig.from_sizes((*FULL.sizes[:14], 0, *FULL.sizes[14:]))


def tensor_of(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("name", ["lapped-tiny", "jointiq-tiny"])
def test_a_search_and_a_training_on_another_device_keep_to_it(name: str) -> None:
    codec = copy.copy(load_codec(name, device="cpu", precision="fp32"))
    latents, sizes = codec.analyse(torch.rand(2, 3, 64, 128)), codec.net.sizes.tolist()  # type: ignore[attr-defined]
    codec.device = torch.device("cuda:0")
    with FakeTensorMode(allow_non_fake_inputs=True):  # a GPU without values
        with codec.device:
            codec.fast = type(codec.net)(*sizes).eval()  # type: ignore[attr-defined]
        there = {key: torch.empty(value.shape, device=codec.device) for key, value in latents.items()}
        coded = codec.code(there, hard_rounding)
        image = codec.synthesise({"y": coded["y"].value})
        assert {each.bits.device for each in coded.values()} | {image.device} == {codec.device}
        priced = codec.fast.train().price(there["y"].permute(0, 2, 3, 1), torch.zeros(2, device=codec.device))
        assert {each.device for each in priced} == {codec.device}


@pytest.mark.parametrize(("key", "value"), [("mixture.reach", 10**6), ("mixture.phi", 0)])
def test_tables_of_mixtures_that_cannot_be_are_refused(tmp_path: Path, key: str, value: int) -> None:
    state = load_codec("jointiq-tiny", device="cpu").state()
    state[key] = torch.full_like(state[key], value)
    save_file(state, tmp_path / "jointiq-tiny.safetensors")
    with pytest.raises(WeightsError, match="its tables of mixtures hold numbers that cannot be"):
        load_codec("jointiq-tiny", weights=tmp_path, device="cpu")
