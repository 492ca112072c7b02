"""What a job finds in its output folder: its own files are replaced and never inputs, those of others stay."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from job_tools import QUICK, hashes, run, save

from lof.errors import ProfileError, UsageError
from lof.files.inputs import find
from lof.files.storage import parse
from lof.jobs import JobSettings, plan_job, run_job
from lof.jobs.crops import crop_path
from lof.jobs.manifest import Manifest
from lof.jobs.own import without_outputs
from lof.profiles import parse_profile

JPEG = JobSettings("jpeg", QUICK.profile)


@pytest.mark.parametrize("name", ["a.png.lof", "report.csv", "report.html", "report.jsonl"])
def test_files_of_others_are_not_replaced_unless_forced(tmp_path: Path, name: str) -> None:
    save(tmp_path / "in/a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / f"out/{name}").write_text("mine")
    sources = find([str(tmp_path / "in")]).sources
    for call in (run_job, plan_job, run_job):  # that one was refused makes nothing lof's own
        with pytest.raises(UsageError) as caught:
            call(sources, tmp_path / "out", QUICK)
        assert str(caught.value) == (
            f"{tmp_path / 'out' / name}: is another file already; "
            "choose another folder with -o, or add --force"
        )
        assert list(hashes(tmp_path / "out")) == [name]
    assert len(plan_job(sources, tmp_path / "out", QUICK, force=True).todo) == 1
    assert run(tmp_path, force=True)[0].done == 1
    assert run(tmp_path)[0].skipped == 1


def test_a_link_that_leads_nowhere_is_another_file_too(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name)
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / f"out/{name}.lof").symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"a\.png\.lof: is another file already \(1 more are too\); "):
        run(tmp_path)


def test_a_file_that_comes_later_is_not_replaced(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    run(tmp_path)
    save(tmp_path / "in/b.png", seed=1)
    (tmp_path / "out/b.png.lof").write_text("mine")
    with pytest.raises(UsageError, match=r"b\.png\.lof: is another file already; "):
        run(tmp_path)
    assert (tmp_path / "out/b.png.lof").read_text() == "mine"


def test_files_of_others_in_a_store_are_not_replaced(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    sources = find([str(tmp_path / "in")]).sources
    out = parse(f"file://{tmp_path}/out")
    run_job(sources, out, QUICK)
    assert run_job(sources, out, replace(QUICK, seed=1), redo=True).done == 1
    (tmp_path / "out/b.png.lof").write_text("mine")
    save(tmp_path / "in/b.png", seed=1)
    with pytest.raises(UsageError, match=r"b\.png\.lof: is another file already; "):
        run_job(find([str(tmp_path / "in")]).sources, out, QUICK)
    assert (tmp_path / "out/b.png.lof").read_text() == "mine"


@pytest.mark.parametrize("url", [False, True])
def test_a_stream_that_was_changed_is_not_replaced_unless_forced(tmp_path: Path, url: bool) -> None:
    for seed, name in enumerate(("a.png", "b.png")):
        save(tmp_path / "in" / name, seed)
    out = parse(f"file://{tmp_path}/out") if url else tmp_path / "out"
    sources, stream = find([str(tmp_path / "in")]).sources, tmp_path / "out/a.png.lof"
    run_job(sources, out, QUICK)
    written = stream.read_bytes()
    stream.write_bytes(b"mine" + written)
    for redo in (False, True):
        summary = run_job(sources, out, replace(QUICK, seed=int(redo)), redo=redo)
        assert (summary.done, summary.skipped, summary.exit_code) == (int(redo), int(not redo), 1)
        assert summary.records[0]["error"] == (
            f"{out}/a.png.lof: is not as lof wrote it; "
            "delete it to have it made again, choose another folder with -o, or add --force"
        )
    save(tmp_path / "in/a.png", 2)  # that the picture is another one now is no reason
    assert [source for source, _ in plan_job(sources, out, QUICK).refused] == sources[:1]
    assert stream.read_bytes() == b"mine" + written
    save(tmp_path / "in/a.png", 0)
    run_job(sources, out, QUICK, force=True, redo=True)
    assert stream.read_bytes() == written
    stream.unlink()
    run_job(sources, out, QUICK)
    assert stream.read_bytes() == written


def _killed_before_the_manifest_knows(folder: Path, settings: JobSettings, out: Path) -> None:
    child = os.fork()
    if child == 0:
        Manifest.put = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        run_job(find([str(folder)]).sources, out, settings)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def test_a_job_that_was_killed_continues_over_its_own_streams(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    _killed_before_the_manifest_knows(tmp_path / "in", QUICK, tmp_path / "out")
    assert (tmp_path / "out/a.png.lof").exists()
    assert run(tmp_path)[0].done == 1
    save(tmp_path / "in/a.png", seed=1)
    before = hashes(tmp_path / "out")["a.png.lof"]
    _killed_before_the_manifest_knows(tmp_path / "in", QUICK, tmp_path / "out")
    assert hashes(tmp_path / "out")["a.png.lof"] != before  # and not what the manifest knows
    assert run(tmp_path)[0].done == 1


def test_a_job_whose_crops_or_manifest_are_gone_continues(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    run(tmp_path)
    crop_path(tmp_path / "out", "a.png").unlink()
    assert run(tmp_path)[0].skipped == 1
    assert run(tmp_path, replace(QUICK, seed=1), redo=True)[0].done == 1
    for path in (tmp_path / "out/.lof").glob("manifest*"):
        path.unlink()
    assert run(tmp_path)[0].done == 1


def test_other_formats_in_one_folder_take_turns(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    for settings in (QUICK, JPEG, QUICK):
        assert run(tmp_path, settings)[0].done == 1


@pytest.mark.parametrize("killed", [False, True])
def test_streams_that_look_like_inputs_are_none(tmp_path: Path, killed: bool) -> None:
    folder = tmp_path / "in"
    for name in ("a.jpg", "b.jpg.jpg", "sub/c.png"):
        save(folder / name)
    found = find([str(folder)]).sources
    assert without_outputs(found, folder) == found
    if killed:
        _killed_before_the_manifest_knows(folder, JPEG, folder)
    else:
        run_job(found, folder, JPEG)
    again = find([str(folder)]).sources
    assert len(again) == (4 if killed else 6)
    assert without_outputs(again, folder) == found
    assert without_outputs(again, tmp_path / "elsewhere") == again
    summary = run_job(without_outputs(again, folder), folder, JPEG)
    assert (summary.done, summary.skipped) == ((3, 0) if killed else (0, 3))
    with pytest.raises(UsageError, match="the inputs are streams that lof wrote there; name other images"):
        without_outputs(find([str(folder / "a.jpg.jpg")]).sources, folder)


def test_streams_in_a_store_that_look_like_inputs_are_none(tmp_path: Path) -> None:
    save(tmp_path / "in/a.jpg")
    folder = parse(f"file://{tmp_path}/in")
    found = find([str(folder)]).sources
    run_job(found, folder, JPEG)
    again = find([str(folder)]).sources
    assert len(again) == 2
    assert without_outputs(again, folder) == found


def test_rows_of_earlier_versions_tell_of_no_change(tmp_path: Path) -> None:
    """They lack the place, and their crops what a job that was killed had written last."""
    save(tmp_path / "in/a.png")
    run(tmp_path)
    with closing(sqlite3.connect(tmp_path / "out/.lof/manifest.sqlite")) as database, database:
        database.execute("UPDATE images SET place = ''")
    written = (tmp_path / "out/a.png.lof").read_bytes()
    (tmp_path / "out/a.png.lof").write_bytes(written + b"by a killed job")
    assert run(tmp_path)[0].done == 1
    assert (tmp_path / "out/a.png.lof").read_bytes() == written


def test_a_learning_rate_for_a_latent_that_the_codec_does_not_have_is_refused_first(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    stage = {"kind": "mean-field", "evaluations": 2, "learning_rate_of": {"Z": 0.1, "z": 0.1}}
    wrong = replace(QUICK, profile=parse_profile({"name": "mine", "stage": [stage]}))
    with pytest.raises(
        ProfileError, match=r"^mine: stage\.learning_rate_of\.Z: lapped-tiny has no such latent; use "
    ):
        run_job(find([str(tmp_path / "in")]).sources, tmp_path / "out", wrong)
    assert not (tmp_path / "out/a.png.lof").exists()
