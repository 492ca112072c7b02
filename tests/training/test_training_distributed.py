"""Ray Train with two CPU workers does what one process would do with both halves of each batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lof.codecs import trainable
from lof.errors import MissingExtraError, TrainingError
from lof.training import export_weights, parse_recipe
from lof.training.checkpoint import load_checkpoint
from lof.training.data import load_pool
from lof.training.distributed import _absolute, train_distributed
from lof.training.journal import Journal
from lof.training.loop import _seed
from lof.training.recipe import Recipe
from lof.training.step import Stepper

ray = pytest.importorskip("ray", reason="the extra lof[ray] is not installed")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def recipe_of(folder: Path, **changes: Any) -> Recipe:
    content = {
        "name": "shared",
        "codec": "tiny",
        "crop": 64,
        "batch": 4,
        "log_every": 1,
        "precision": "fp32",
        "rung": [
            {"quality": 6, "lmbda": 0.0483, "steps": 2, "learning_rate": 1e-2},
            {"quality": 4, "lmbda": 0.013, "steps": 1},
        ],
        "data": {"train": [str(folder)], "validation": [str(folder)], "validation_images": 1},
    }
    return parse_recipe(content | changes)


def both_halves_in_one_process(recipe: Recipe) -> Stepper:
    pool = load_pool(recipe.data.train, recipe.crop, CPU)
    torch.manual_seed(_seed(recipe.seed, 0, -1, 0))
    family, rung = trainable(recipe.codec), recipe.rung[0]
    net = family.build(recipe.network)

    class BothHalves(torch.nn.Module):
        def __init__(self, loss: torch.nn.Module) -> None:
            super().__init__()
            self.loss = loss

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            parts = []
            for rank in (0, 1):
                seed = _seed(recipe.seed, 0, stepper.step, rank)
                torch.manual_seed(seed)
                parts.append(self.loss(pool.batch(recipe.batch // 2, seed)))
            return [sum(part) / 2 for part in zip(*parts, strict=True)]

    task = family.task(net, recipe.aim(rung, torch.float32))
    stepper = Stepper(task, recipe, rung, wrap=BothHalves)
    for _ in range(recipe.rung[0].steps):
        stepper.advance(torch.empty(1, 3, 64, 64))
    return stepper


@pytest.mark.long
def test_two_workers_take_the_steps_of_one_process(photos: Path, tmp_path: Path, cluster: None) -> None:
    recipe = recipe_of(photos)
    paths = train_distributed(recipe, tmp_path / "run", 2, use_gpu=False)
    assert paths == [tmp_path / "run" / f"quality-{quality}.pt" for quality in (6, 4)]
    found, expected = load_checkpoint(paths[0]), both_halves_in_one_process(recipe)
    for key, value in expected.network.state_dict().items():
        assert torch.allclose(found.sd[key], value, rtol=1e-3, atol=1e-4), key
    kinds = [(r["kind"], r["total_step"]) for r in Journal(tmp_path / "run" / "log.jsonl").read()]
    first = [("train", 1), ("train", 2), ("validation", 2)]
    assert kinds == [*first, ("train", 3), ("validation", 3)]
    assert [point.quality for point in export_weights(paths, tmp_path / "weights")] == [4, 6]


def test_workers_find_all_that_a_recipe_names_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"train": ["a", "b"], "validation": ["c"], "latents": "d"}
    found = _absolute(recipe_of(tmp_path, data=data, init="e.pt"))
    assert found.data.train == (str(tmp_path / "a"), str(tmp_path / "b"))
    assert found.data.validation == (str(tmp_path / "c"),)
    assert (found.data.latents, found.init) == (str(tmp_path / "d"), str(tmp_path / "e.pt"))


def test_a_batch_that_cannot_be_shared_out_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="batch 3 cannot be shared by 2 workers"):
        train_distributed(recipe_of(tmp_path, batch=3), tmp_path / "run", 2, use_gpu=False)


def test_without_ray_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lof\[ray\]'"):
        train_distributed(recipe, tmp_path / "run", 2, use_gpu=False)
