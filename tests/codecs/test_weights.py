"""Where weights come from, and what is refused."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.modules.module import register_module_module_registration_hook

from lof.codecs import codec_spec, codec_specs, load_codec, weights
from lof.codecs.registry import Request
from lof.codecs.weights import Place, file_of, load_weights, without_lent_transforms
from lof.errors import LofError, WeightsError

MSP = Place("msp-base", "mse", 4, transforms="mean-scale-96")


class TestWeights:
    def test_bundled_weights_match_their_registered_fingerprint(self) -> None:
        for spec in codec_specs(hidden=True):
            for (metric, quality), point in spec.rate_points.items():
                if spec.source in ("bundled", "repository"):
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

    def test_weights_with_one_wrong_bit_are_refused(self, tmp_path: Path) -> None:
        state = load_file(MSP.bundled)
        path = tmp_path / "msp-base-4.pth"
        torch.save(state, path)
        read = load_weights(Place("msp-base", "mse", 4), tmp_path)[0]
        assert all(torch.equal(read[name], state[name].float()) for name in state if name.endswith("weight"))
        content = bytearray(path.read_bytes())
        name = max(state, key=lambda name: state[name].nbytes)
        content[content.index(state[name].numpy().tobytes()) + state[name].nbytes // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"4\.pth: cannot be read as weights \(damaged: a checksum"):
            load_weights(Place("msp-base", "mse", 4), tmp_path)

    def test_a_small_file_that_claims_to_hold_much_is_refused_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "msp-base-4.pth"
        torch.save(load_file(MSP.bundled), path)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("more", bytes(4 * path.stat().st_size))
        with pytest.raises(WeightsError, match=r"4\.pth: cannot be read as weights \(damaged: "):
            load_weights(Place("msp-base", "mse", 4), tmp_path)

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
        shipped = MSP.bundled
        assert not any(key.startswith(("g_a.", "g_s.")) for key in load_file(shipped))
        whole, _ = load_weights(MSP)
        donor, _ = load_weights(Place("mean-scale-96", "mse", 4))
        assert torch.equal(whole["g_s.0.weight"], donor["g_s.0.weight"])
        kept, metadata = without_lent_transforms(MSP, whole)
        assert kept.keys() == load_file(shipped).keys()

        save_file(kept, tmp_path / "msp-base-4.safetensors", metadata)
        again = load_codec("msp-base", 4, weights=tmp_path, device="cpu")
        assert again.fingerprint == load_codec("msp-base", 4, device="cpu").fingerprint
        save_file(kept, tmp_path / "msp-base-4.safetensors", {"transforms": 64 * "0"})
        with pytest.raises(WeightsError, match="made for other transforms than those of mean-scale-96"):
            load_weights(MSP, tmp_path)

    def test_weights_that_are_not_installed_are_asked_for_and_found_in_a_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, (known, _) = MSP.bundled.parent, load_weights(MSP)
        alone = tmp_path / "alone"
        alone.mkdir()
        shutil.copy(MSP.bundled, alone)
        monkeypatch.setattr(weights, "files", lambda _: tmp_path)
        with pytest.raises(
            WeightsError, match=r"msp-base-4\.safetensors: is not installed here; take it from"
        ):
            load_weights(MSP)
        with pytest.raises(WeightsError, match=r"needs transforms of mean-scale-96-4\.safetensors; put that"):
            load_weights(MSP, alone)
        named, _ = load_weights(MSP, folder)
        monkeypatch.setenv("LOF_WEIGHTS_DIR", str(folder))
        found, _ = load_weights(MSP)
        assert known.keys() == named.keys() == found.keys()
        assert all(
            torch.equal(known[key], named[key]) and torch.equal(known[key], found[key]) for key in known
        )

    def test_transforms_of_its_own_stay_with_a_codec(self, tmp_path: Path) -> None:
        whole, _ = load_weights(MSP)
        own = whole | {"g_s.0.weight": whole["g_s.0.weight"] + 1}
        assert without_lent_transforms(MSP, own) == (own, {})
        save_file(own, tmp_path / "msp-base-4.safetensors")
        read, _ = load_weights(MSP, tmp_path)
        assert torch.equal(read["g_s.0.weight"], own["g_s.0.weight"])

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_numbers_that_are_not_finite_are_refused(
        self, tmp_path: Path, zoo_weights: Path, value: float
    ) -> None:
        state = load_file(zoo_weights / "mbt2018-mean-1.safetensors")
        state["g_s.0.weight"][0, 0, 0, 0] = value
        save_file(state, tmp_path / "mbt2018-mean-1.safetensors")
        with pytest.raises(WeightsError, match=r"damaged \(g_s.0.weight holds numbers that are not finite\)"):
            load_codec("mbt2018-mean", 1, weights=tmp_path, device="cpu")

    def test_nothing_is_downloaded_unless_it_is_allowed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with pytest.raises(WeightsError, match="downloads nothing here without being asked"):
            load_codec("mbt2018-mean", 3, device="cpu", download=False)
        monkeypatch.setenv("LOF_OFFLINE", "1")
        with pytest.raises(WeightsError, match="downloads nothing here without being asked"):
            load_codec("mbt2018-mean", 3, device="cpu")

    @pytest.mark.parametrize(
        ("key", "spoil"),
        [
            ("_quantized_cdf", lambda t: t.index_fill(1, torch.tensor([1]), 0)),  # a frequency of 0: SIGFPE
            ("_quantized_cdf", lambda t: t * 2),
            ("_quantized_cdf", lambda t: t[:-1].clone()),
            ("_cdf_length", lambda t: t + 1000),
            ("_cdf_length", lambda t: -t),
            ("_offset", lambda t: t + 2**30),
            ("_offset", lambda t: t[:-1].clone()),
            ("_offset", lambda t: t[None].clone()),
        ],
    )
    @pytest.mark.parametrize("model", ["entropy_bottleneck", "gaussian_conditional"])
    def test_tables_that_the_coder_cannot_work_with_are_refused(
        self,
        tmp_path: Path,
        zoo_weights: Path,
        model: str,
        key: str,
        spoil: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        state = load_file(zoo_weights / "mbt2018-mean-1.safetensors")
        state[f"{model}.{key}"] = spoil(state[f"{model}.{key}"])
        save_file(state, tmp_path / "mbt2018-mean-1.safetensors")
        with pytest.raises(WeightsError, match=r"(damaged|not weights of MeanScaleHyperprior) "):
            load_codec("mbt2018-mean", 1, weights=tmp_path, device="cpu")

    def test_a_prior_without_tables_and_of_absurd_width_is_refused(
        self, tmp_path: Path, zoo_weights: Path
    ) -> None:
        state = load_file(zoo_weights / "bmshj2018-factorized-1.safetensors")
        state = {key: value for key, value in state.items() if not key.startswith("entropy_bottleneck._")}
        state["entropy_bottleneck.quantiles"] *= 1e30
        save_file(state, tmp_path / "bmshj2018-factorized-1.safetensors")
        with pytest.raises(WeightsError, match="wider than any latent"):
            load_codec("bmshj2018-factorized", 1, weights=tmp_path, device="cpu")

    def test_tensors_that_claim_more_than_their_file_has_are_refused(self, tmp_path: Path) -> None:
        wide = torch.zeros(1).expand(2**40)  # of stride 0
        torch.save({"g_a.0.weight": wide}, tmp_path / "mbt2018-mean-1.pth")
        with pytest.raises(WeightsError, match="claim more bytes than it has"):
            load_codec("mbt2018-mean", 1, weights=tmp_path, device="cpu")

    @pytest.mark.parametrize("sizes", [(2**30, 24, 2, 2, 16, 1, 8, 16), (16, 24, 2, 2, 16, 2**30, 8, 16)])
    def test_sizes_that_the_tensors_do_not_bear_out_are_refused_before_memory_is_taken(
        self, tmp_path: Path, sizes: tuple[int, ...]
    ) -> None:
        state = load_file(Place("msp-tiny", "mse", 4).bundled)
        state["sizes"] = torch.tensor(sizes, dtype=torch.int32)
        save_file(state, tmp_path / "msp-tiny-4.safetensors")
        with pytest.raises(WeightsError, match="not weights of MSPNetwork"):
            load_codec("msp-tiny", 4, weights=tmp_path, device="cpu")

    def test_an_order_that_names_a_channel_twice_is_refused(self, tmp_path: Path) -> None:
        state = load_file(Place("msp-tiny", "mse", 4).bundled)
        state["order"][0] = state["order"][1]
        save_file(state, tmp_path / "msp-tiny-4.safetensors")
        with pytest.raises(WeightsError, match="order of channels does not name each once"):
            load_codec("msp-tiny", 4, weights=tmp_path, device="cpu")


def test_one_file_for_all_qualities_that_is_not_installed_is_asked_for_and_found_in_a_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, room = codec_spec("jointiq-tiny"), Path(weights.__file__).parent
    request = Request(spec, "mse", 4, spec.rate_point("mse", 4))
    elsewhere, shipped = room / "nowhere" / "data", room / "lapped" / "data"
    asked = r"^jointiq-tiny\.safetensors: is not installed here; take it from lof/codecs/nowhere/data"
    with pytest.raises(WeightsError, match=asked):
        file_of(request, elsewhere)
    monkeypatch.setenv("LOF_WEIGHTS_DIR", str(elsewhere))
    with pytest.raises(WeightsError, match=asked):
        file_of(request, elsewhere)
    monkeypatch.setenv("LOF_WEIGHTS_DIR", str(shipped))
    assert file_of(request, elsewhere) == file_of(request, shipped) == shipped / "jointiq-tiny.safetensors"


def test_sizes_that_ask_for_more_layers_than_there_are_tensors_are_refused(tmp_path: Path) -> None:
    state = {"sizes": torch.tensor([1, 1, 2000, 1, 1, 4, 1], dtype=torch.int32)}
    save_file(state | {"dummy": torch.zeros(10**6, dtype=torch.int8)}, tmp_path / "lapped-tiny.safetensors")
    built: list[object] = []
    note = register_module_module_registration_hook(lambda *added: built.append(added))
    with pytest.raises(WeightsError, match="sizes that ask for more numbers"):
        load_codec("lapped-tiny", weights=tmp_path, device="cpu")
    note.remove()
    assert len(built) < 20


def test_weights_that_were_replaced_are_loaded_anew(tmp_path: Path) -> None:
    path = tmp_path / "lapped-tiny.safetensors"
    state = load_codec("lapped-tiny", device="cpu").state()
    save_file(state, path)
    first = load_codec("lapped-tiny", weights=tmp_path, device="cpu")
    assert load_codec("lapped-tiny", weights=tmp_path, device="cpu") is first
    state["transforms.mean"] = state["transforms.mean"] + 1
    save_file(state, path)
    os.utime(path, ns=(1, 1))
    assert load_codec("lapped-tiny", weights=tmp_path, device="cpu").fingerprint != first.fingerprint
