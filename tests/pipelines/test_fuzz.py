"""The fuzzing harness finds a planted fault of each kind, keeps it, and lets a healthy reader pass."""

from __future__ import annotations

import os
import random
import re
import signal
from pathlib import Path

import pytest

from lof.errors import LofError, OutputError, StreamError
from lof.profiles import load_profile
from pipelines import fuzz, fuzz_reader
from pipelines.fuzz import replay
from pipelines.fuzz_reader import Read, Reader, Target
from pipelines.fuzz_spoil import spoil_image, spoil_stream


def healthy(data: bytes, folder: Path) -> None:
    if data[:2] != b"ok":
        raise StreamError("case: is no good; make another")


def foreign(data: bytes, folder: Path) -> None:
    healthy(data, folder)
    if len(data) > 2 and data[2] >= 0x80:
        raise IndexError("planted")


def dies(data: bytes, folder: Path) -> None:
    healthy(data, folder)
    if len(data) > 2 and data[2] >= 0x80:
        os.kill(os.getpid(), signal.SIGFPE)


def grows(data: bytes, folder: Path) -> None:
    healthy(data, folder)
    if len(data) > 2 and data[2] >= 0x80:
        bytearray(b"\1") * 1_200_000_000


def seeds() -> dict[str, bytes]:
    return {"good": b"ok\0\0\0\0"}


def test_a_healthy_reader_passes(tmp_path: Path) -> None:
    tally = fuzz.fuzz(tmp_path, {"plain": Target(healthy, seeds)}, seconds=600, cases=200)["plain"]
    assert tally.cases >= 200
    assert 0 < tally.longest < fuzz_reader.SECONDS
    assert not tally.finds
    assert not (tmp_path / "finds").exists()
    again = fuzz.fuzz(tmp_path, {"plain": Target(healthy, seeds)}, seconds=600, cases=1)["plain"]
    assert again.cases > tally.cases, "a run goes on where the last one ended"
    with pytest.raises(OutputError, match="give that one"):
        fuzz.fuzz(tmp_path, {}, seconds=1, seed=5)


def test_a_file_that_reaches_new_lines_is_spoilt_further(tmp_path: Path) -> None:
    fuzz.fuzz(tmp_path, {"toml": Target(nested, lambda: {"short": b"a = 1"})}, seconds=600, cases=3000)
    assert len(list((tmp_path / "seeds/toml").iterdir())) > 1


def nested(data: bytes, folder: Path) -> None:
    (folder / "a.toml").write_bytes(data)
    load_profile(folder / "a.toml")


@pytest.mark.parametrize(
    ("read", "words"),
    [(foreign, r"IndexError at .*planted"), (dies, "the process died .SIGFPE"), (grows, "more than 1 GB")],
)
def test_a_planted_fault_is_found_kept_and_replayed(tmp_path: Path, read: Read, words: str) -> None:
    targets = {"plain": Target(read, seeds)}
    tally = fuzz.fuzz(tmp_path, targets, seconds=600, cases=20)["plain"]
    assert len(tally.finds) == 1, "one for each kind of answer"
    (name,) = tally.finds
    place = tmp_path / "finds" / name
    ((path, answer),) = replay([place], targets)
    assert (path, answer.bad) == (place, True)
    assert re.search(words, answer.found)
    ((_, answer),) = replay([place], {"plain": Target(healthy, seeds)})
    assert not answer.bad


def test_work_without_an_end_is_a_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_reader, "SECONDS", 0.5)
    reader = Reader(Target(endless, seeds))
    answer = reader.answer(b"x")
    assert (answer.data, answer.found, answer.bad) == (b"x", "more than 0 s", True)
    reader.close()


def endless(data: bytes, folder: Path) -> None:
    while True:
        pass


@pytest.mark.parametrize(
    "name", ["container", "job", "manifest", "packed", "picture", "profile", "recipe", "study", "weights"]
)
def test_every_seed_is_a_good_file(tmp_path: Path, name: str) -> None:
    from pipelines.fuzz_targets import (
        TARGETS,  # which needs torch, as the processes of the other tests do not
    )

    for key, data in TARGETS[name].seeds().items():
        folder = tmp_path / key
        folder.mkdir()
        assert TARGETS[name].read(data, folder)


def test_what_earlier_runs_found_is_read_or_refused(tmp_path: Path) -> None:
    from pipelines.fuzz_targets import TARGETS

    count, said = 0, list[str]()
    for name, target in TARGETS.items():
        for number, data in enumerate(fuzz.kept(name)):
            folder = tmp_path / f"{name}-{number}"
            folder.mkdir()
            try:
                target.read(data, folder)
            except LofError as error:  # any other exception is a fault
                said.append(str(error))
            count += 1
    assert count > 90
    assert said
    assert not [text for text in said if "\n" in text]


@pytest.mark.parametrize("start", [b"\xff\xd8", b"\x89PNG", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_a_picture_that_ends_after_its_first_bytes_can_be_spoilt_further(start: bytes) -> None:
    results = {spoil_image(random.Random(seed), start) for seed in range(50)}
    assert len(results) > 10


@pytest.mark.parametrize("start", [b"", b"x", b"\xc1of", b"no stream at all"])
def test_what_is_no_stream_any_more_can_be_spoilt_further(start: bytes) -> None:
    results = {spoil_stream(random.Random(seed), start) for seed in range(50)}
    assert len(results) > 10
