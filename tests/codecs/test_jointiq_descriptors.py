"""JointIQ with descriptors: a map that steers the network behind the synthesis, searched, and left out at will."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import lof
import lof.cli.inspect
from lof.cli import app
from lof.codecs import Codec, load_codec, trainable
from lof.codecs.base import tensor_of
from lof.codecs.descriptors.choice import chosen_for
from lof.codecs.descriptors.classes import NAME, OFF
from lof.codecs.lapped.jointiq.config import DESCRIBED, JOINTIQ_TINY
from lof.codecs.lapped.jointiq.described import DescribedCodec, _picture
from lof.codecs.lapped.jointiq.network import JointNetwork
from lof.codecs.training import Aim
from lof.containers import container, unpack
from lof.errors import StreamError, TrainingError, WeightsError
from lof.pictures.picture import Picture
from lof.profiles import parse_profile
from lof.results import Target
from lof.search import RELAXATIONS, Objective, search
from lof.search.state import Progress, Search
from lof.testing import CHECKS, Check, picture

SHIPPED = Path(lof.codecs.__path__[0]) / "lapped" / "data" / "jointiq-tiny.safetensors"
WITH = {"enhancement": (DESCRIBED, 8, 6, 3, 2, 5)}


def network() -> JointNetwork:
    """Of `jointiq-tiny`, with an untrained network behind the synthesis that descriptors change much."""
    torch.manual_seed(0)
    family = trainable("jointiq-tiny")
    net = family.build(WITH)
    assert isinstance(net, JointNetwork)
    state = {k: v.float() if v.dtype == torch.float16 else v for k, v in load_file(SHIPPED).items()}
    own = {k: v for k, v in state.items() if not k.startswith("enhancement.")}
    family.load(net, own, "the shipped weights")
    return net


def trained(net: JointNetwork, images: torch.Tensor, steps: int, *, seed: int | None = None) -> list[float]:
    """Losses of a training of what descriptors steer, with the same noise in each step if there is a seed."""
    task = trainable("jointiq-tiny").task(net, Aim("mse", None, None, torch.float32, None, "steering"))
    parameters = [parameter for group in task.groups for parameter in group.parameters]
    optimiser, losses = torch.optim.Adam(parameters, lr=5e-3), []
    for step in range(steps):
        torch.manual_seed(step if seed is None else seed)
        loss, shown, *_ = task.loss(images)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(shown))
    return losses


def crops_of(photograph: NDArray[np.uint8], side: int) -> torch.Tensor:
    places = [(top, left) for top in (0, 128, 256) for left in (0, 128, 256)]
    whole = tensor_of(Picture(photograph))
    return torch.cat([whole[..., top : top + side, left : left + side] for top, left in places])


@pytest.fixture(scope="module")
def folder(photograph: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of weights, trained a little."""
    folder, net = tmp_path_factory.mktemp("weights"), network()
    trained(net, crops_of(photograph, 64), 60)
    shipped = trainable("jointiq-tiny").ship(net.state_dict(), "mse", None, "a test")
    save_file(dict(shipped.tensors), folder / shipped.name)
    return folder


@pytest.fixture(scope="module")
def codec(folder: Path) -> DescribedCodec:
    found = load_codec("jointiq-tiny", 4, weights=folder, device="cpu", precision="fp32")
    assert isinstance(found, DescribedCodec)
    return found


def some_descriptors(codec: Codec, pixels: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
    """Latents of a picture, with a map of all classes."""
    latents = codec.analyse(codec.pad(tensor_of(Picture(pixels))))
    chosen = torch.randint(0, 16, latents[NAME].shape, generator=torch.Generator().manual_seed(3))
    return latents | {NAME: chosen.float()}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_contract(codec: Codec, check: Check) -> None:
    check(codec, picture(128))


def test_a_decoder_may_skip_the_descriptors(codec: Codec, crop: NDArray[np.uint8]) -> None:
    symbols = codec.symbols(some_descriptors(codec, crop))
    strings = codec.compress(symbols)
    read, skipped = codec.decompress(strings, 128, 128), codec.decompress(strings[:1], 128, 128)
    assert torch.equal(read.symbols[NAME], symbols[NAME].long())
    assert torch.equal(read.symbols["y"], skipped.symbols["y"])
    none = codec.compress(symbols | {NAME: torch.zeros_like(symbols[NAME])})
    assert none == [strings[0], b""]
    assert torch.equal(skipped.image, codec.decompress(none, 128, 128).image)
    assert float((skipped.image - read.image).abs().max()) > 0.01
    off = codec.decompress([strings[0], bytes([OFF])], 128, 128)
    y = read.values["y"].permute(0, 2, 3, 1)
    bare = codec.decoder.synthesis.synthesis(y, codec.number / 224)  # type: ignore[attr-defined]
    assert torch.equal(off.image, bare[0].permute(2, 0, 1).clamp(0, 1))


@pytest.mark.parametrize("damage", [b"\x01", b"\xff" * 40, bytes(40)])
def test_damaged_descriptors_are_one_clear_error_or_a_map(
    codec: Codec, crop: NDArray[np.uint8], damage: bytes
) -> None:
    strings = codec.compress(codec.symbols(some_descriptors(codec, crop)))
    with contextlib.suppress(StreamError):
        assert int(codec.decompress([strings[0], damage], 128, 128).symbols[NAME].max()) < 16
    with pytest.raises(StreamError, match="descriptors are no such string"):
        codec.decompress([strings[0], b"\x01"], 128, 128)
    with pytest.raises(StreamError, match="has at most 2 strings, not 3"):
        codec.decompress([*strings, b""], 128, 128)


def test_a_search_finds_descriptors_that_pay(codec: Codec, photograph: NDArray[np.uint8]) -> None:
    crop = np.ascontiguousarray(photograph[:120, :200])
    found = lof.optimize(crop, codec=codec, profile="fast")
    read = codec.decompress(unpack(found.data).strings, 120, 200)
    assert len(read.symbols[NAME].unique()) > 1
    costs = []
    for chosen in (read.symbols[NAME], torch.zeros_like(read.symbols[NAME])):
        strings = codec.compress(read.symbols | {NAME: chosen})
        error = (codec.decompress(strings, 120, 200).image - tensor_of(Picture(crop))[0]).square().mean()
        costs.append(8 * sum(map(len, strings)) / (120 * 200) + codec.lmbda * 255**2 * float(error))
    assert costs[0] < 0.99 * costs[1]
    assert found.optimised.cost <= found.baseline.cost


@pytest.mark.parametrize("target", [{"psnr": 24.0}, {"size": 700}])
def test_targets_are_met_with_descriptors(
    codec: Codec, photograph: NDArray[np.uint8], target: dict[str, float]
) -> None:
    crop = np.ascontiguousarray(photograph[:96, :160])
    found = lof.optimize(crop, codec=codec, profile="fast", target=Target(**target))  # type: ignore[arg-type]
    assert found.optimised.psnr >= 24 if "psnr" in target else len(found.data) <= 700
    shown = codec.decompress(unpack(found.data).strings, 96, 160).image
    assert np.array_equal((255 * shown).round().byte().permute(1, 2, 0).numpy(), found.pixels)


STAGES = [{"kind": "relax", "evaluations": 6, "relaxation": name} for name in RELAXATIONS] + [
    {"kind": "mean-field", "evaluations": 4},
    {"kind": "greedy-gradient", "evaluations": 4, "patience": 4},
    {"kind": "greedy-flip", "evaluations": 8, "patience": 8},
]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.get("relaxation", stage["kind"]))
def test_stages_that_follow_gradients_leave_descriptors_as_they_are(
    codec: DescribedCodec, crop: NDArray[np.uint8], stage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DescribedCodec, "plan", lambda self, plan: plan)
    latents = some_descriptors(codec, crop)
    latents[NAME][..., ::2, :] = 15 * (latents[NAME][..., ::2, :] > 7)
    plan = parse_profile({"name": "one", "stage": [stage]})
    (found,) = search(codec, tensor_of(Picture(crop)), plan, lmbda=codec.lmbda, initial=latents)
    for each in (found.latents, found.last):
        assert torch.equal(each[NAME], latents[NAME])
    assert not torch.equal(found.last["y"], latents["y"]) or stage["kind"].startswith("greedy")


def test_the_choice_of_descriptors_neither_ends_a_search_nor_moves_what_others_left(
    codec: DescribedCodec, crop: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DescribedCodec, "refine", lambda self, state, evaluations: None)
    stages = [{"kind": "mean-field", "evaluations": 4}, {"kind": "greedy-flip", "evaluations": 2}]
    plan = parse_profile({"name": "two", "stop_below": 1e-9, "stage": stages})
    assert [stage.kind for stage in codec.plan(plan).stage] == ["mean-field", "own", "greedy-flip", "own"]
    seen: list[Progress] = []
    image = tensor_of(Picture(crop))
    search(codec, image, plan, lmbda=codec.lmbda, on_progress=seen.append)
    assert seen[-1].stage >= 3
    astray = {"kind": "relax", "evaluations": 2, "learning_rate": 2.0}
    alone = parse_profile({"name": "one", "stage": [astray]})
    (found,) = search(codec, image, alone, lmbda=codec.lmbda)
    assert torch.equal(found.last[NAME], found.latents[NAME])
    assert not torch.equal(found.last["y"], found.latents["y"])


@pytest.mark.parametrize("moving", [slice(0, 4), slice(4, 8)])
def test_descriptors_that_may_not_move_stay(
    codec: DescribedCodec, photograph: NDArray[np.uint8], moving: slice
) -> None:
    """As in a window of a search: what is chosen is what is evaluated."""
    images = tensor_of(Picture(np.ascontiguousarray(photograph[:128, :128])))
    moves = torch.zeros(1, 8, 8, dtype=torch.bool)
    moves[:, :, moving] = True
    state = Search(Objective(codec, images, codec.lmbda), codec.analyse(images), 0, [0], None)
    y = codec.code(state.best, codec.rounded)["y"].value.permute(0, 2, 3, 1)
    start = torch.randint(0, 16, (1, 8, 8), generator=torch.Generator().manual_seed(1))
    found = chosen_for(_picture(state, y, 0), start, 2, moves)
    assert torch.equal(found[~moves], start[~moves])
    assert not torch.equal(found[moves], start[moves])


def test_a_search_in_windows_chooses_descriptors_too(
    codec: DescribedCodec, photograph: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "bytes_per_pixel", 10_000)
    part = np.ascontiguousarray(photograph[:128])
    found = lof.optimize(part, codec=codec, profile="fast", memory=1_300_000_000)
    chosen = codec.decompress(unpack(found.data).strings, *part.shape[:2]).symbols[NAME][0, 0]
    assert found.optimised.cost < found.baseline.cost
    half = chosen.shape[1] // 2
    assert all(int((part != 0).sum()) > 3 for part in (chosen[:, :half], chosen[:, half:]))


def test_what_is_chosen_pays_in_a_batch_as_alone(codec: Codec, photograph: NDArray[np.uint8]) -> None:
    crops = [np.ascontiguousarray(photograph[:64, at : at + 64]) for at in (0, 128)]
    alone = [_chosen(codec, tensor_of(Picture(one))) for one in crops]
    both = _chosen(codec, torch.cat([tensor_of(Picture(one)) for one in crops]))
    assert torch.equal(torch.cat(alone), both)
    assert len(both.unique()) > 1


def _chosen(codec: Codec, images: torch.Tensor) -> torch.Tensor:
    state = Search(Objective(codec, images, codec.lmbda), codec.analyse(images), 0, [0] * len(images), None)
    codec.refine(state, 1)
    return state.best[NAME]


class TestTraining:
    def test_steering_brings_the_loss_down_and_leaves_the_rest_alone(
        self, photograph: NDArray[np.uint8]
    ) -> None:
        net = network()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        losses = trained(net, crops_of(photograph, 64), 12, seed=0)
        assert losses[-1] < losses[0]
        changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
        steered = ("enhancement.last", "enhancement.leave", "enhancement.context", "enhancement.steer")
        assert all(name.startswith(steered) for name in changed)
        assert {name.split(".")[1] for name in changed} == {name.split(".")[1] for name in steered}

    def test_a_network_without_descriptors_has_none_to_train(self) -> None:
        family = trainable("jointiq-tiny")
        net = family.build({"enhancement": JOINTIQ_TINY.enhancement})
        with pytest.raises(TrainingError, match="no descriptors"):
            family.task(net, Aim("mse", None, None, torch.float32, None, "steering"))


@pytest.mark.parametrize("damage", ["no shift", "off the grid"])
def test_weights_that_other_machines_would_read_otherwise_are_refused(tmp_path: Path, damage: str) -> None:
    shipped = trainable("jointiq-tiny").ship(network().state_dict(), "mse", None, "a test")
    key, state = "enhancement.context.near", dict(shipped.tensors)
    if damage == "no shift":
        del state[f"{key}.shift"]
    else:
        state[f"{key}.weight"] = state[f"{key}.weight"].half()
    save_file(state, tmp_path / shipped.name)
    with pytest.raises(WeightsError, match=shipped.name):
        load_codec("jointiq-tiny", 4, weights=tmp_path, device="cpu")


def test_inspect_shows_a_file_without_its_descriptors(
    codec: DescribedCodec, folder: Path, crop: NDArray[np.uint8], tmp_path: Path
) -> None:
    parsed = unpack(lof.encode(crop, codec=codec))
    assert parsed.strings[1] == b""  # all are 0, so that no symbol changes
    path = tmp_path / "short.lof"
    path.write_bytes(container("lof").pack(replace(parsed, strings=parsed.strings[:1])))
    found = CliRunner().invoke(app, ["inspect", "--json", str(path), "--weights", str(folder)])
    assert [one["name"] for one in json.loads(found.stdout)["strings"]] == ["z and y"]
    assert np.array_equal(
        lof.decode(path.read_bytes(), weights=folder).pixels,
        lof.decode(lof.encode(crop, codec=codec), weights=folder).pixels,
    )
