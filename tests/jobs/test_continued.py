"""Jobs that are run again: what is remembered, skipped, done again, and what a crash leaves behind."""

from __future__ import annotations

import functools
import json
import math
import os
import resource
import shutil
import signal
import sqlite3
import struct
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from job_tools import QUICK, hashes, profile, run, save, started, streams, temporaries

import lof
from lof.errors import OutputError, UsageError
from lof.files.atomic import write_atomically
from lof.files.inputs import Source, find
from lof.jobs import Advanced, Event, JobSettings, plan_job, run_job
from lof.jobs.crops import crop_path, read_crop
from lof.jobs.manifest import Manifest, Row
from lof.results import Target


@pytest.fixture(scope="module")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    save(folder / "in/a.png", seed=1)
    save(folder / "in/sub/b.png", seed=2)
    summary, _ = run(folder)
    assert (summary.done, summary.failed, summary.skipped) == (2, 0, 0)
    return folder


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Path:
    """A folder of its own with a finished job of two images, ``in/`` and ``out/``."""
    folder = Path(shutil.copytree(_finished, tmp_path / "job"))  # copies keep the times of the files
    assert run(folder)[0].skipped == 2  # and are known by their content once, by their places from now on
    return folder


def plan(folder: Path, settings: JobSettings) -> list[Source]:
    return plan_job(find([str(folder / "in")]).sources, folder / "out", settings).todo


def test_a_second_run_searches_and_writes_nothing(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "out").rglob("*.png.lof")}
    os.utime(finished / "in/a.png")  # another time, the same content
    summary, events = run(finished)
    assert started(events) == []
    assert (summary.done, summary.skipped, summary.exit_code) == (0, 2, 0)
    assert {path: path.stat().st_mtime_ns for path in (finished / "out").rglob("*.png.lof")} == before
    assert [record["state"] for record in summary.records] == ["skipped", "skipped"]
    assert all(record["optimised"]["size"] > 0 for record in summary.records)


def _change_source(folder: Path) -> None:
    save(folder / "in/a.png", seed=7)


def _delete_output(folder: Path) -> None:
    (folder / "out/a.png.lof").unlink()


@pytest.mark.parametrize("harm", [_change_source, _delete_output])
def test_what_has_changed_is_done_again_alone(finished: Path, harm: Callable[[Path], None]) -> None:
    before = streams(finished / "out")
    harm(finished)
    assert [str(source.relative) for source in plan(finished, QUICK)] == ["a.png"]
    _, events = run(finished)
    assert started(events) == ["a.png"]
    assert (streams(finished / "out") == before) == (harm is not _change_source)
    assert started(run(finished)[1]) == []


@pytest.mark.parametrize(
    "settings",
    [
        replace(QUICK, profile=profile(3)),
        replace(QUICK, lmbda=0.02),
        replace(QUICK, seed=1),
        replace(QUICK, precision="fp32"),
        replace(QUICK, strip=True),
    ],
)
def test_other_settings_do_everything_again(finished: Path, settings: JobSettings) -> None:
    assert len(plan(finished, settings)) == 2


def test_other_formats_are_found_for_what_is_done_without_a_search(finished: Path) -> None:
    before, rows = streams(finished / "out"), {}
    for against in (("webp",), ("webp", "jpeg"), ()):
        summary, _ = run(finished, replace(QUICK, against=against))
        assert (summary.done, summary.skipped) == ((len(before), 0) if against else (0, len(before)))
        for record in summary.records:
            assert rows.get(record["source"], {}).items() <= record["against"].items()
            rows[record["source"]] = record["against"]
            assert record["seconds"] > 0
    assert all(row["webp"] < row["jpeg"] for row in rows.values())
    assert streams(finished / "out") == before


def test_streams_of_other_settings_are_not_replaced_unless_asked(finished: Path) -> None:
    before = hashes(finished / "out")
    with pytest.raises(UsageError, match=r"made with other settings \(2 of these images\).* --redo"):
        run(finished, replace(QUICK, seed=1))
    assert streams(finished / "out") == {name: before[name] for name in streams(finished / "out")}
    (finished / "out/a.png.lof").unlink()
    (finished / "out/sub/b.png.lof").unlink()
    assert run(finished, replace(QUICK, seed=1))[0].done == 2  # nothing is lost


def test_settings_that_mean_the_same_do_nothing_again(finished: Path) -> None:
    codec = lof.load_codec(QUICK.codec)
    same = replace(
        QUICK,
        lmbda=codec.lmbda,
        quality=codec.quality,
        device="cpu",
        profile=QUICK.profile.model_copy(update={"name": "x"}),
    )
    assert plan(finished, same) == []


def test_a_plan_writes_nothing(finished: Path) -> None:
    before = hashes(finished)
    plan(finished, replace(QUICK, seed=5))
    assert hashes(finished) == before


def test_a_failed_image_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_text("not yet an image")
    assert run(tmp_path)[0].failed == 1
    save(tmp_path / "in/a.png")
    assert run(tmp_path)[0].done == 1


def test_an_image_that_cannot_be_read_for_a_while_is_still_known_as_done(finished: Path) -> None:
    before = streams(finished / "out")
    (finished / "in/sub").rename(finished / "away")
    (finished / "in/sub").mkdir()
    (finished / "in/sub/b.png").symlink_to(finished / "off/b.png")
    for _ in range(2):
        summary, _ = run(finished)
        assert (summary.failed, summary.exit_code) == (1, 1)
        assert f"{finished}/in/sub/b.png: does not exist" in summary.records[1]["error"]
    (finished / "away").rename(finished / "off")
    summary, events = run(finished)
    assert (started(events), summary.skipped) == ([], 2)
    assert streams(finished / "out") == before
    (finished / "out/sub/b.png.lof").unlink()
    assert started(run(finished)[1]) == ["sub/b.png"]


def test_an_interrupted_job_leaves_whole_files_and_continues(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"in/{i}.png", seed=i)
    sources = find([str(tmp_path / "in")]).sources
    seen: list[Event] = []

    def interrupt(event: Event) -> None:
        seen.append(event)
        if isinstance(event, Advanced) and event.item.relative == PurePosixPath("1.png"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(sources, tmp_path / "out", QUICK, on_event=interrupt)
    assert started(seen) == ["0.png", "1.png"]
    assert sorted(streams(tmp_path / "out")) == ["0.png.lof"]
    assert temporaries(tmp_path) == []
    _, events = run(tmp_path)
    assert started(events) == ["1.png", "2.png"]


def test_a_manifest_of_a_newer_version_is_one_clear_error_and_stays_as_it_is(finished: Path) -> None:
    path = finished / "out/.lof/manifest.sqlite"
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    before = path.read_bytes()
    for call in (run, lambda folder: plan(folder, QUICK)):
        with pytest.raises(OutputError, match=r"newer lof \(version 99, .*upgrade lof"):
            call(finished)
    assert path.read_bytes() == before


def test_a_damaged_manifest_is_one_clear_error(finished: Path) -> None:
    (finished / "out/.lof/manifest.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(OutputError, match=r"damaged .*delete it"):
        run(finished)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE images SET settings = x'ff00'",
        "UPDATE images SET settings = CAST(x'ff00' AS TEXT)",
        "UPDATE images SET output_size = 'many'",
    ],
)
def test_a_manifest_with_a_row_that_makes_no_sense_is_one_clear_error(finished: Path, change: str) -> None:
    with closing(sqlite3.connect(finished / "out/.lof/manifest.sqlite", isolation_level=None)) as database:
        database.execute(change)
    with pytest.raises(OutputError, match=r"damaged .*delete it") as caught:
        run(finished)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "record",
    [
        "x",
        "[]",
        pytest.param('{"a":' + "[" * 200000 + "]" * 200000 + "}", id="nested"),
        {},
        {"optimised": {"size": 1, "bpp": 1.0}},
        {"against": 5},
        {"against": None},
        {"against": {"webp": "x"}},
        {"against": {"gif": 1}},
        {"notes": [{}]},
        {"rate_change": math.nan},
        {"seconds": math.inf},
        {"width": 10**400},
        {"state": "x"},
        {"target": "30 dB inside"},
        {"later": functools.reduce(lambda inner, _: [inner], range(600), [])},  # type: ignore[arg-type, return-value]
    ],
)
def test_an_image_whose_record_is_not_as_it_should_be_is_done_again(finished: Path, record: object) -> None:
    before = streams(finished / "out")
    with closing(sqlite3.connect(finished / "out/.lof/manifest.sqlite", isolation_level=None)) as database:
        (text,) = database.execute("SELECT record FROM images WHERE source = 'a.png'").fetchone()
        if isinstance(record, dict):
            record = json.dumps(record and json.loads(text) | record)
        database.execute("UPDATE images SET record = ? WHERE source = 'a.png'", (record,))
    assert [str(source.relative) for source in plan(finished, QUICK)] == ["a.png"]
    _, events = run(finished)
    assert started(events) == ["a.png"]
    assert streams(finished / "out") == before


def test_two_jobs_do_not_work_in_one_folder_at_once(finished: Path) -> None:
    with Manifest(finished / "out"), pytest.raises(OutputError, match="another lof is at work there"):
        run(finished)
    assert run(finished)[0].skipped == 2


def test_a_manifest_keeps_every_kind_of_row(tmp_path: Path) -> None:
    rows = [Row(f"{i}.png", i, 2**62 + i, "digest", "failed", {"error": "x"}) for i in range(500)]
    rows.append(
        Row("caf\udce9.png", 1, 1, "digest", "done", {"psnr": float("inf"), "name": "caf\udce9"}, "00")
    )
    with Manifest(tmp_path) as manifest:
        for row in rows:
            manifest.put(row)
        manifest.put(replace(rows[3], size=77))
    with Manifest(tmp_path) as manifest:
        assert [manifest.get(row.source) for row in rows] == [*rows[:3], replace(rows[3], size=77), *rows[4:]]
        assert manifest.get("none.png") is None


def test_a_manifest_that_cannot_be_read_is_one_clear_error(finished: Path) -> None:
    path = finished / "out/.lof/manifest.sqlite"
    path.unlink()
    path.symlink_to("/proc/self/mem")  # a file that nobody can read at its beginning
    with pytest.raises(OutputError, match=r"manifest\.sqlite: cannot be read \(Input/output error\)"):
        plan(finished, QUICK)


@pytest.mark.parametrize("room", [100, 20000])  # less than the copy needs, less than SQLite needs beside it
def test_a_full_disk_for_temporary_files_is_not_blamed_on_the_manifest(finished: Path, room: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OutputError, match=r"^/\S+: cannot be written \(") as caught:
            plan(finished, QUICK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(finished) not in str(caught.value)


def test_rows_of_a_killed_process_are_still_there(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        Manifest(tmp_path).put(Row("a.png", 1, 2, "digest", "failed", {}))
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with Manifest.snapshot(tmp_path) as copy:
        assert copy is not None
        assert copy.get("a.png") is not None
    with Manifest(tmp_path) as manifest:
        assert manifest.get("a.png") is not None


def test_what_a_killed_write_left_is_removed_by_the_next_run(finished: Path) -> None:
    output = finished / "out/a.png.lof"
    output.unlink()
    child = os.fork()
    if child == 0:
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        write_atomically(output, b"half")
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert len(temporaries(finished / "out")) == 1
    (finished / "out/.mine.png.lof.abcdefgh.tmp").write_text("of somebody else")
    run(finished)
    assert [path.name for path in temporaries(finished / "out")] == [".mine.png.lof.abcdefgh.tmp"]
    assert output.is_file()


def _with_header(png: bytes, width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def test_a_crop_that_is_gone_or_damaged_is_none(finished: Path) -> None:
    path = crop_path(finished / "out", "a.png")
    assert read_crop(path) is not None
    whole = path.read_bytes()
    sizes = ((1, 1), (2, 80), (289, 80), (771, 80), (288, 257), (30000, 30000))
    for bad in (b"", whole[:100], *(_with_header(whole, *size) for size in sizes)):
        path.write_bytes(bad)
        assert read_crop(path) is None
    path.unlink()
    assert read_crop(path) is None


def test_a_total_counts_images_that_are_only_to_be_compared(tmp_path: Path) -> None:
    settings = JobSettings("jpeg", profile(1), target=Target(size=4000), total=True)
    out = tmp_path / "out"

    def size() -> int:
        return sum(path.stat().st_size for path in out.glob("*.jpg"))

    for seed in range(2):
        save(tmp_path / f"in/{seed}.png", seed)
    assert run(tmp_path, settings)[0].done == 2
    save(tmp_path / "in/2.png", 2)
    compared = replace(settings, against=("webp",))
    with suppress(UsageError):  # nothing may be left for the third
        run(tmp_path, compared)
    assert 3000 < size() <= 4000
    assert run(tmp_path, compared, redo=True)[0].done == 3
    assert len(list(out.glob("*.jpg"))) == 3
    assert size() <= 4000
