"""Training: recipes, data, the loss, steps and their speed."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lof.cli.train  # adds its commands
import lof.training
from lof.codecs import recipes, trainable
from lof.errors import OutputError, TrainingError
from lof.training import load_recipe, parse_recipe, train
from lof.training.data import load_pool
from lof.training.loop import Event, Finished, Started
from lof.training.recipe import Recipe, Rung, Schedule
from lof.training.step import Stepper, learning_rate

CPU = torch.device("cpu")


def recipe_of(photos: Path, **changes: Any) -> Recipe:
    content: dict[str, Any] = {
        "name": "test",
        "codec": "tiny",
        "crop": 64,
        "batch": 2,
        "log_every": 3,
        "validate_every": 100,
        "precision": "fp32",
        "rung": [{"quality": 4, "lmbda": 0.013, "steps": 8, "learning_rate": 1e-3}],
        "data": {"train": [str(photos)]},
    }
    return parse_recipe(content | changes)


LADDER = [
    {"quality": 6, "lmbda": 0.0483, "steps": 4, "learning_rate": 1e-3},
    {"quality": 4, "lmbda": 0.013, "steps": 1, "learning_rate": 1e-9},
]


def test_every_shipped_recipe_loads_and_names_a_network_that_can_be_built() -> None:
    assert {"mean-scale-96", "msp-base", "tiny"} <= recipes().keys()
    for name in recipes():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert list(trainable(recipe.codec).build(recipe.network).parameters())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sise = 3", "sise: unknown key"),
        ("[[rung]]\nquality = 4\nlmbda = -1\nsteps = 3", "rung[0].lmbda"),
        ("crop = 100", "crop: must be a multiple of 64"),
        (f"name = '{65 * 'x'}'", "name: must be at most 64 characters"),
        ("batch = true", "batch: must be a whole number"),
        ("clip = '1.0'", "clip: must be a number"),
        ("compile = 1", "compile: must be true or false"),
        ("network = {N = 0}", "network.N: must be at least 1"),
        ("network = {N = [3, 0]}", "network.N[1]: must be at least 1"),
        ("[data]\nfolder = 'x'", "data.folder: unknown key"),
        ("crop = = 3", "not valid TOML"),
        ("crop = " + 5000 * "[", "nested too deep"),
        ("crop = " + 5000 * "9", "a number of thousands of digits"),
        ("codec = 'tinny'", "codec: codec 'tinny': unknown; did you mean tiny?"),
        ("frozen = 'tinny'", "frozen: codec 'tinny': unknown; did you mean tiny?"),
        ("[[rung]]\nquality = 4\nsteps = 3", "rung[0]: give quality and lmbda"),
        ("qualities = [2, 4]", "qualities: tiny has one network per quality; leave it out"),
        ("[[rung]]\nquality = 4\nlmbda = 1\nsteps = 3\nthen = [{after = 1.5, crop = 64, batch = 1}]", "then"),
    ],
)
def test_a_wrong_recipe_is_one_line_with_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    good = {"codec": '"tiny"'}
    lines = [f"{k} = {v}" for k, v in good.items() if not text.startswith(k)]
    rung = "" if "[[rung]]" in text else "[[rung]]\nquality = 4\nlmbda = 0.013\nsteps = 3\n"
    top, table = ("", text) if text.startswith("[") else (text, "")
    path.write_text("\n".join([*lines, top, rung, table]))
    with pytest.raises(TrainingError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"qualities": [4, 9]}, "mine: qualities: codec lapped-tiny: no quality 9; it has"),
        ({"metric": "ms-ssim", "crop": 192}, "mine: metric: codec lapped-tiny: no metric 'ms-ssim'"),
    ],
)
def test_rates_that_cannot_be_validated_are_refused_as_the_recipe_is_read(
    changes: dict[str, Any], words: str
) -> None:
    content = {"name": "test", "codec": "lapped-tiny", "crop": 64, "rung": [{"steps": 1}]}
    with pytest.raises(TrainingError) as caught:
        parse_recipe(content | changes, "mine")
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("quality", [4.7, 0.001, 1000.5])
def test_a_quality_that_no_file_can_state_is_refused_before_it_is_trained(
    photos: Path, quality: float
) -> None:
    first, second = LADDER
    with pytest.raises(TrainingError) as caught:
        recipe_of(photos, rung=[first, second | {"quality": quality}])
    said = (
        f"recipe: rung[1]: quality {quality}: no file can state it; take multiples of 1/64, from 1/64 to 1000"
    )
    assert str(caught.value) == said


@pytest.mark.parametrize("quality", [1 / 64, 4.5, 300, 1000])
def test_every_quality_that_a_file_can_state_can_be_trained(photos: Path, quality: float) -> None:
    recipe = recipe_of(photos, rung=[LADDER[0] | {"quality": quality}])
    assert recipe.rates(recipe.rung[0]) == (quality,)


@pytest.mark.parametrize("shares", [[0.8, 0.2], [0.5, 0.5]])
def test_later_crops_out_of_order_are_refused(photos: Path, shares: list[float]) -> None:
    then = [{"after": share, "crop": 64, "batch": 2} for share in shares]
    with pytest.raises(TrainingError, match=r"recipe: rung\[0\]\.then: after must rise from one entry to"):
        recipe_of(photos, rung=[LADDER[0] | {"then": then}])


def test_the_smallest_crop_that_ms_ssim_is_said_to_need_can_be_set() -> None:
    rung = {"steps": 1, "quality": 4, "lmbda": 16.6}
    content = {"name": "test", "codec": "tiny", "metric": "ms-ssim", "crop": 128, "rung": [rung]}
    with pytest.raises(TrainingError, match=r"crop: ms-ssim needs at least 192$"):
        parse_recipe(content)
    assert parse_recipe(content | {"crop": 192}).crop == 192
    later = rung | {"then": [{"after": 0.5, "crop": 128, "batch": 1}]}
    with pytest.raises(TrainingError, match=r"crop: ms-ssim needs at least 192$"):
        parse_recipe(content | {"crop": 192, "rung": [later]})


@pytest.mark.parametrize(
    ("codec", "rung", "network", "words"),
    [
        ("lapped-tiny", {"part": "bogus"}, {}, "recipe test, rung 2: lapped-tiny: has no such part"),
        (
            "jpeg-descriptors-tiny",
            {"part": "bogus"},
            {},
            "recipe test, rung 2: jpeg-descriptors-tiny: has no",
        ),
        ("jointiq-tiny", {"part": "steering"}, {"enhancement": []}, "recipe test, rung 2: network: has no"),
        ("tiny", {"quality": 4, "lmbda": 0.01, "part": "g_a"}, {}, "recipe test, quality 4: part: tiny is"),
        ("lapped-tiny", {}, {"slices": []}, "recipe test: network: no such lapped codec"),
        (
            "lapped-tiny",
            {},
            {"bogus": 3},
            "recipe test: network: bogus: unknown; the sizes are fine, coarse,",
        ),
        ("lapped-tiny", {}, {"slices": 3}, "recipe test: network: slices: must be a list of whole numbers"),
        ("lapped-tiny", {}, {"slices": [256, 513]}, "recipe test: network: slices: at most 768 channels"),
        ("jointiq-tiny", {}, {"slices": [769]}, "recipe test: network: slices: at most 768 channels"),
        ("lapped-tiny", {}, {"fine": 10**12}, "recipe test: network: asks for more memory than there is"),
        ("jointiq-tiny", {}, {"fine": [1, 2]}, "recipe test: network: fine: must be one whole number"),
    ],
)
def test_what_is_wrong_with_a_later_rung_is_said_before_anything_is_read_or_trained(
    tmp_path: Path, codec: str, rung: dict[str, Any], network: dict[str, Any], words: str
) -> None:
    first = {"quality": 6, "lmbda": 0.05} if "quality" in rung else {}
    rungs = [{"steps": 1, **first}, {"steps": 1, **rung}]
    nowhere = {"train": [str(tmp_path / "nowhere")]}
    content = {"name": "test", "codec": codec, "crop": 64, "rung": rungs, "data": nowhere, "network": network}
    with pytest.raises(TrainingError) as caught:
        train(parse_recipe(content), tmp_path / "run", device="cpu")
    assert str(caught.value).startswith(words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("inside", ["", "run"])
def test_a_file_in_the_place_of_the_folder_is_said_before_pictures_are_read(
    tmp_path: Path, inside: str
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"file.*: is a file, or lies in one; name a folder"):
        train(recipe_of(tmp_path / "nowhere"), tmp_path / "file" / inside, device="cpu")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_unknown_recipe_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(TrainingError, match="did you mean tiny"):
        load_recipe("tyni")


def test_a_ladder_must_go_down(photos: Path) -> None:
    with pytest.raises(TrainingError, match="highest rate first"):
        recipe_of(photos, rung=LADDER[::-1])


def test_bad_files_are_skipped_by_name_and_the_rest_is_trained_on(tmp_path: Path, photos: Path) -> None:
    good = Image.open(next(photos.glob("*.png"))).convert("RGB")
    good.save(tmp_path / "good.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("CMYK", (200, 200)).save(tmp_path / "print.jpg")
    good.crop((0, 0, 63, 200)).save(tmp_path / "narrow.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:5000])
    events: list[Event] = []
    train(recipe_of(tmp_path), tmp_path / "run", device="cpu", on_event=events.append)
    started = next(e for e in events if isinstance(e, Started))
    skipped = {item.path.name: item.reason for item in started.skipped}
    assert started.pictures == 1
    assert skipped.keys() == {"dot.png", "print.jpg", "narrow.png", "broken.jpg", "cut.png"}
    assert all(name in reason for name, reason in skipped.items())
    assert any(isinstance(e, Finished) for e in events)


def test_a_folder_without_usable_pictures_is_an_error_that_says_why(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(TrainingError, match=r"nothing to train on.*dot\.png"):
        load_pool([str(tmp_path)], 64, CPU)
    with pytest.raises(TrainingError, match="missing"):
        load_pool([str(tmp_path / "missing")], 64, CPU)


def test_crops_are_exact_cuts_of_the_pictures_half_of_them_flipped(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:150, 0:200]
    Image.fromarray(np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)).save(tmp_path / "place.png")
    pool = load_pool([str(tmp_path)], 64, CPU)
    assert pool.images[0].dtype == torch.uint8
    batch = pool.batch(200, seed=1)
    assert batch.shape == (200, 3, 64, 64)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    places = (batch * 255).round().int()
    down = places[:, 0].diff(dim=1)
    across = places[:, 1].diff(dim=2)
    assert (down == 1).all()
    assert (across.abs() == 1).all()
    assert 60 < int((across[:, 0, 0] == -1).sum()) < 140
    tops, lefts = places[:, 0, 0, 0], places[:, 1, 0].min(dim=1).values
    assert tops.max() > 80
    assert tops.min() < 6
    assert lefts.max() > 125
    assert lefts.min() < 10
    assert torch.equal(batch, pool.batch(200, seed=1))
    assert not torch.equal(batch, pool.batch(200, seed=2))


def test_the_learning_rate_warms_up_holds_and_decays() -> None:
    schedule, rung = Schedule(warmup=10, hold=0.5, final=0.1), Rung(quality=1, lmbda=1, steps=100)
    rates = [learning_rate(schedule, rung, step) / rung.learning_rate for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:51] == pytest.approx([1.0] * 42)
    assert rates[75] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    assert rates[50:] == sorted(rates[50:], reverse=True)


def test_a_step_moves_the_average_towards_the_weights(photos: Path) -> None:
    recipe = recipe_of(photos, ema=0.5)
    family, rung = trainable("tiny"), recipe.rung[0]
    stepper = Stepper(family.task(family.build({}), recipe.aim(rung, torch.float32)), recipe, rung)
    before = stepper.ema["g_a.0.weight"].clone()
    stepper.advance(torch.rand(2, 3, 64, 64))
    decay = min(0.5, 1 / 10)
    expected = decay * before + (1 - decay) * stepper.network.g_a[0].weight
    assert torch.allclose(stepper.ema["g_a.0.weight"], expected, atol=1e-7)
    assert not torch.equal(before, expected)


def test_training_knows_no_codec_family() -> None:
    folder = Path(lof.training.__file__).parent
    allowed = {"lof.codecs", "lof.codecs.rates", "lof.codecs.training"}
    for path in [*folder.glob("*.py"), *Path(lof.cli.__file__).parent.glob("*train*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert not name.startswith("compressai"), path
                assert not name.startswith("lof.codecs") or name in allowed, path
    assert not list(folder.rglob("*.toml"))
