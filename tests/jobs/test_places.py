"""Pictures of one name in several places: none replaces the stream of another."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from job_tools import QUICK, hashes, profile, save

from lof.files.inputs import find
from lof.files.storage import Location, parse
from lof.jobs import JobSettings, Summary, plan_job, run_job
from lof.results import Target


def optimise(
    place: Path | str,
    out: Location,
    settings: JobSettings = QUICK,
    *,
    redo: bool = False,
    force: bool = False,
) -> Summary:
    return run_job(find([str(place)]).sources, out, settings, redo=redo, force=force)


def states(summary: Summary) -> list[str]:
    return [record["state"] for record in summary.records]


def two_folders(folder: Path) -> tuple[Path, Path]:
    """Both hold a picture a.ppm, of one size and time but with other pixels; the second has one more."""
    for seed, name in enumerate(("holiday", "work")):
        path = save(folder / name / "a.ppm", seed)
        os.utime(path, ns=(10**18, 10**18))
    save(folder / "work/b.ppm", 2)
    return folder / "holiday", folder / "work"


@pytest.mark.parametrize("settings", [QUICK, replace(QUICK, seed=1), JobSettings("jpeg", QUICK.profile)])
@pytest.mark.parametrize("url", [False, True])
def test_a_picture_of_another_folder_replaces_a_stream_by_force_only(
    tmp_path: Path, settings: JobSettings, url: bool
) -> None:
    holiday, work = two_folders(tmp_path)
    out = parse(f"file://{tmp_path}/out") if url else tmp_path / "out"
    assert states(optimise(holiday, out)) == ["done"]
    before = hashes(tmp_path / "out")
    assert len(plan_job(find([str(work)]).sources, out, settings).refused) == 1
    for _ in range(2):
        summary = optimise(work, out, settings, redo=True)
        assert (states(summary)[0], summary.exit_code) == ("failed", 1)
        assert summary.records[0]["error"] == (
            f"{work}/a.ppm: {out}/a.ppm.lof was made from {holiday}/a.ppm; "
            "choose another folder with -o, or add --force to replace it"
        )
        assert (tmp_path / "out" / summary.records[1]["output"]).exists()
    after = hashes(tmp_path / "out")
    assert {name: after[name] for name in before if "manifest" not in name} == {
        name: digest for name, digest in before.items() if "manifest" not in name
    }
    assert states(optimise(holiday, out)) == ["skipped"]
    assert states(optimise(work, out, settings, redo=True, force=True)) == ["done", "skipped"]
    assert states(optimise(work, out, settings)) == ["skipped", "skipped"]
    (holiday / "a.ppm").unlink()
    (holiday / "a.ppm").symlink_to("away")  # a source that cannot be read says so
    (failure,) = optimise(holiday, out, settings).records
    assert failure["error"].startswith(f"{holiday}/a.ppm: cannot be read (No such file or directory); ")


def test_a_folder_that_was_moved_goes_on_as_done(tmp_path: Path) -> None:
    holiday, _ = two_folders(tmp_path)
    out = tmp_path / "out"
    optimise(holiday, out)
    moved = holiday.rename(tmp_path / "moved")
    holiday.symlink_to(moved)
    for place in (moved, holiday, f"file://{moved}", moved / "a.ppm"):
        assert states(optimise(place, out)) == ["skipped"]
    save(moved / "a.ppm", 7)
    assert states(optimise(f"file://{moved}", out)) == ["done"]
    save(moved / "a.ppm", 8)
    assert states(optimise(holiday, out)) == ["done"]  # the link is the same place
    (tmp_path / "out/a.ppm.lof").unlink()
    assert states(optimise(tmp_path / "work/a.ppm", out)) == ["done"]  # nothing is lost


def test_rows_of_older_versions_do_not_know_the_place_until_they_are_seen_again(tmp_path: Path) -> None:
    holiday, work = two_folders(tmp_path)
    for seen in (False, True):
        out = tmp_path / f"out-{seen}"
        optimise(holiday, out)
        with closing(sqlite3.connect(out / ".lof/manifest.sqlite", isolation_level=None)) as database:
            database.execute("ALTER TABLE images DROP COLUMN place")
            database.execute("PRAGMA user_version = 1")
        save(work / "a.ppm", 5)
        assert plan_job(find([str(work)]).sources, out, QUICK).refused == []
        if seen:
            assert states(optimise(holiday, out)) == ["skipped"]
        assert states(optimise(work, out)) == ["failed" if seen else "done", "done"]


def test_a_picture_that_is_refused_has_no_share_of_a_total(tmp_path: Path) -> None:
    holiday, work = two_folders(tmp_path)
    settings = JobSettings("jpeg", profile(1), target=Target(size=1500), total=True)
    optimise(holiday, tmp_path / "out", settings)
    summary = optimise(work, tmp_path / "out", settings)
    assert states(summary) == ["failed", "done"]
    assert summary.records[1]["optimised"]["size"] > 1000
