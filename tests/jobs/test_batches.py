"""Which images are searched together, in which order, and how many are held."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

import lof
from lof.files.inputs import Source, find
from lof.jobs import Advanced, Event, JobSettings, run_job
from lof.jobs.batches import batches, size_of
from lof.profiles import parse_profile

QUICK = JobSettings("tiny", parse_profile({"name": "short", "stage": [{"kind": "relax", "evaluations": 2}]}))


def save(folder: Path, name: str, size: tuple[int, int]) -> Source:
    folder.mkdir(exist_ok=True)
    seed = sum(name.encode())
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(folder / name)
    return Source(folder / name, PurePosixPath(name))


def test_images_of_one_size_share_a_batch_and_large_ones_come_first(tmp_path: Path) -> None:
    sizes = {"a": (40, 30), "b": (80, 60), "c": (40, 30), "d": (30, 40), "e": (40, 30), "f": (80, 60)}
    sources = [save(tmp_path, f"{name}.png", size) for name, size in sizes.items()]
    found = ["".join(source.path.stem for source in batch) for batch in batches(sources, most=2)]
    assert found == ["bf", "ac", "e", "d"]
    assert ["".join(s.path.stem for s in batch) for batch in batches(sources, most=1)] == list("bfaced")


def test_few_images_are_held_and_each_comes_once(tmp_path: Path) -> None:
    source = save(tmp_path, "a.png", (8, 8))
    pulled = 0

    def many() -> Iterator[Source]:
        nonlocal pulled
        for _ in range(500):
            pulled += 1
            yield source

    given = 0
    for batch in batches(many(), most=3, window=20):
        assert pulled - given <= 20
        given += len(batch)
    assert given == 500


def test_a_giant_image_is_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lof.jobs.batches._MOST_PIXELS", 5000)
    sources = [save(tmp_path, f"{i}.png", (80, 60) if i < 2 else (40, 30)) for i in range(6)]
    assert [len(batch) for batch in batches(sources, most=8)] == [1, 1, 4]


def test_a_batch_costs_no_image_more_than_alone(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "in", name, (48, 32))
    (tmp_path / "in/bad.png").write_bytes((tmp_path / "in/a.png").read_bytes()[:60])  # its header is whole
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(tmp_path / "in/a.png").save(
        tmp_path / "in/turned.jpg", exif=exif
    )  # 48×32 on disk, 32×48 upright
    events: list[Event] = []
    sources = find([str(tmp_path / "in")]).sources
    summary = run_job(sources, tmp_path / "out", QUICK, batch=8, on_event=events.append)
    assert (summary.done, summary.failed) == (4, 1)
    assert "bad.png" in summary.records[2]["error"]
    for record in summary.records:
        if record["state"] == "done":
            data = (tmp_path / "out" / record["output"]).read_bytes()
            pixels = lof.decode(data).pixels
            assert pixels.shape == (record["height"], record["width"], 3)
            assert record["optimised"]["cost"] <= record["baseline"]["cost"]
            assert record["optimised"]["size"] == len(data)
    told = [event for event in events if isinstance(event, Advanced)]
    assert {str(event.item.relative) for event in told} >= {"a.png", "b.png", "c.png", "turned.jpg"}
    assert all(len(event.message.gain) == 1 for event in told)


def test_a_batch_that_fails_is_done_image_by_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lof.api

    real, sizes = lof.api.optimize_batch, []

    def short_of_memory(images: list[object], *arguments: object, **options: object) -> object:
        sizes.append(len(images))
        if len(images) > 1:
            raise MemoryError
        return real(images, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(lof.api, "optimize_batch", short_of_memory)
    for name in ("a.png", "b.png"):
        save(tmp_path / "in", name, (48, 32))
    summary = run_job(find([str(tmp_path / "in")]).sources, tmp_path / "out", QUICK, batch=2)
    assert sizes == [2, 1, 1]
    assert summary.done == 2


def test_the_size_of_a_pipe_is_unknown_and_asking_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert size_of(Source(tmp_path / "a.png", PurePosixPath("a.png"))) is None
