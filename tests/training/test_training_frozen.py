"""Training of probability models alone, on the latents of frozen transforms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lof.codecs import load_codec, trainable
from lof.codecs.training import Aim, Kept
from lof.errors import TrainingError
from lof.files.storage import temporary_name
from lof.training import export_weights, parse_recipe, train
from lof.training.checkpoint import load_checkpoint
from lof.training.data import load_pool
from lof.training.latents import analyse
from lof.training.recipe import Recipe

CPU = torch.device("cpu")


def kept_of_tiny() -> Kept:
    torch.manual_seed(0)
    family = trainable("tiny")
    kept = family.task(family.build({}), Aim("mse", 4, 0.013, torch.float32, frozen="tiny")).kept
    assert kept is not None
    return kept


def recipe_of(photos: Path, codec: str = "msp-tiny", **changes: Any) -> Recipe:
    content: dict[str, Any] = {
        "name": "test",
        "codec": codec,
        "frozen": "tiny",
        "crop": 64,
        "batch": 4,
        "log_every": 10,
        "validate_every": 1000,
        "precision": "fp32",
        "rung": [{"quality": 4, "lmbda": 0.013, "steps": 40, "learning_rate": 2e-3}],
        "schedule": {"warmup": 5},
        "data": {"train": [str(photos)]},
    }
    return parse_recipe(content | changes)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("codec", ["msp-tiny", "tiny"])
def test_the_rate_falls_and_the_transforms_stay_bit_by_bit(tmp_path: Path, photos: Path, codec: str) -> None:
    rung = {"quality": 4, "lmbda": 0.013, "steps": 120, "learning_rate": 5e-3}
    (path,) = train(recipe_of(photos, codec, rung=[rung], log_every=40), tmp_path, device="cpu")
    found = losses(tmp_path)
    assert found[-1] < 0.97 * found[0]
    state = load_checkpoint(path).sd
    theirs = load_codec("tiny", 4, device="cpu").net.state_dict()  # type: ignore[attr-defined]
    transforms = [key for key in state if key.startswith(("g_a.", "g_s."))]
    assert len(transforms) > 20
    assert all(torch.equal(state[key], theirs[key]) for key in transforms)


def test_a_cut_run_continues_with_the_losses_of_an_uncut_one(tmp_path: Path, photos: Path) -> None:
    class Cut(Exception):
        pass

    def cut(event: Any) -> None:
        if getattr(event, "record", {}).get("step") == 20:
            raise Cut

    recipe = recipe_of(photos, checkpoint_minutes=1e-9)
    train(recipe, tmp_path / "whole", device="cpu")
    with pytest.raises(Cut):
        train(recipe, tmp_path / "cut", device="cpu", on_event=cut)
    train(recipe, tmp_path / "cut", device="cpu")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_exported_weights_are_integers_that_decode_what_was_validated(tmp_path: Path, photos: Path) -> None:
    data = {"train": [str(photos)], "validation": [str(photos)]}
    run = train(recipe_of(photos, data=data), tmp_path / "run", device="cpu")
    (exported,) = export_weights(run, tmp_path / "w", measure_on=photos)
    codec = load_codec("msp-tiny", 4, weights=tmp_path / "w", device="cpu")
    assert codec.fingerprint.hex() == exported.fingerprint
    assert exported.summary is not None
    assert exported.summary.cost == pytest.approx(losses(tmp_path / "run")[-1])
    card = (tmp_path / "w" / "msp-tiny.md").read_text()
    assert "transforms of tiny, frozen" in card
    assert "MSPNetwork(16, 24, 2, 2, 16, 1, 8, 16)" in card


def test_latents_are_kept_for_the_next_run_and_made_anew_for_other_transforms(
    tmp_path: Path, photos: Path
) -> None:
    pool = load_pool([str(photos)], 64, CPU)
    kept = kept_of_tiny()
    cache = tmp_path / "latents.pt"
    first = analyse(pool, kept, torch.float32, cache)
    written = cache.stat().st_mtime_ns
    again = analyse(pool, kept, torch.float32, cache)
    assert cache.stat().st_mtime_ns == written
    assert all(torch.equal(a, b) for a, b in zip(first.images, again.images, strict=True))
    with torch.no_grad():
        next(kept.analyse.parameters()).mul_(1.5)
    other = analyse(pool, kept, torch.float32, cache)
    assert not torch.equal(first.images[0], other.images[0])
    pool.images[0] = pool.images[0].flip(0).contiguous()
    assert not torch.equal(analyse(pool, kept, torch.float32, cache).images[0], other.images[0])


@pytest.mark.parametrize("shared", [True, False])
def test_what_another_run_writes_in_a_shared_folder_stays(tmp_path: Path, photos: Path, shared: bool) -> None:
    folder = tmp_path / "shared" if shared else tmp_path / "run"
    unfinished = folder / temporary_name("latents-tiny-4.pt")
    unfinished.parent.mkdir()
    unfinished.write_bytes(b"")
    data = {"train": [str(photos)]} | ({"latents": str(folder)} if shared else {})
    rung = {"quality": 4, "lmbda": 0.013, "steps": 1, "learning_rate": 2e-3}
    train(recipe_of(photos, data=data, rung=[rung]), tmp_path / "run", device="cpu")
    assert unfinished.exists() == shared
    assert (folder / "latents-tiny-4.pt").exists()


def test_batches_are_cuts_of_the_latents(photos: Path) -> None:
    pool = load_pool([str(photos)], 64, CPU)
    latents = analyse(pool, kept_of_tiny(), torch.float32, None)
    batch = latents.batch(12, seed=3)
    assert batch.shape == (12, 24, 4, 4)
    assert torch.equal(batch, latents.batch(12, seed=3))
    for cut in batch:
        assert any(
            torch.equal(y[top : top + 4, left : left + 4].permute(2, 0, 1).float(), cut)
            for y in latents.images
            for top in range(y.shape[0] - 3)
            for left in range(y.shape[1] - 3)
        )


def test_transforms_of_other_sizes_are_one_clear_error(tmp_path: Path, photos: Path) -> None:
    recipe = recipe_of(photos, "tiny", network={"M": 20})
    with pytest.raises(
        TrainingError, match="tiny quality 4: its g_a does not fit; check the sizes in `network`"
    ):
        train(recipe, tmp_path, device="cpu")


def test_frozen_transforms_and_weights_to_start_from_exclude_each_other(photos: Path) -> None:
    with pytest.raises(TrainingError, match="init: has no place beside frozen"):
        recipe_of(photos, init="x.pt")
