"""MSP: order of coding, exact arithmetic, the decoder that stands alone, the search's four profiles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msp_numpy_decoder import NumpyDecoder
from numpy.typing import NDArray
from safetensors.numpy import load_file

import lof
from lof.codecs import hard_rounding, load_codec
from lof.codecs.entropy.fixed import exact_sums
from lof.codecs.msp import layout
from lof.codecs.msp.codec import MSPCodec
from lof.codecs.msp.config import TIERS, MSPConfig
from lof.codecs.msp.network import MSPNetwork
from lof.codecs.msp.prior import FixedConv
from lof.codecs.msp.transforms import TiledSynthesis, synthesis
from lof.codecs.weights import Place
from lof.containers import unpack
from lof.errors import StreamError
from lof.profiles import BUILT_IN, load_profile
from lof.search import symbols_of

CONFIGS = [
    MSPConfig(4, 6, levels=1, spatial_steps=1, width=4, depth=1, groups=(6,)),
    MSPConfig(4, 6, levels=2, spatial_steps=2, width=4, depth=1, groups=(2, 4)),
    MSPConfig(4, 6, levels=3, spatial_steps=3, width=6, depth=2, groups=(1, 2, 3)),
    MSPConfig(4, 6, levels=2, spatial_steps=2, width=4, depth=1, groups=(2, 4), components=2),
    MSPConfig(4, 6, levels=1, spatial_steps=3, width=6, depth=1, groups=(6,), components=3),
]


@pytest.fixture(scope="module")
def codec() -> MSPCodec:
    loaded = load_codec("msp-tiny", device="cpu", precision="fp32")
    assert isinstance(loaded, MSPCodec)
    return loaded


def network(config: MSPConfig, seed: int = 0) -> MSPNetwork:
    """Untrained but lively: predictions differ from place to place."""
    torch.manual_seed(seed)
    net = MSPNetwork(*config.sizes).eval()
    with torch.no_grad():
        for module in net.prior.modules():
            if isinstance(module, FixedConv):
                module.weight.mul_(3)
        for level in (net.prior.fine, net.prior.coarse):
            for step in level.steps:
                step.head.bias.add_(torch.rand_like(step.head.bias) * 20)
    net.order.copy_(torch.randperm(config.latent_channels))
    net.prior.spread.copy_(2.0 ** torch.randint(-2, 3, (config.latent_channels,)))
    net.update()
    return net


def codec_of(config: MSPConfig, seed: int = 0) -> MSPCodec:
    return MSPCodec(
        network(config, seed),
        name="test",
        quality=4,
        metric="mse",
        lmbda=0.01,
        device=torch.device("cpu"),
        precision=torch.float32,
    )


def latents(config: MSPConfig, rows: int, columns: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 6 * torch.randn(batch, config.latent_channels, rows, columns, generator=generator)


def tensor_of(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


class TestLayout:
    @pytest.mark.parametrize("config", CONFIGS)
    @settings(deadline=None, max_examples=20)
    @given(rows=st.integers(1, 19), columns=st.integers(1, 19))
    def test_every_element_is_coded_exactly_once(self, config: MSPConfig, rows: int, columns: int) -> None:
        y = layout.pad(torch.ones(1, config.latent_channels, rows, columns), config)
        coded = torch.zeros_like(y)
        for part in layout.parts(config):
            chunks = part.cut(coded).chunk(len(part.positions), 1)
            inside = part.cut(y).chunk(len(part.positions), 1)
            for chunk, mask, (h, w) in zip(chunks, inside, part.extents(rows, columns), strict=True):
                assert bool((mask[..., :h, :w] == 1).all())
                assert float(mask.sum()) == mask.shape[1] * h * w
                assert chunk.shape == mask.shape
        pieces = [part.cut(y) for part in layout.parts(config)]
        assert sum(piece.numel() for piece in pieces) == y.numel()
        assert torch.equal(layout.assemble(pieces, config, *y.shape[-2:]), y)

    @pytest.mark.parametrize("config", CONFIGS)
    def test_a_prediction_depends_on_nothing_that_is_coded_later(self, config: MSPConfig) -> None:
        net = network(config)
        net.prior.exact = False
        y = layout.pad(latents(config, 9, 7), config)
        parts = list(layout.parts(config))
        changed = len(parts) // 2

        def predictions(values: torch.Tensor) -> list[torch.Tensor]:
            seen: list[torch.Tensor] = []

            def take(
                part: layout.Part, mean: torch.Tensor | None, index: torch.Tensor | None
            ) -> torch.Tensor:
                seen.append(torch.zeros(1) if mean is None or index is None else torch.cat([mean, index], 1))
                return part.cut(values)

            with torch.no_grad():
                layout.walk(net.prior, take)
            return seen

        pieces = [part.cut(y) for part in parts]
        pieces[changed] = pieces[changed] + 3
        other = layout.assemble(pieces, config, *y.shape[-2:])
        before, after = predictions(y), predictions(other)
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert all(same[: changed + 1])
        assert changed + 1 == len(parts) or not all(same[changed + 1 :])

    @pytest.mark.parametrize("name", TIERS)
    def test_the_number_of_evaluations_is_the_tiers_for_every_image(self, name: str) -> None:
        config = TIERS[name]
        calls = 0

        class Counting:
            def __init__(self) -> None:
                self.config = config

            def enter(self, level: int, known: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
                return known[:, :1]

            def step(
                self, step: layout.Step, hidden: torch.Tensor, new: torch.Tensor | None
            ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
                nonlocal calls
                calls += 1
                channels = len(step.part.positions) * (step.part.channels[1] - step.part.channels[0])
                flat = hidden.expand(-1, channels, -1, -1)
                return hidden, flat, flat

        for size in ((1, 1), (16, 16), (33, 50)):
            y = layout.pad(torch.zeros(1, config.latent_channels, *size), config)
            calls = 0
            layout.walk(Counting(), lambda part, mean, index, y=y: part.cut(y))  # type: ignore[misc]
            assert 1 + calls == config.evaluations

    def test_sizes_that_describe_no_codec_are_refused(self) -> None:
        for sizes in ((4, 6, 2), (4, 6, 2, 4, 8, 1, 6), (4, 6, 2, 2, 8, 1, 5), (4, 6, 0, 2, 8, 1, 6)):
            with pytest.raises(ValueError, match="MSP codec"):
                MSPConfig.from_sizes(sizes)
        for config in (*CONFIGS, *TIERS.values()):
            assert MSPConfig.from_sizes(config.sizes) == config


class TestExactness:
    @pytest.mark.parametrize("config", CONFIGS)
    @pytest.mark.parametrize("size", [(5, 9), (1, 1), (8, 8), (13, 3)])
    def test_a_second_decoder_with_integers_reads_the_same_latents(
        self, config: MSPConfig, size: tuple[int, int]
    ) -> None:
        codec = codec_of(config)
        y = latents(config, *size)
        coded = codec.code({"y": y}, hard_rounding, exact=True)["y"]
        string = codec.compress(symbols_of({"y": coded}))[0]
        values = codec.decoder.read(string, *size)[1]
        weights = {key: value.numpy() for key, value in codec.net.shippable_state().items()}
        again = NumpyDecoder(weights).decode(string, *size)
        assert torch.equal(values, coded.value)
        assert np.array_equal(again, (64 * values[0].double()).numpy())

    def test_the_shipped_weights_are_read_by_the_second_decoder_too(
        self, codec: MSPCodec, crop: NDArray[np.uint8]
    ) -> None:
        data = lof.encode(crop, codec=codec)
        string = unpack(data).strings[0]
        file = Place("msp-tiny", "mse", 4).bundled
        again = NumpyDecoder(load_file(file)).decode(string, 8, 8)
        assert np.array_equal(again, (64 * codec.decoder.read(string, 8, 8)[1][0].double()).numpy())

    @pytest.mark.parametrize("name", ["msp-base", "msp-high"])
    def test_sums_stay_exact_in_float32_whatever_the_weights(self, name: str) -> None:
        torch.manual_seed(1)
        for inputs, outputs, kernel in ((TIERS[name].width + 96, 8, 3), (TIERS[name].width, 8, 1)):
            layer = FixedConv(inputs, outputs, kernel)
            with torch.no_grad():
                layer.weight.mul_(torch.logspace(-3, 2, outputs).reshape(-1, 1, 1, 1))
            layer.to_grid()
            worst = torch.full((1, inputs, 5, 5), 255 / 32)
            counts = layer.counts()
            unit = 2.0 ** layer.shift.double()
            sums = counts["weight"].double().abs().flatten(1).sum(1) * 255 + counts["bias"].double().abs()
            assert float(sums.max()) < 2**24
            signs = torch.randint(0, 256, (1, inputs, 5, 5)).float() / 32
            with exact_sums():
                for x in (worst, signs):
                    exact = torch.nn.functional.conv2d(
                        x.double(), layer.weight.double(), layer.bias.double(), padding=kernel // 2
                    )
                    found = torch.nn.Module.__call__(layer, x).double()
                    assert torch.equal(found, exact)
            assert torch.equal(layer.weight.double() * unit.reshape(-1, 1, 1, 1), counts["weight"].double())

    def test_predictions_do_not_depend_on_threads_or_neighbours_in_the_batch(self, codec: MSPCodec) -> None:
        y = latents(TIERS["msp-tiny"], 24, 17, batch=3)
        together = codec.code({"y": y}, hard_rounding, exact=True)["y"]
        torch.set_num_threads(3)
        try:
            threaded = codec.code({"y": y}, hard_rounding, exact=True)["y"]
        finally:
            torch.set_num_threads(1)
        assert torch.equal(together.value, threaded.value)
        for index in range(3):
            alone = codec.code({"y": y[index : index + 1]}, hard_rounding, exact=True)["y"]
            assert torch.equal(alone.value[0], together.value[index])
            assert torch.equal(alone.residual[0], together.residual[index])

    def test_the_image_does_not_depend_on_threads_or_neighbours_in_the_batch(self, codec: MSPCodec) -> None:
        values = torch.round(latents(TIERS["msp-tiny"], 21, 37, batch=2))
        once = codec.decoder.synthesise(values)
        for threads in (2, 3):
            torch.set_num_threads(threads)
            try:
                assert torch.equal(codec.decoder.synthesise(values), once)
                assert torch.equal(codec.decoder.synthesise(values[1:])[0], once[1])
            finally:
                torch.set_num_threads(1)

    @pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 33), (40, 16)])
    def test_tiles_are_the_synthesis_without_seams(self, size: tuple[int, int]) -> None:
        torch.manual_seed(0)
        net = synthesis(6, 8)
        y = torch.randn(2, 8, *size)
        assert torch.allclose(TiledSynthesis(net)(y), net(y), atol=1e-5)

    def test_weights_on_their_grid_ship_as_integers_and_come_back_unchanged(self) -> None:
        net = network(CONFIGS[1])
        state = net.shippable_state()
        assert state["prior.fine.steps.0.head.weight"].dtype == torch.int8
        again = MSPNetwork.from_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )
        again.update()
        for key, value in net.state_dict().items():
            if not key.startswith(("g_a.", "g_s.")):
                assert torch.equal(again.state_dict()[key], value), key


STANDALONE = """
import sys
for name in ("lof.search", "lof.api", "lof.jobs", "lof.training", "ray", "optuna", "pydantic", "typer"):
    sys.modules[name] = None
import numpy as np, torch
from safetensors.torch import load_file
from lof.codecs.msp.decoder import Decoder
from lof.codecs.msp.network import MSPNetwork
state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(sys.argv[1]).items()}
net = MSPNetwork.from_state_dict(state).eval()
net.update()
for threads in (1, 2):
    torch.set_num_threads(threads)
    image = Decoder(net).decode(open(sys.argv[2], "rb").read(), int(sys.argv[3]), int(sys.argv[4]))
    np.save(f"{sys.argv[2]}-{threads}.npy", image.numpy())
"""


def test_the_decoder_stands_alone_with_any_number_of_threads(
    codec: MSPCodec, photograph: NDArray[np.uint8], tmp_path: Path
) -> None:
    pixels = np.ascontiguousarray(photograph[:96, 100:244])
    latent = codec.analyse(codec.pad(tensor_of(pixels)))
    coded = codec.code(latent, hard_rounding, exact=True)
    string = codec.compress(symbols_of(coded))[0]
    (tmp_path / "string").write_bytes(string)
    weights = Place("msp-tiny", "mse", 4).bundled
    arguments = [str(weights), str(tmp_path / "string"), "96", "144"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STANDALONE, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    promised = codec.synthesise({"y": coded["y"].value}, exact=True).numpy()
    for threads in (1, 2):
        assert np.array_equal(np.load(tmp_path / f"string-{threads}.npy"), promised)


class TestSearch:
    @pytest.mark.parametrize("name", BUILT_IN)
    def test_every_profile_runs_and_is_never_worse(
        self, codec: MSPCodec, crop: NDArray[np.uint8], name: str
    ) -> None:
        plan = load_profile(name)
        stages = [stage.model_copy(update={"evaluations": min(stage.evaluations, 6)}) for stage in plan.stage]
        result = lof.optimize(crop[:80, :61], codec=codec, profile=plan.model_copy(update={"stage": stages}))
        assert result.optimised.cost <= result.baseline.cost
        assert result.kept == "search"
        assert np.array_equal(lof.decode(result.data).pixels, result.pixels)

    def test_the_rate_of_an_element_counts_in_every_context_that_it_feeds(self, codec: MSPCodec) -> None:
        y = latents(TIERS["msp-tiny"], 8, 8).requires_grad_()
        coded = codec.code({"y": y}, lambda _, residual: residual)["y"]
        finest = coded.bits[..., 1::2, 1::2].sum()
        (gradient,) = torch.autograd.grad(finest, y)
        assert float(gradient[..., ::4, ::4].abs().sum()) > 0  # the coarsest grid, coded three steps earlier

    def test_estimated_bits_are_within_half_a_percent_of_the_string(
        self, codec: MSPCodec, photograph: NDArray[np.uint8]
    ) -> None:
        latent = codec.analyse(codec.pad(tensor_of(photograph)))
        coded = codec.code(latent, hard_rounding, exact=True)
        written = 8 * len(codec.compress(symbols_of(coded))[0])
        assert abs(float(coded["y"].bits.sum()) / written - 1) < 0.005

    def test_the_search_prices_what_the_decoder_will_read(
        self, codec: MSPCodec, photograph: NDArray[np.uint8]
    ) -> None:
        latent = codec.analyse(codec.pad(tensor_of(photograph[:256, :256])))
        exact = codec.code(latent, hard_rounding, exact=True)["y"].bits.sum()
        assert float(codec.code(latent, hard_rounding)["y"].bits.sum() / exact) == pytest.approx(1, abs=0.005)


@settings(deadline=None, max_examples=40)
@given(data=st.binary(min_size=8, max_size=64))
def test_crafted_strings_never_crash(data: bytes) -> None:
    codec = load_codec("msp-tiny", device="cpu", precision="fp32")
    string = data[: len(data) // 4 * 4]
    try:
        decoded = codec.decompress([string], 40, 24).image
    except StreamError:
        return
    assert decoded.shape == (3, 40, 24)
