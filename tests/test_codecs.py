"""The codec contract, walked for every registered codec; the registry; the weights' sources."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from lof.codecs import (
    Codec,
    CodecSpec,
    RatePoint,
    codec_spec,
    codec_specs,
    hard_rounding,
    load_codec,
    register,
)
from lof.codecs.weights import bundled_file, load_weights, without_lent_transforms
from lof.errors import LofError, StreamError, UnknownCodecError, WeightsError
from lof.search import symbols_of

ALL = [(spec.name, spec.source) for spec in codec_specs(hidden=True)]


@pytest.fixture(params=ALL, ids=[name for name, _ in ALL])
def codec(request: pytest.FixtureRequest, zoo_weights: Path) -> Codec:
    name, source = request.param
    if source == "zoo":
        return load_codec(name, 1, weights=zoo_weights, device="cpu")
    return load_codec(name, device="cpu")


def tensor_of(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def plain(codec: Codec, pixels: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
    latents = codec.analyse(codec.pad(tensor_of(pixels)))
    return symbols_of(codec.code(latents, hard_rounding, exact=True))


class TestContract:
    @pytest.mark.parametrize("size", [(128, 128), (1, 1), (65, 3), (100, 127)])
    def test_strings_decode_to_the_exact_synthesis_of_their_symbols(
        self, codec: Codec, crop: NDArray[np.uint8], size: tuple[int, int]
    ) -> None:
        pixels = np.ascontiguousarray(crop[: size[0], : size[1]])
        latents = codec.analyse(codec.pad(tensor_of(pixels)))
        coded = codec.code(latents, hard_rounding, exact=True)
        decoded = codec.decompress(codec.compress(symbols_of(coded)), *size)
        exact = codec.synthesise({n: c.value for n, c in coded.items()}, exact=True).clamp(0, 1)
        assert decoded.shape == (3, *size)
        assert torch.equal(decoded, codec.crop(exact, *size)[0])

    def test_estimated_bits_are_close_to_the_strings(
        self, codec: Codec, photograph: NDArray[np.uint8]
    ) -> None:
        pixels = np.ascontiguousarray(photograph[:256, 128:384])
        latents = codec.analyse(codec.pad(tensor_of(pixels)))
        coded = codec.code(latents, hard_rounding, exact=True)
        estimated = sum(float(c.bits.sum()) for c in coded.values())
        written = 8 * sum(len(s) for s in codec.compress(symbols_of(coded)))
        assert written > 1000
        assert abs(estimated - written) < 0.01 * written + 512

    def test_equal_symbols_give_equal_strings_at_any_thread_count(
        self, codec: Codec, crop: NDArray[np.uint8]
    ) -> None:
        symbols = plain(codec, crop)
        once = codec.compress(symbols)
        torch.set_num_threads(2)
        try:
            again = codec.compress(symbols)
            decoded = codec.decompress(once, 128, 128)
        finally:
            torch.set_num_threads(1)
        assert once == again
        # The synthesis may sum in another order: the last bits differ, the symbols (and so the picture) do not.
        assert torch.allclose(decoded, codec.decompress(once, 128, 128), atol=1e-5)

    def test_every_element_costs_bits_and_more_the_less_likely_it_is(
        self, codec: Codec, crop: NDArray[np.uint8]
    ) -> None:
        latents = codec.analyse(codec.pad(tensor_of(crop)))
        for coded in codec.code(latents, hard_rounding).values():
            assert float(coded.bits.min()) >= 0
            assert bool((coded.bits_of(coded.residual + 30).sum() > coded.bits.sum()).all())

    def test_symbols_far_outside_the_tables_survive(self, codec: Codec, crop: NDArray[np.uint8]) -> None:
        symbols = plain(codec, crop)
        symbols["y"].view(-1)[:4] = torch.tensor([-3000, 3000, 40000, -40000], dtype=torch.int32)
        strings = codec.compress(symbols)
        assert codec.compress(symbols) == strings
        assert bool(torch.isfinite(codec.decompress(strings, 128, 128)).all())

    def test_gradients_reach_every_latent(self, codec: Codec, crop: NDArray[np.uint8]) -> None:
        latents = {n: t.requires_grad_() for n, t in codec.analyse(codec.pad(tensor_of(crop))).items()}
        coded = codec.code(latents, lambda _, residual: residual)
        cost = sum(c.bits.sum() for c in coded.values())
        cost = cost + codec.synthesise({n: c.value for n, c in coded.items()}).square().sum()
        cost.backward()
        for tensor in latents.values():
            assert tensor.grad is not None
            assert bool(torch.isfinite(tensor.grad).all())
            assert float(tensor.grad.abs().sum()) > 0

    def test_images_of_a_batch_do_not_influence_each_other(
        self, codec: Codec, photograph: NDArray[np.uint8]
    ) -> None:
        two = torch.cat(
            [tensor_of(photograph[:64, :64].copy()), tensor_of(photograph[200:264, 200:264].copy())]
        )
        both = codec.code(codec.analyse(two), hard_rounding)
        alone = codec.code(codec.analyse(two[1:]), hard_rounding)
        for name, coded in alone.items():
            assert torch.allclose(both[name].bits[1:].sum(), coded.bits.sum(), rtol=1e-2)

    @pytest.mark.parametrize("damage", [[], [b""], [b"", b""], [b"abc", b"abcd"], [b"\0" * 8] * 3])
    def test_strings_of_another_kind_are_one_clear_error(self, codec: Codec, damage: list[bytes]) -> None:
        with pytest.raises(StreamError, match="compress the image again"):
            codec.decompress(damage, 64, 64)

    def test_short_strings_never_crash(self, codec: Codec, crop: NDArray[np.uint8]) -> None:
        strings = codec.compress(plain(codec, crop))
        for keep in (8, 12, 64):
            cut = [s[: max(8, min(len(s), keep))] for s in strings]
            try:
                decoded = codec.decompress(cut, 128, 128)
            except StreamError:
                continue
            assert decoded.shape == (3, 128, 128)


def test_scale_margin_is_the_distance_to_the_nearest_boundary(crop: NDArray[np.uint8]) -> None:
    codec = load_codec("tiny", device="cpu")
    strings = codec.compress(plain(codec, crop))
    margin = codec.scale_margin(strings, 128, 128)
    net = codec.net  # type: ignore[attr-defined]
    z_hat = net.entropy_bottleneck.decompress([strings[1]], (2, 2))
    scales = net.h_s(z_hat).chunk(2, 1)[0].double().clamp_min(1e-12).reshape(-1, 1)
    boundaries = net.gaussian_conditional.scale_table[:-1].double()
    assert margin == pytest.approx(float((boundaries / scales - 1).abs().min()), rel=1e-9)


@pytest.mark.parametrize("name", ["mean-scale-96", "msp-tiny"])
def test_widened_symbols_keep_clear_of_boundaries_and_stay_nearly_the_same(
    name: str, photograph: NDArray[np.uint8]
) -> None:
    codec = load_codec(name, device="cpu")
    image = torch.from_numpy(photograph[:500, :490]).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        found = codec.code(codec.analyse(codec.pad(image)), hard_rounding, exact=True)
    symbols = {latent: coded.residual.to(torch.int32) for latent, coded in found.items()}
    before = {latent: tensor.clone() for latent, tensor in symbols.items()}
    wide = codec.widen(symbols)
    strings, other = codec.compress(symbols), codec.compress(wide)
    assert all(torch.equal(symbols[latent], before[latent]) for latent in codec.latents)
    narrow, margin = codec.scale_margin(strings, 500, 490), codec.scale_margin(other, 500, 490)
    if codec.portable:
        assert (other, margin) == (strings, None)
        return
    assert narrow is not None
    assert margin is not None
    assert narrow < 3e-6 <= margin
    assert 0 < int((wide["z"] != symbols["z"]).sum()) < 30
    assert sum(map(len, other)) < 1.005 * sum(map(len, strings))
    error = [
        float((codec.decompress(some, 500, 490) - image[0]).square().mean()) for some in (strings, other)
    ]
    assert error[1] < 1.01 * error[0]


class TestRegistry:
    def test_a_second_codec_of_one_name_is_refused(self) -> None:
        with pytest.raises(ValueError, match="registered already"):
            register(codec_spec("tiny"))

    def test_an_unknown_codec_names_the_nearest(self) -> None:
        with pytest.raises(UnknownCodecError, match=r"'mbt2018-maen': unknown; did you mean mbt2018-mean\?"):
            codec_spec("mbt2018-maen")

    def test_an_unknown_quality_lists_those_that_exist(self) -> None:
        with pytest.raises(UnknownCodecError, match="no quality 9; it has 1, 2, 3, 4, 5, 6, 7, 8"):
            load_codec("mbt2018-mean", 9)

    def test_an_unknown_metric_lists_those_that_exist(self) -> None:
        with pytest.raises(UnknownCodecError, match="no metric 'vmaf'; it has ms-ssim, mse"):
            load_codec("mbt2018-mean", 1, metric="vmaf")

    def test_a_codec_from_outside_is_searched_and_decoded_like_ours(
        self, zoo_weights: Path, crop: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from lof.api import decode, encode
        from lof.codecs import registry as _registry

        monkeypatch.setattr(_registry, "_registry", dict(_registry._registry))
        spec = CodecSpec(
            name="my-codec",
            implementation="hyperprior:MeanScaleCodec",
            rate_points={("mse", 1): RatePoint(0.01, (8, 12))},
            source="bundled",
            default_quality=1,
            summary="from a test",
            paper="none",
            licence="none",
        )
        register(spec)
        theirs = zoo_weights / "my-codec-1.safetensors"
        theirs.write_bytes((zoo_weights / "mbt2018-mean-1.safetensors").read_bytes())
        codec = load_codec("my-codec", weights=zoo_weights, device="cpu")
        data = encode(crop, codec=codec)
        assert decode(data, weights=zoo_weights).pixels.shape == crop.shape


class TestWeights:
    def test_bundled_weights_match_their_registered_fingerprint(self) -> None:
        for spec in codec_specs(hidden=True):
            for (metric, quality), point in spec.rate_points.items():
                if spec.source == "bundled":
                    codec = load_codec(spec.name, quality, metric=metric, device="cpu")
                    assert codec.fingerprint.hex() == point.fingerprint
                    assert codec.lmbda == point.lmbda

    def test_without_a_network_the_error_names_the_file_and_where_to_put_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
        with pytest.raises(
            WeightsError, match=r"mbt2018-mean-3-723404a8\.pth\.tar: .*--weights or LOF_WEIGHTS_DIR"
        ):
            load_codec("mbt2018-mean", 3, device="cpu")

    def test_the_folder_in_the_environment_is_used(
        self, zoo_weights: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LOF_WEIGHTS_DIR", str(zoo_weights))
        found = load_codec("bmshj2018-hyperprior", 1, device="cpu", precision="fp32")
        named = load_codec("bmshj2018-hyperprior", 1, weights=zoo_weights, device="cpu")
        assert found.fingerprint == named.fingerprint

    @pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04\x95" + b"\0" * 50])
    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    def test_damaged_weights_are_one_clear_error(self, tmp_path: Path, content: bytes, suffix: str) -> None:
        (tmp_path / f"mbt2018-mean-1{suffix}").write_bytes(content)
        with pytest.raises(WeightsError, match=f"mbt2018-mean-1{suffix}: cannot be read as weights"):
            load_codec("mbt2018-mean", 1, weights=tmp_path, device="cpu")

    def test_weights_of_another_architecture_are_refused(self, tmp_path: Path, zoo_weights: Path) -> None:
        wrong = zoo_weights / "bmshj2018-factorized-1.safetensors"
        (tmp_path / "mbt2018-mean-1.safetensors").write_bytes(wrong.read_bytes())
        with pytest.raises(WeightsError, match="not weights of MeanScaleHyperprior"):
            load_codec("mbt2018-mean", 1, weights=tmp_path, device="cpu")

    def test_a_zoo_file_whose_hash_is_not_the_one_in_its_name_is_refused(self, tmp_path: Path) -> None:
        torch.save({"state_dict": {}}, tmp_path / "mbt2018-mean-1-e522738d.pth.tar")
        with pytest.raises(WeightsError, match="SHA-256 is not the one in its name"):
            load_codec("mbt2018-mean", 1, weights=tmp_path, device="cpu")

    def test_a_checkpoint_that_would_run_code_is_refused(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.system, (f"touch {tmp_path}/ran",)

        torch.save({"state_dict": Evil()}, tmp_path / "mbt2018-mean-1.pt")
        with pytest.raises(LofError):
            load_codec("mbt2018-mean", 1, weights=tmp_path, device="cpu")
        assert not (tmp_path / "ran").exists()

    def test_old_parameter_names_are_understood(self, tmp_path: Path, zoo_weights: Path) -> None:
        new = load_file(zoo_weights / "mbt2018-mean-1.safetensors")
        old = {}
        for key, value in new.items():
            for plural, singular in (("matrices", "_matrix"), ("biases", "_bias"), ("factors", "_factor")):
                if f".{plural}." in key:
                    old[f"module.entropy_bottleneck.{singular}{key[-1]}"] = value
                    break
            else:
                old[f"module.{key}"] = value
        assert old.keys() != new.keys()
        torch.save({"state_dict": old}, tmp_path / "mbt2018-mean-1.pth")
        ours = load_codec("mbt2018-mean", 1, weights=tmp_path, device="cpu")
        assert (
            ours.fingerprint == load_codec("mbt2018-mean", 1, weights=zoo_weights, device="cpu").fingerprint
        )

    def test_transforms_that_another_codec_ships_are_taken_from_there(self, tmp_path: Path) -> None:
        shipped = bundled_file(codec_spec("msp-base"), "mse", 4)
        assert not any(key.startswith(("g_a.", "g_s.")) for key in load_file(shipped))
        whole, _ = load_weights(codec_spec("msp-base"), "mse", 4, None)
        donor, _ = load_weights(codec_spec("mean-scale-96"), "mse", 4, None)
        assert torch.equal(whole["g_s.0.weight"], donor["g_s.0.weight"])
        kept, metadata = without_lent_transforms(codec_spec("msp-base"), "mse", 4, whole)
        assert kept.keys() == load_file(shipped).keys()

        save_file(kept, tmp_path / "msp-base-4.safetensors", metadata)
        again = load_codec("msp-base", 4, weights=tmp_path, device="cpu")
        assert again.fingerprint == load_codec("msp-base", 4, device="cpu").fingerprint
        save_file(kept, tmp_path / "msp-base-4.safetensors", {"transforms": 64 * "0"})
        with pytest.raises(WeightsError, match="made for other transforms than those of mean-scale-96"):
            load_weights(codec_spec("msp-base"), "mse", 4, tmp_path)

    def test_transforms_of_its_own_stay_with_a_codec(self, tmp_path: Path) -> None:
        whole, _ = load_weights(codec_spec("msp-base"), "mse", 4, None)
        own = whole | {"g_s.0.weight": whole["g_s.0.weight"] + 1}
        assert without_lent_transforms(codec_spec("msp-base"), "mse", 4, own) == (own, {})
        save_file(own, tmp_path / "msp-base-4.safetensors")
        read, _ = load_weights(codec_spec("msp-base"), "mse", 4, tmp_path)
        assert torch.equal(read["g_s.0.weight"], own["g_s.0.weight"])


def test_help_and_import_need_no_torch() -> None:
    modules = "profiles", "stream", "errors", "codecs", "report", "jobs", "archive", "study"
    code = (
        f"import sys, lof, {', '.join(f'lof.{name}' for name in modules)}; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
