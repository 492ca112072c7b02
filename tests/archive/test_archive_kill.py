"""Archives that are killed, starved of space or fought over: nothing is lost, the next call continues."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sqlite3
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import QUICK
from PIL import Image
from typer.testing import CliRunner

from lof.archive import Manifest, Summary, create, open_sources, verify
from lof.archive.manifest import NAME
from lof.archive.schema import VERSION
from lof.archive.store import Store
from lof.errors import ArchiveError, LofError, OutputError
from lof.files.atomic import Staged
from lof.pools import ThisProcess
from pipelines import kill

STEPS = {"pending": (Manifest, "intend"), "place": (Staged, "place"), "row": (Manifest, "put")}

UNFINISHED = [("failed", "photos")]
"""What ``verify`` says until a call of ``create`` has read the source to its end."""


def sabotaged(source: Path, dst: Path, step: str, limit: int | None = None) -> str:
    """``create`` in a process that kills itself before or after a step of its first write of an object.

    Args:
        step: ``before-`` or ``after-`` and a key of ``STEPS``; ``never`` for no kill.
        limit: bytes that a file may have.

    Returns:
        What the process said: ``reached`` before the kill, or the error that ended it.
    """
    QUICK.load("cpu")  # before the fork, which would otherwise load it each time
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=_sabotage, args=(there, source, dst, step, limit)
    )
    process.start()
    there.close()
    said: str = here.recv()
    process.join()
    assert process.exitcode == (-signal.SIGKILL if said == "reached" else 0)
    return said


def _sabotage(pipe: Connection, source: Path, dst: Path, step: str, limit: int | None) -> None:
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    when, _, what = step.partition("-")
    owner, name = STEPS.get(what, STEPS["row"])
    real = getattr(owner, name)

    def saboteur(*arguments: Any, **options: Any) -> None:
        folder = name == "put" and not arguments[1].object
        weights = name == "place" and "weights" in arguments[1].parts
        if when == "never" or folder or weights:  # which are written before the first object
            real(*arguments, **options)
            return
        if when == "after":
            real(*arguments, **options)
        pipe.send("reached")
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, saboteur)
    try:
        archive(source, dst)
        pipe.send("nothing")
    except LofError as error:
        pipe.send(f"{type(error).__name__}: {error}")


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(small).resize((80, 64), Image.Resampling.BICUBIC).save(path)


def archive(source: Path, dst: Path) -> Summary:
    return create(open_sources([str(source)], dst), dst, QUICK, ThisProcess())


def shape(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for area in ("streams", "stored")
        for path in (folder / area).rglob("*")
        if path.is_file()
    }


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three files that are no images: a forked process cannot search, and all objects are written alike."""
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / f"photos/{number}").write_text(f"words {number}")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("step", "done"), [("before-pending", 0), ("after-pending", 0), ("after-place", 1), ("after-row", 1)]
)
def test_a_kill_between_any_two_steps_of_a_write_loses_nothing(
    photos: Path, tmp_path: Path, step: str, done: int
) -> None:
    dst = tmp_path / "dst"
    assert sabotaged(photos, dst, step) == "reached"
    summary = archive(photos, dst)
    assert (summary.stored, summary.errors) == (3 - done, [])
    assert verify(dst, ThisProcess()).findings == []
    assert list((dst / ".lof/tmp").iterdir()) == []
    with Manifest(dst) as manifest:
        assert manifest.pending() == []
    assert shape(dst) == {f"stored/photos/{number}": f"words {number}".encode() for number in range(3)}


@pytest.mark.parametrize(("step", "kept"), [("after-pending", True), ("after-place", False)])
def test_a_kill_while_an_object_is_replaced_leaves_the_old_one_or_the_new_one(
    photos: Path, tmp_path: Path, step: str, kept: bool
) -> None:
    dst = tmp_path / "dst"
    archive(photos, dst)
    before = shape(dst)
    (photos / "0").write_text("other words")
    assert sabotaged(photos, dst, step) == "reached"
    assert (shape(dst) == before) == kept
    Store(dst).close()
    assert [(finding.wrong, finding.name) for finding in verify(dst, ThisProcess()).findings] == UNFINISHED
    assert archive(photos, dst).stored == (1 if kept else 0)


def test_a_kill_while_a_file_takes_another_name_leaves_one_object(tmp_path: Path) -> None:
    photos, dst = tmp_path / "photos", tmp_path / "dst"
    save(photos / "0.png", 0)
    archive(photos, dst)
    (photos / "0.png").write_text("no picture any more")
    assert sabotaged(photos, dst, "after-row") == "reached"
    assert sorted(shape(dst)) == ["stored/photos/0.png", "streams/photos/0.png.lof"]
    Store(dst).close()
    assert sorted(shape(dst)) == ["stored/photos/0.png"]
    assert [(finding.wrong, finding.name) for finding in verify(dst, ThisProcess()).findings] == UNFINISHED
    assert archive(photos, dst).unchanged == 2


@pytest.mark.long
def test_random_kills_of_driver_and_workers_lose_nothing(tmp_path: Path) -> None:
    ended = CliRunner().invoke(kill.app, ["run", str(tmp_path / "work"), "--kills", "2", "--images", "6"])
    assert ended.exit_code == 0, ended.output
    assert "2 kills" in ended.output
    assert "WRONG" not in ended.output


def test_a_second_process_is_refused_and_reading_goes_on(photos: Path, tmp_path: Path) -> None:
    archive(photos, tmp_path / "dst")
    with Store(tmp_path / "dst"):
        for call in (
            lambda: archive(photos, tmp_path / "dst"),
            lambda: verify(tmp_path / "dst", ThisProcess()),
        ):
            with pytest.raises(OutputError, match="another lof is at work"):
                call()
        with Manifest(tmp_path / "dst") as manifest:
            assert sum(total.files for total in manifest.totals() if total.kind == "file") == 3
    assert archive(photos, tmp_path / "dst").unchanged == 4


def test_a_full_disk_is_one_error_and_the_next_call_continues(photos: Path, tmp_path: Path) -> None:
    # A limit on file sizes stands in for the disk: both make a write fail in its middle.
    (photos / "z").write_bytes(bytes(2_600_000))
    said = sabotaged(photos, tmp_path / "dst", "never", limit=2_000_000)  # above what the weights take
    assert said.startswith("OutputError")
    assert "cannot be written (File too large)" in said
    (finding,) = verify(tmp_path / "dst", ThisProcess()).findings
    assert "not read to its end yet" in finding.error
    summary = archive(photos, tmp_path / "dst")
    assert (summary.stored, summary.unchanged) == (1, 3)
    assert verify(tmp_path / "dst", ThisProcess()).findings == []


def _read_on_a_full_disk(pipe: Connection, dst: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # SQLite cannot give its index its size
    try:
        with Manifest(dst) as manifest:
            pipe.send([row.path for row in manifest.rows()])
    except LofError as error:
        pipe.send(str(error))


@pytest.mark.parametrize("journal", [None, b""])
def test_an_archive_on_a_full_disk_can_be_read(photos: Path, tmp_path: Path, journal: bytes | None) -> None:
    archive(photos, tmp_path / "dst")
    if journal is not None:
        (tmp_path / f"dst/{NAME}-wal").write_bytes(journal)
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=_read_on_a_full_disk, args=(there, tmp_path / "dst")
    )
    process.start()
    assert here.recv() == ["photos", "photos/0", "photos/1", "photos/2"]
    process.join()


def test_a_destination_that_cannot_be_written_is_one_error(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        archive(photos, tmp_path / "file/dst")


def test_a_manifest_of_a_newer_version_or_damaged_is_one_error(photos: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    archive(photos, dst)
    for version, said in (
        (VERSION + 1, "newer lof"),
        (VERSION - 1, "again"),
        (0, "no manifest"),
        (-1, "no manifest"),
    ):
        database = sqlite3.connect(dst / NAME)
        database.execute(f"PRAGMA user_version = {version}")
        database.close()
        for call in (lambda: archive(photos, dst), lambda: verify(dst, ThisProcess())):
            with pytest.raises(ArchiveError, match=said):
                call()
    for name in (NAME, f"{NAME}-wal", f"{NAME}-shm"):
        (dst / name).unlink(missing_ok=True)
    (dst / NAME).write_bytes(b"not a database" * 999)
    with pytest.raises(ArchiveError, match="damaged"):
        archive(photos, dst)
