"""Files of a run that are not as they were written: one line says so, and nothing is trained from them."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import recipe_of

from lof.errors import LofError, OutputError, TrainingError
from lof.training import export_weights, train
from lof.training.recipe import Recipe


@pytest.fixture(scope="module")
def done(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    train(short(photos), folder, device="cpu")
    return folder


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "run"))


def short(photos: Path) -> Recipe:
    return recipe_of(photos, rung=[{"quality": 4, "lmbda": 0.013, "steps": 2}], log_every=1)


def flip_a_byte_of_the_weights(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda entry: entry.file_size)
    data = bytearray(path.read_bytes())
    data[largest.header_offset + largest.file_size // 2] ^= 255
    path.write_bytes(data)


def test_a_byte_that_flipped_in_the_weights_is_found_by_every_reader(run: Path, photos: Path) -> None:
    path, rung = run / "checkpoint.pt", run / "quality-4.pt"
    for place in (path, rung):
        flip_a_byte_of_the_weights(place)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: is damaged \(a checksum"):
        train(short(photos), run, device="cpu")
    with pytest.raises(TrainingError, match=r"quality-4\.pt: is damaged \(a checksum"):
        train(short(photos).with_data([], [], rung), run / "other", device="cpu")
    with pytest.raises(TrainingError, match=r"quality-4\.pt: is damaged \(a checksum"):
        export_weights([rung], run / "weights")


def test_a_file_of_an_old_pytorch_which_has_no_checksums_is_still_read(run: Path, photos: Path) -> None:
    content = torch.load(run / "checkpoint.pt", weights_only=True)
    torch.save(content, run / "checkpoint.pt", _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(run / "checkpoint.pt")
    assert train(short(photos), run, device="cpu") == [run / "quality-4.pt"]


def test_a_checkpoint_of_an_earlier_version_which_has_a_digest_is_still_read(run: Path, photos: Path) -> None:
    path = run / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    assert "digest" not in content
    torch.save(content | {"digest": "0123456789abcdef"}, path)
    assert train(short(photos), run, device="cpu") == [run / "quality-4.pt"]


def without(part: str, key: str = "") -> Callable[[dict[str, Any]], None]:
    return lambda content: (content[part].pop(key or next(iter(content[part]))), None)[1]


def altered(part: str, change: Callable[[torch.Tensor], object]) -> Callable[[dict[str, Any]], None]:
    def alter(content: dict[str, Any]) -> None:
        key = next(iter(content[part]))
        content[part][key] = change(content[part][key])

    return alter


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("ema"),
        lambda content: content.update(more=1),
        lambda content: content.update(rung=7),
        lambda content: content.update(step="2"),
        lambda content: content.update(step=-5),
        lambda content: content.update(step=10**9),
        lambda content: content.update(about={}),
        lambda content: content["about"].update(pixels="many"),
        lambda content: content.update(pending=[]),
        without("ema"),
        altered("sd", lambda value: 3),
        altered("ema", lambda value: "x"),
        altered("sd", lambda value: value.to("meta")),
        altered("sd", lambda value: value.to_sparse()),
        altered("ema", lambda value: torch.zeros(1).expand(10**12)),
        without("opt", "param_groups"),
        without("recipe", "rung"),
    ],
    ids=[
        *("no-ema", "more", "rung", "step", "before", "beyond", "about", "pixels", "pending", "an-ema"),
        *("number", "text", "meta", "sparse", "huge", "groups", "no-rung"),
    ],
)
def test_a_checkpoint_with_something_missing_or_wrong_is_one_line(
    run: Path, photos: Path, damage: Callable[[dict[str, Any]], None]
) -> None:
    path = run / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    damage(content)
    torch.save(content, path)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: is damaged \(.+\); copy it again"):
        train(short(photos), run, device="cpu")


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": 1}',
        b"[1, 2]",
        b"17",
        b"\xff\xfe",
        b'{"rung": 0, "step": 1, "total_step": 1}',
        b'{"kind": "train", "rung": "0", "step": 1, "total_step": 1}',
        b'{"kind": "train", "rung": 0, "step": 1, "total_step": 1, "loss": "much"}',
        1000 * b"[",
    ],
)
def test_a_damaged_line_of_the_log_is_named_and_the_log_stays(run: Path, photos: Path, line: bytes) -> None:
    log = run / "log.jsonl"
    damaged = line + b"\n" + log.read_bytes()
    log.write_bytes(damaged)
    with pytest.raises(OutputError, match=r"log\.jsonl: is damaged in line 1"):
        train(short(photos), run, device="cpu")
    assert log.read_bytes() == damaged


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
@pytest.mark.parametrize("name", ["log.jsonl", "checkpoint.pt"])
def test_a_folder_or_a_pipe_in_the_place_of_a_file_is_one_line(
    run: Path, photos: Path, name: str, make: Callable[[Path], None]
) -> None:
    (run / name).unlink()
    make(run / name)
    with pytest.raises(LofError, match=f"{name}: cannot be read"):
        train(short(photos), run, device="cpu")
