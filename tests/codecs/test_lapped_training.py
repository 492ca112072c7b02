"""One network for all rates in training: it starts as a transform codec, and ships as a file for all qualities."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import lof
import lof.cli.train
from lof.cli import app
from lof.codecs import load_codec, trainable
from lof.codecs.lapped.network import LappedNetwork
from lof.codecs.training import Aim
from lof.errors import TrainingError
from lof.pictures.reading import read_picture
from lof.training import export_weights, parse_recipe, train
from lof.training.checkpoint import load_checkpoint
from lof.training.trained import read_trained

NAME = "lapped-tiny"
WEIGHTS = Path(lof.codecs.__path__[0]) / "lapped" / "data" / f"{NAME}.safetensors"
ALL = Aim("mse", None, None, torch.float32)


def recipe_of(photos: Path, *rungs: dict[str, Any], **changes: Any) -> Any:
    content: dict[str, Any] = {
        "name": "test",
        "codec": NAME,
        "crop": 128,
        "batch": 4,
        "log_every": 2,
        "rung": list(rungs),
        "schedule": {"warmup": 5},
        "data": {"train": [str(photos)], "validation": [str(photos)], "validation_images": 1},
        "qualities": [1, 4.5, 8],
    }
    return parse_recipe(content | changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    folder = tmp_path_factory.mktemp("lapped")
    train(recipe_of(photos, {"steps": 4, "part": "prior"}, {"steps": 4}), folder, device="cpu")
    return folder


def test_the_prior_is_trained_first_and_the_transforms_stay_as_they_started(run: Path) -> None:
    first, second = (load_checkpoint(run / f"rung-{number}.pt") for number in (1, 2))
    transforms = [key for key in first.sd if key.startswith("transforms.")]
    assert len(transforms) > 20
    assert not any(key in first.ema for key in transforms)
    basis = first.sd["transforms.klt.weight"]
    assert torch.allclose(basis @ basis.T, torch.eye(len(basis)), atol=1e-4)
    moved = (second.sd["transforms.klt.weight"] - basis).abs().max()
    assert 0 < moved < 1e-3


def test_every_quality_is_validated_and_costs_more_bits_than_the_one_below(run: Path) -> None:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    found = [r for r in records if r["kind"] == "validation" and r["rung"] == 1]
    assert [r["quality"] for r in found] == [1, 4.5, 8]
    assert [r["bpp"] for r in found] == sorted(r["bpp"] for r in found)
    assert [r["psnr"] for r in found] == sorted(r["psnr"] for r in found)


def test_a_run_may_be_validated_at_other_qualities_when_it_goes_on(tmp_path: Path, photos: Path) -> None:
    (path,) = train(recipe_of(photos, {"steps": 1}), tmp_path, device="cpu")
    assert train(recipe_of(photos, {"steps": 1}, qualities=[2]), tmp_path, device="cpu") == [path]


def test_one_file_ships_for_all_qualities(run: Path, tmp_path: Path, photos: Path) -> None:
    points = export_weights([run / "rung-2.pt"], tmp_path, measure_on=None)
    assert [point.quality for point in points] == list(range(1, 9))
    assert {point.path for point in points} == {tmp_path / f"{NAME}.safetensors"}
    assert points[0].registry_line == f'fingerprint="{points[0].fingerprint}",'
    codec = load_codec(NAME, 2.5, weights=tmp_path, device="cpu")
    assert codec.fingerprint.hex() == points[0].fingerprint
    card = (tmp_path / f"{NAME}.md").read_text()
    assert card.count(points[0].fingerprint) == 1
    assert card.count("| all | drawn | 4 of 4, after 4 of the rungs above |") == 1
    assert ", from ." not in card


def test_the_command_prints_one_line_to_register_weights_of_all_qualities(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export-weights", str(run / "rung-2.pt"), "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    codec = load_codec(NAME, weights=tmp_path, device="cpu")
    assert result.stdout.splitlines() == [f'fingerprint="{codec.fingerprint.hex()}",']


def test_from_weights_without_a_turned_view_it_begins_as_the_linear_transforms_say() -> None:
    family = trainable(NAME)
    net = family.build({"turned": (1,)})
    family.load(net, read_trained(WEIGHTS).state, str(WEIGHTS))
    assert isinstance(net, LappedNetwork)
    before = net.transforms.views["turn"].weight.clone()
    net.transforms.start_view("turn")
    assert torch.equal(net.transforms.views["turn"].weight, before)
    back = family.build({"turned": ()})
    family.load(back, net.state_dict(), "a codec with a turned view")
    assert torch.equal(back.state_dict()["transforms.klt.weight"], net.transforms.klt.weight)
    with pytest.raises(TrainingError, match=r"not weights of this network \(prior\.enter\.weight\)"):
        family.load(back, {k: v for k, v in net.state_dict().items() if k != "prior.enter.weight"}, "broken")


def test_pictures_of_all_rates_are_in_every_batch_and_all_parameters_are_trained() -> None:
    torch.manual_seed(0)
    family = trainable(NAME)
    task = family.task(family.build({}).train(), ALL)
    objective, *_ = task.loss(torch.rand(2, 3, 64, 64))
    objective.backward()
    factors = {id(p): group.factor for group in task.groups for p in group.parameters}
    named = {k: p for k, p in task.network.named_parameters() if p.requires_grad}
    assert {id(p) for p in named.values()} == factors.keys()
    assert {k for k, p in named.items() if factors[id(p)] == 0.1} == {
        "transforms.klt.weight",
        "transforms.iklt.weight",
    }
    assert all(p.grad is not None and p.grad.isfinite().all() for p in named.values())


def test_smooth_pictures_count_nearly_as_much_as_busy_ones(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = trainable(NAME)
    net = family.build({}).train()
    family.load(net, load_codec(NAME, 4, device="cpu").net.state_dict(), NAME)  # type: ignore[attr-defined]
    task = family.task(net, ALL)
    monkeypatch.setattr(sys.modules[type(task.loss).__module__], "GRAPHIC", 0.0)

    def slope(image: torch.Tensor) -> float:
        torch.manual_seed(1)
        net.zero_grad()
        task.loss(image)[0].backward()
        gradients = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
        return float(torch.cat(gradients).norm())

    paths = sorted(photos.glob("*.*g"))
    assert len(paths) >= 4
    for path in paths:
        image = torch.from_numpy(read_picture(path).pixels).permute(2, 0, 1)[None, :, :128, :128] / 255
        # The smooth one costs 16 to 76 times less.
        assert slope(image) < 5 * slope(0.5 + 0.05 * (image - 0.5)), path.name


def test_what_decoders_clip_costs_nothing_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    family = trainable(NAME)
    net = family.build({}).train()
    task = family.task(net, ALL)
    monkeypatch.setattr(sys.modules[type(task.loss).__module__], "GRAPHIC", 0.0)
    decoded = torch.tensor(1.5, requires_grad=True)
    monkeypatch.setattr(net, "reconstruct", lambda y, t: decoded.expand(1, 64, 64, 3))
    for level, distortion in ((1.0, 0.0), (0.5, (255 * 0.5) ** 2)):
        decoded.grad = None
        loss, _, _, found = task.loss(torch.full((1, 3, 64, 64), level))
        loss.backward()
        assert float(found) == pytest.approx(distortion)
        assert decoded.grad is not None
        assert (float(decoded.grad) > 0) is (distortion > 0)  # it leads back inside


def test_training_goes_on_from_weights_that_ship(run: Path, tmp_path: Path) -> None:
    export_weights([run / "rung-2.pt"], tmp_path, measure_on=None)
    family = trainable(NAME)
    net = family.build({})
    shipped = tmp_path / f"{NAME}.safetensors"
    family.load(net, read_trained(shipped).state, str(shipped))
    codec = load_codec(NAME, 3, weights=tmp_path, device="cpu")
    expected = dict(codec.net.named_parameters())  # type: ignore[attr-defined]
    found = dict(net.named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("since", [True, False])
def test_a_run_from_when_the_network_had_other_parts_is_begun_anew_from_its_weights(
    tmp_path: Path, photos: Path, since: bool
) -> None:
    recipe, path = recipe_of(photos, {"steps": 1}), tmp_path / "run" / "checkpoint.pt"
    train(recipe, path.parent, device="cpu")
    content = torch.load(path, weights_only=True)
    for part in ("sd", "ema"):
        if since:
            del content[part]["tails"]
        else:
            content[part]["gone"] = torch.zeros(3)
    torch.save(content, path)
    words = f"{path}: is of an earlier version of this network; begin another folder with --init {path}"
    with pytest.raises(TrainingError, match=f"^{words}$"):
        train(recipe, path.parent, device="cpu")
    (again,) = train(recipe.with_data([], [], path), tmp_path / "again", device="cpu")
    assert "tails" in load_checkpoint(again).ema


def test_reduced_precision_leaves_the_linear_transform_as_it_is() -> None:
    torch.manual_seed(0)
    net = trainable(NAME).build({})
    x = 0.9 + 0.1 * torch.rand(1, 64, 64, 3)
    t = torch.zeros(1, 1, 1, 1)
    y = net.transforms.analysis(x, t)  # type: ignore[union-attr, operator]
    with torch.autocast("cpu", torch.bfloat16):
        reduced = net.transforms.analysis(x, t)  # type: ignore[union-attr, operator]
        back = net.transforms.synthesis(y, t)  # type: ignore[union-attr, operator]
    # The network's last layers start at zero, so that all of this is the linear transform.
    assert torch.equal(reduced.float(), y)
    assert torch.equal(back.float(), net.transforms.synthesis(y, t))  # type: ignore[union-attr, operator]


def test_what_the_family_has_not_is_one_clear_error() -> None:
    family = trainable(NAME)
    with pytest.raises(TrainingError, match=r"^network: "):
        family.build({"finne": 3})
    with pytest.raises(TrainingError, match="it has 'prior'"):
        family.task(family.build({}), Aim("mse", None, None, torch.float32, part="transforms"))
    with pytest.raises(TrainingError, match=r"^x: not weights of this network"):
        family.ship({}, "mse", None, "x")
