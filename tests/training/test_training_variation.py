"""Varied crops: scaled down, with more colour, with channels exchanged."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_training import recipe_of

from lof.errors import TrainingError
from lof.training import train
from lof.training.checkpoint import load_checkpoint, save_checkpoint
from lof.training.data import Pool, load_pool
from lof.training.journal import Journal

ROWS, COLUMNS = np.mgrid[0:250, 0:240]


def pool_of(folder: Path, *channels: np.ndarray) -> Pool:
    Image.fromarray(np.stack(channels, -1).astype(np.uint8)).save(folder / "picture.png")
    return load_pool([str(folder)], 64, torch.device("cpu"))


def test_crops_that_nothing_varies_are_those_of_earlier_versions(tmp_path: Path) -> None:
    batch = pool_of(tmp_path, ROWS, COLUMNS, 0 * ROWS).batch(20, seed=1)
    drawn = (255 * batch).round().byte().contiguous().numpy().tobytes()
    assert hashlib.sha256(drawn).hexdigest().startswith("2294a2ebb09fffef")


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_share_of_the_crops_is_scaled_down_by_up_to_three(tmp_path: Path, share: float) -> None:
    pool = pool_of(tmp_path, ROWS, ROWS, ROWS)  # grey stays grey, whatever the saturation
    batch = pool.batch(300, seed=1, varied=share)
    assert batch.shape == (300, 3, 64, 64)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    levels = batch * 255
    assert torch.equal(levels, levels.round())
    assert (levels.amax(1) == levels.amin(1)).all()
    scale = (levels[:, 0, 60, 0] - levels[:, 0, 3, 0]) / 57
    assert ((scale > 1.03).float().mean() - 0.97 * share).abs() < 0.08
    assert scale.min() > 0.95
    assert 2.7 < scale.max() < 3.05
    assert torch.equal(batch, pool.batch(300, seed=1, varied=share))


def test_colours_become_more_saturated_and_some_change_places(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, 0 * ROWS + 120, 0 * ROWS + 100, 0 * ROWS + 90)
    colours = (255 * pool.batch(400, seed=1, varied=1.0)[:, :, 30, 30]).round()
    ordered = colours.sort(dim=1, descending=True).values
    saturation = (ordered[:, 0] - ordered[:, 2]) / 30
    assert 0.4 < (saturation > 1.02).float().mean() < 0.6
    assert saturation.min() > 0.95
    assert 1.7 < saturation.max() < 1.95
    assert (colours.mean(1) - 310 / 3).abs().max() < 1
    exchanged = (colours != ordered).any(1)
    assert 0.08 < exchanged.float().mean() < 0.22
    assert len({tuple(row.argsort().tolist()) for row in colours[exchanged]}) == 5


def test_a_picture_no_larger_than_a_crop_is_not_scaled(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, ROWS[:64, :64], ROWS[:64, :64], ROWS[:64, :64])
    rows = 255 * pool.batch(50, seed=1, varied=1.0)[:, 0, :, 5]
    assert torch.allclose(rows, torch.arange(64.0).expand(50, -1))


def test_recipes_say_how_many_crops_are_varied(tmp_path: Path, photos: Path) -> None:
    losses = []
    for varied in (0.0, 1.0):
        train(recipe_of(photos, varied=varied), tmp_path / str(varied), device="cpu")
        losses.append([line["loss"] for line in Journal(tmp_path / str(varied) / "log.jsonl").read()])
    assert losses[0] != losses[1]
    with pytest.raises(TrainingError, match="varied"):
        recipe_of(photos, varied=1.5)
    with pytest.raises(TrainingError, match="varied: has no place beside frozen"):
        recipe_of(photos, varied=0.5, frozen="tiny")


def test_checkpoints_from_before_the_key_go_on_without_variation(tmp_path: Path, photos: Path) -> None:
    (path,) = train(recipe_of(photos), tmp_path, device="cpu")
    checkpoint = load_checkpoint(tmp_path / "checkpoint.pt")
    older = {key: value for key, value in checkpoint.recipe.items() if key != "varied"}
    save_checkpoint(tmp_path / "checkpoint.pt", replace(checkpoint, recipe=older))
    assert train(recipe_of(photos), tmp_path, device="cpu") == [path]
    with pytest.raises(TrainingError, match="another recipe"):
        train(recipe_of(photos, varied=0.5), tmp_path, device="cpu")
