"""Training runs: exact resume, kills, divergence, ladders, the log, the commands."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from fresh import fresh
from PIL import Image
from test_training import LADDER, recipe_of
from typer.testing import CliRunner

import lof.cli.train  # noqa: F401  (adds its commands)
from lof.cli import app
from lof.errors import OutputError, TrainingError
from lof.training import train
from lof.training.checkpoint import load_checkpoint
from lof.training.journal import Journal
from lof.training.loop import Doing, Event, Logged
from lof.training.recipe import Recipe

EVERY_STEP = 1e-9  # minutes between checkpoints


class Cut(Exception):
    pass


def cut_at(total_step: int) -> Any:
    """An observer that ends the run as it logs this step."""

    def observe(event: Event) -> None:
        if isinstance(event, Logged) and event.record["total_step"] == total_step:
            raise Cut

    return observe


def exact_part(folder: Path) -> list[dict[str, Any]]:
    timed = ("seconds", "steps_per_second")
    return [{k: v for k, v in r.items() if k not in timed} for r in Journal(folder / "log.jsonl").read()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_was_cut_and_resumed_logs_what_an_uncut_one_does(
    tmp_path: Path, photos: Path, precision: str
) -> None:
    changes = {"checkpoint_minutes": EVERY_STEP, "precision": precision, "validate_every": 4}
    rungs = [LADDER[0] | {"steps": 7}, LADDER[1] | {"steps": 5, "learning_rate": 1e-3}]
    data = {"train": [str(photos)], "validation": [str(photos)], "validation_images": 1}
    recipe = recipe_of(photos, rung=rungs, data=data, **changes)
    train(recipe, tmp_path / "uncut", device="cpu")
    for stop in (6, 7, 11):  # inside the first rung, at its end, at a validation in the second
        with pytest.raises(Cut):
            train(recipe, tmp_path / "cut", device="cpu", on_event=cut_at(stop))
    train(recipe, tmp_path / "cut", device="cpu")
    assert exact_part(tmp_path / "uncut") == exact_part(tmp_path / "cut")
    assert len(exact_part(tmp_path / "cut")) == 3 + 2 + 2 + 2
    for quality in (6, 4):
        a, b = (load_checkpoint(tmp_path / run / f"quality-{quality}.pt") for run in ("uncut", "cut"))
        for key in a.ema:
            assert torch.equal(a.ema[key], b.ema[key]), key
            assert torch.equal(a.sd[key], b.sd[key]), key


def test_a_run_that_is_cut_in_a_validation_goes_on_with_it(tmp_path: Path, photos: Path) -> None:
    changes = {"codec": "lapped-tiny", "qualities": [2, 4], "validate_every": 2, "rung": [{"steps": 3}]}
    data = {"train": [str(photos)], "validation": [str(photos)], "validation_images": 1}
    recipe, cut = recipe_of(photos, data=data, **changes), tmp_path / "cut"
    train(recipe, tmp_path / "uncut", device="cpu")

    def at_its_start(event: Event) -> None:
        if isinstance(event, Doing) and "validation" in event.text:
            raise Cut

    def after_a_quality(event: Event) -> None:
        if isinstance(event, Logged) and event.record["kind"] == "validation":
            raise Cut

    for observe in (at_its_start, after_a_quality, after_a_quality):
        with pytest.raises(Cut):
            train(recipe, cut, device="cpu", on_event=observe)
        assert load_checkpoint(cut / "checkpoint.pt").step == 2
    with pytest.raises(Cut):
        train(recipe, cut, device="cpu", on_event=at_its_start)
    assert load_checkpoint(cut / "checkpoint.pt").step == 3
    train(recipe, cut, device="cpu")
    assert exact_part(cut) == exact_part(tmp_path / "uncut")


def test_a_finished_run_called_again_does_nothing(tmp_path: Path, photos: Path) -> None:
    recipe = recipe_of(photos)
    paths = train(recipe, tmp_path, device="cpu")
    log = (tmp_path / "log.jsonl").read_bytes()
    assert train(recipe, tmp_path, device="cpu") == paths
    assert (tmp_path / "log.jsonl").read_bytes() == log


def train_until_half_a_checkpoint_is_written(recipe: Recipe, folder: Path, said: Connection) -> None:
    whole, writes = os.write, list[bool]()

    def write(handle: int, data: bytes) -> int:
        writes.append("checkpoint.pt" in os.readlink(f"/proc/self/fd/{handle}"))
        if not writes[-1] or sum(writes) < 3:  # two checkpoints, and then one that is cut
            return whole(handle, data)
        whole(handle, data[: len(data) // 2])
        said.send("half written")
        said.recv()
        raise AssertionError("to be killed before")

    os.write = write
    train(recipe, folder, device="cpu")


def test_a_kill_in_the_middle_of_writing_leaves_the_old_checkpoint(tmp_path: Path, photos: Path) -> None:
    recipe = recipe_of(photos, checkpoint_minutes=EVERY_STEP)
    folder = tmp_path / "run"
    here, there = multiprocessing.Pipe()
    child = fresh(train_until_half_a_checkpoint_is_written, recipe, folder, there)
    there.close()
    assert here.recv() == "half written"
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    torn = list(folder.glob(".*.tmp"))
    assert len(torn) == 1
    assert 0 < torn[0].stat().st_size < (folder / "checkpoint.pt").stat().st_size
    assert load_checkpoint(folder / "checkpoint.pt").step == 2
    train(recipe, folder, device="cpu")
    train(recipe, tmp_path / "uncut", device="cpu")
    assert exact_part(folder) == exact_part(tmp_path / "uncut")
    assert not list(folder.glob(".*.tmp"))


def test_a_second_run_in_a_folder_is_refused_and_touches_nothing(tmp_path: Path, photos: Path) -> None:
    recipe = recipe_of(photos, checkpoint_minutes=EVERY_STEP)
    here, there = multiprocessing.Pipe()
    child = fresh(train_until_half_a_checkpoint_is_written, recipe, tmp_path, there)
    there.close()
    assert here.recv() == "half written"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match="another lof is at work there"):
        train(recipe, tmp_path, device="cpu")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    child.kill()
    child.join()


def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path: Path, photos: Path) -> None:
    calm = recipe_of(photos, checkpoint_minutes=EVERY_STEP, schedule={"warmup": 0})
    explosive = calm.model_copy(update={"rung": (calm.rung[0].model_copy(update={"learning_rate": 1e30}),)})
    with pytest.raises(TrainingError, match=r"no longer finite at step (\d+); .*checkpoint\.pt") as caught:
        train(explosive, tmp_path, device="cpu")
    step = int(str(caught.value).split("at step ")[1].split(";")[0])
    kept = load_checkpoint(tmp_path / "checkpoint.pt")
    assert kept.step < step
    assert all(math.isfinite(value) for value in kept.pending)


def test_a_loss_that_rises_far_above_its_best_stops_the_run(tmp_path: Path, photos: Path) -> None:
    recipe = recipe_of(photos, diverged=1.0000001, rung=[{"quality": 4, "lmbda": 0.013, "steps": 300}])
    with pytest.raises(TrainingError, match=r"diverged by step \d+ \(mean loss"):
        train(recipe, tmp_path, device="cpu")


def test_a_checkpoint_of_another_recipe_or_other_pictures_is_refused(tmp_path: Path, photos: Path) -> None:
    train(recipe_of(photos), tmp_path / "run", device="cpu")
    with pytest.raises(TrainingError, match="another recipe"):
        train(recipe_of(photos, seed=1), tmp_path / "run", device="cpu")
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    Image.open(next(photos.glob("*.png"))).save(fewer / "one.png")
    with pytest.raises(TrainingError, match="other pictures"):
        train(recipe_of(fewer), tmp_path / "run", device="cpu")
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: cannot be read"):
        train(recipe_of(photos), tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone.pt", "does not exist"),
        ("text.pt", "cannot be read"),
        ("other.pt", "not weights of this architecture"),
    ],
)
def test_wrong_weights_to_start_from_are_said_before_pictures_are_read(
    tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"sd": {"weight": torch.zeros(1)}}, tmp_path / "other.pt")
    recipe = recipe_of(tmp_path / "nowhere", init=str(tmp_path / name))
    with pytest.raises(TrainingError, match=rf"^recipe test, quality 4: {tmp_path / name}: {words}"):
        train(recipe, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_run_that_goes_on_no_longer_needs_the_weights_that_it_started_from(
    tmp_path: Path, photos: Path
) -> None:
    (weights,) = train(recipe_of(photos, rung=LADDER[:1]), tmp_path / "first", device="cpu")
    recipe = recipe_of(photos, init=str(weights), checkpoint_minutes=EVERY_STEP)
    with pytest.raises(Cut):
        train(recipe, tmp_path / "run", device="cpu", on_event=cut_at(3))
    weights.unlink()
    assert train(recipe, tmp_path / "run", device="cpu") == [tmp_path / "run" / "quality-4.pt"]


def test_each_rung_starts_from_the_averaged_weights_of_the_one_before(tmp_path: Path, photos: Path) -> None:
    high, low = train(recipe_of(photos, rung=LADDER), tmp_path, device="cpu")
    first, second = load_checkpoint(high), load_checkpoint(low)
    moved = 0.0
    for key, average in first.ema.items():
        if "quantiles" not in key:
            assert torch.allclose(second.sd[key], average, atol=1e-7), key
            moved += float((first.sd[key] - average).abs().sum())
    assert moved > 0


def test_training_lowers_the_loss(tmp_path: Path, photos: Path) -> None:
    rung = [{"quality": 4, "lmbda": 0.013, "steps": 120, "learning_rate": 2e-3}]
    recipe = recipe_of(photos, rung=rung, log_every=20, schedule={"warmup": 10})
    train(recipe, tmp_path, device="cpu")
    losses = [record["loss"] for record in Journal(tmp_path / "log.jsonl").read()]
    assert losses[-1] < 0.5 * losses[0]


def test_ms_ssim_is_trained_for_where_the_recipe_says_so(tmp_path: Path, photos: Path) -> None:
    rung = [{"quality": 4, "lmbda": 16.64, "steps": 2}]
    train(recipe_of(photos, rung=rung, metric="ms-ssim", crop=192, batch=1), tmp_path, device="cpu")
    record = Journal(tmp_path / "log.jsonl").read()[-1]
    assert 0 < record["distortion"] < 1
    assert record["psnr"] is None
    assert record["loss"] == pytest.approx(record["bpp"] + 16.64 * record["distortion"], rel=1e-4)


def test_a_log_cut_at_any_byte_is_repaired_and_continued(tmp_path: Path) -> None:
    whole = Journal(tmp_path / "log.jsonl")
    for step in range(4):
        whole.append({"kind": "train", "rung": 0, "step": step, "total_step": step})
    data = whole.path.read_bytes()
    for length in range(len(data) + 1):
        whole.path.write_bytes(data[:length])
        whole.cut_after(0, 2)
        kept = [record["step"] for record in whole.read()]
        assert kept == list(range(min(3, data[:length].count(b"\n"))))
        last = {"kind": "train", "rung": 0, "step": 9, "total_step": 9}
        whole.append(last)
        assert whole.read()[-1] == last


def test_log_lines_are_json_with_the_figures_of_the_run(tmp_path: Path, photos: Path) -> None:
    train(recipe_of(photos), tmp_path, device="cpu")
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [3, 6, 8]
    for record in records:
        assert record["psnr"] == pytest.approx(10 * math.log10(255**2 / record["distortion"]))


def test_the_commands_train_plot_and_export(tmp_path: Path, photos: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'codec = "tiny"\ncrop = 64\nbatch = 2\nlog_every = 2\n'
        "[[rung]]\nquality = 4\nlmbda = 0.013\nsteps = 4\n"
    )
    run = tmp_path / "run"
    options = ["--data", str(photos), "--validation", str(photos), "-o", str(run), "--device", "cpu"]
    result = CliRunner().invoke(app, ["train", str(path), *options])
    assert result.exit_code == 0, result.output
    said = result.stderr.splitlines()
    assert said[0] == f"training {path} in {run}"
    assert said[2] == "reading pictures, 0 of 4 …"
    assert "4 pictures" in result.stderr
    assert "quality 4 validation step 4: loss" in result.stderr
    assert Image.open(run / "plot.png").format == "PNG"
    weights = tmp_path / "w"
    export = ["export-weights", str(run / "quality-4.pt"), "-o", str(weights), "--note", "licence=CC0"]
    result = CliRunner().invoke(app, export)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith('("mse", 4): RatePoint(0.013, "')
    assert "CC0" in (weights / "tiny.md").read_text()
