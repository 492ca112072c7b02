"""One network for all rates: a family of a test, its parts, its parameters' learning rates, crops that grow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training_runs import Cut, cut_at, exact_part
from torch import Tensor, nn

from lof.codecs import Codec, CodecSpec, Continuous, Request, register, register_training
from lof.codecs.training import Aim, Losses, ParameterGroup, Shipped, Source, State, Task
from lof.errors import TrainingError
from lof.training import parse_recipe, train
from lof.training.checkpoint import load_checkpoint
from lof.training.recipe import Recipe
from lof.training.trained import read_trained

NAME = "flat-of-a-test"
STARTS: list[float] = []
SEEN: list[tuple[int, ...]] = []


class Flat(nn.Module):
    """Brings every picture to one colour, with a gain that depends on the rate."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.linear, self.gain = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))

    def forward(self, images: Tensor) -> Losses:
        SEEN.append(tuple(images.shape))
        share = torch.rand(len(images))
        lmbda = 0.0018 * 100**share
        colour = self.linear + self.gain * share[:, None]
        error = 255**2 * (images.mean((2, 3)) - colour).square().mean(1)
        loss = (lmbda * error / lmbda**0.35).mean()
        return loss, loss.detach(), torch.zeros(()), error.mean().detach()


class FlatTraining:
    def build(self, network: Mapping[str, Any]) -> nn.Module:
        return Flat(**network)

    def load(self, net: nn.Module, state: State, origin: str) -> None:
        net.load_state_dict(dict(state))

    def task(self, net: nn.Module, aim: Aim) -> Task:
        assert isinstance(net, Flat)
        assert (aim.quality, aim.lmbda) == (None, None)
        net.linear.requires_grad_(aim.part != "gain")
        groups = [ParameterGroup([net.gain])]
        if aim.part is None:
            groups.append(ParameterGroup([net.linear], factor=0.1))

        def start(source: Source) -> None:
            STARTS.append(float(source.batch(2, seed=0).mean()))

        return Task(net, net, groups, start=start, stride=net.stride)

    def ship(self, state: State, metric: str, quality: float | None, origin: str) -> Shipped:
        raise AssertionError("nothing is validated here")

    def card(self, codec: Codec) -> str:
        return ""


def never(request: Request) -> Codec:
    raise AssertionError("nothing is loaded here")


@pytest.fixture(scope="session", autouse=True)
def family() -> None:
    register(CodecSpec(NAME, Continuous(1, 8, (0.0018, 0.18)), 4, "of a test", hidden=True))(never)
    register_training(NAME)(lambda name: FlatTraining())


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    STARTS.clear()
    SEEN.clear()


def recipe_of(photos: Path, *rungs: dict[str, Any], **changes: Any) -> Recipe:
    content: dict[str, Any] = {
        "name": "flat",
        "codec": NAME,
        "crop": 64,
        "batch": 4,
        "log_every": 2,
        "schedule": {"warmup": 0, "hold": 0, "final": 1},
        "rung": [{"learning_rate": 1e-2, **rung} for rung in rungs],
        "data": {"train": [str(photos)]},
    }
    return parse_recipe(content | changes)


def test_crops_that_the_network_does_not_take_are_said_before_pictures_are_read(tmp_path: Path) -> None:
    then = [{"after": 0.5, "crop": 64, "batch": 4}]
    rungs = {"steps": 2}, {"steps": 2, "then": then}
    recipe = recipe_of(tmp_path / "nowhere", *rungs, crop=192, network={"stride": 96})
    words = r"^recipe flat, rung 1: crop: this codec takes multiples of 96 pixels a side; choose such a one$"
    with pytest.raises(TrainingError, match=words):
        train(recipe, tmp_path / "run", device="cpu")


def test_a_part_is_trained_alone_and_the_next_rung_goes_on_with_all(tmp_path: Path, photos: Path) -> None:
    recipe = recipe_of(photos, {"steps": 3, "part": "gain"}, {"steps": 2}, ema=0)
    first, second = train(recipe, tmp_path, device="cpu")
    assert [path.name for path in (first, second)] == ["rung-1.pt", "rung-2.pt"]
    part, whole = load_checkpoint(first), load_checkpoint(second)
    assert (part.sd["linear"] == 0).all()
    assert (part.sd["gain"] != 0).all()
    assert part.ema.keys() == {"gain"}
    assert (whole.sd["linear"] != 0).all()
    assert ((whole.sd["gain"] - part.ema["gain"]).abs() < 2.5e-2).all()  # it went on from there
    assert (part.pixels, whole.pixels) == (3 * 4 * 64**2, 5 * 4 * 64**2)


def test_parameters_have_learning_rates_of_their_own(tmp_path: Path, photos: Path) -> None:
    (path,) = train(recipe_of(photos, {"steps": 1}), tmp_path, device="cpu")
    state = load_checkpoint(path).sd
    assert state["gain"].abs().tolist() == pytest.approx([1e-2] * 3, rel=1e-3)  # Adam's first step
    assert state["linear"].abs().tolist() == pytest.approx([1e-3] * 3, rel=1e-3)


def test_a_rung_may_have_a_schedule_of_its_own(tmp_path: Path, photos: Path) -> None:
    own = {"warmup": 4, "final": 1}
    train(recipe_of(photos, {"steps": 2, "schedule": own}, {"steps": 2}), tmp_path, device="cpu")
    assert [r["learning_rate"] for r in exact_part(tmp_path)] == pytest.approx([0.5e-2, 1e-2])


def test_crops_grow_within_a_rung(tmp_path: Path, photos: Path) -> None:
    later = [{"after": 0.5, "crop": 128, "batch": 2}, {"after": 0.75, "crop": 192, "batch": 1}]
    train(recipe_of(photos, {"steps": 4, "then": later}), tmp_path, device="cpu")
    assert SEEN == [(4, 3, 64, 64), (4, 3, 64, 64), (2, 3, 128, 128), (1, 3, 192, 192)]


@pytest.mark.parametrize(
    ("later", "words"),
    [
        ([], "4 crops of 64×64"),
        ([{"after": 0, "crop": 128, "batch": 1}], "1 crop of 128×128"),
        (
            [{"after": 0.5, "crop": 128, "batch": 2}, {"after": 0.75, "crop": 192, "batch": 1}],
            "4 crops of 64×64, then 2 of 128×128, then 1 of 192×192",
        ),
        ([{"after": 0.9, "crop": 128, "batch": 1}], "4 crops of 64×64"),  # there is no step after that
    ],
)
def test_the_card_is_told_of_the_crops_that_were_trained_on(
    tmp_path: Path, photos: Path, later: list[dict[str, Any]], words: str
) -> None:
    (path,) = train(recipe_of(photos, {"steps": 4, "then": later}), tmp_path, device="cpu")
    assert read_trained(path).history["batch"] == words


def test_pictures_smaller_than_the_largest_crop_are_left_out(tmp_path: Path, photos: Path) -> None:
    later = [{"after": 0.5, "crop": 256, "batch": 2}]
    with pytest.raises(TrainingError, match="smaller than a crop of 256"):
        train(recipe_of(photos, {"steps": 4, "then": later}), tmp_path, device="cpu")


def test_a_new_network_starts_from_the_pictures_and_a_trained_one_does_not(
    tmp_path: Path, photos: Path
) -> None:
    recipe = recipe_of(photos, {"steps": 4}, {"steps": 2}, checkpoint_minutes=1e-9)
    with pytest.raises(Cut):
        train(recipe, tmp_path / "cut", device="cpu", on_event=cut_at(4))
    train(recipe, tmp_path / "cut", device="cpu")
    assert len(STARTS) == 1
    assert 0 < STARTS[0] < 1
    train(recipe, tmp_path / "whole", device="cpu")
    assert exact_part(tmp_path / "cut") == exact_part(tmp_path / "whole")
    assert len(STARTS) == 2
    again = recipe.with_data([], [], tmp_path / "whole" / "rung-2.pt")
    train(again, tmp_path / "again", device="cpu")
    assert len(STARTS) == 2
    assert exact_part(tmp_path / "again")[0]["loss"] < exact_part(tmp_path / "whole")[0]["loss"]


def test_a_rung_of_one_quality_is_refused(photos: Path) -> None:
    with pytest.raises(TrainingError, match=r"rung\[0\]: flat-of-a-test has one network for all qualities"):
        recipe_of(photos, {"steps": 1, "quality": 4, "lmbda": 0.013})
