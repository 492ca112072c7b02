"""Jobs: what is written, refused, noted; workers that die."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from job_tools import QUICK, SLOW, Killer, hashes, profile, run, save, streams, temporaries
from PIL import Image

import lof
from lof.errors import LofError, OutputError, UsageError, WorkerError
from lof.files.inputs import find
from lof.jobs import Advanced, Event, Finished, JobSettings, Started, Workers, run_job, work
from lof.jobs.crops import read_crop, write_crop
from lof.pools import threads_per_worker

LONG_NAME = "sub/Straße in Łódź 日本.png"


def test_a_mixed_folder_gives_streams_for_good_images_and_one_error_for_each_bad_one(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    save(tmp_path / "in" / LONG_NAME, seed=1, size=(33, 17))
    jpeg = save(tmp_path / "in/cut.jpg", quality=95, size=(320, 240))
    jpeg.write_bytes(jpeg.read_bytes()[:-4000])
    (tmp_path / "in/text.png").write_text("not an image")
    Image.new("RGBA", (32, 32), (255, 0, 0, 100)).save(tmp_path / "in/sub/clear.png")
    before = hashes(tmp_path / "in")

    summary, events = run(tmp_path)

    assert (summary.done, summary.failed, summary.exit_code) == (2, 3, 1)
    assert hashes(tmp_path / "in") == before
    assert sorted(streams(tmp_path / "out")) == ["a.png.lof", f"{LONG_NAME}.lof"]
    assert temporaries(tmp_path) == []
    by_source = {record["source"]: record for record in summary.records}
    assert list(by_source) == [str(source.relative) for source in find([str(tmp_path / "in")]).sources]
    for name in ("cut.jpg", "text.png", "sub/clear.png"):
        assert sorted(by_source[name]) == ["error", "source", "state"]
        assert by_source[name]["error"].startswith(str(tmp_path / "in" / name))
        assert "\n" not in by_source[name]["error"]
    assert sum(isinstance(event, Finished) and event.outcome["state"] == "failed" for event in events) == 3

    record = by_source[LONG_NAME]
    stream = tmp_path / "out" / record["output"]
    assert record["source_sha256"] == before[LONG_NAME]
    assert record["output_sha256"] == hashlib.sha256(stream.read_bytes()).hexdigest()
    assert record["optimised"]["size"] == stream.stat().st_size
    assert lof.decode(stream.read_bytes()).pixels.shape == (17, 33, 3)


def test_an_image_that_changes_while_it_is_read_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "in/a.png")
    reached = []

    def read_and_change(asked: Path) -> Any:
        picture = lof.read_picture(asked)
        reached.append(asked)
        save(path, seed=9)
        os.utime(path, ns=(1, 1))
        return picture

    monkeypatch.setattr(work, "read_picture", read_and_change)
    summary, _ = run(tmp_path)
    assert reached == [path]
    assert "changed while it was read" in summary.records[0]["error"]
    assert not (tmp_path / "out/a.png.lof").exists()


def test_an_output_that_would_overwrite_an_input_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "a.png.lof")
    before = hashes(tmp_path)
    sources = find([str(tmp_path / "a.png"), str(tmp_path / "a.png.lof")]).sources
    with pytest.raises(UsageError, match=r"a\.png\.lof: would overwrite the input"):
        run_job(sources, tmp_path, QUICK)
    assert hashes(tmp_path) == before


def test_a_report_that_would_overwrite_an_input_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "report.html", format="PNG")
    with pytest.raises(UsageError, match="would overwrite the input"):
        run_job(find([str(tmp_path / "report.html")]).sources, tmp_path, QUICK)


def test_a_file_in_the_place_of_the_output_folder_is_one_clear_error(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="-o"):
        run(tmp_path)
    assert (tmp_path / "out").read_text() == "mine"


def test_an_unwritable_output_folder_is_one_clear_error(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    blocked = tmp_path / "locked"
    blocked.mkdir(mode=0o555)
    if os.access(blocked, os.W_OK):  # root may write anywhere but into the kernel's own tree
        blocked = Path("/proc")
    with pytest.raises(OutputError, match=r"cannot be written .*; choose another folder with -o"):
        run_job(find([str(tmp_path / "in")]).sources, blocked / "out", QUICK)


def test_metadata_travels_unless_stripped_and_the_record_says_so(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    save(tmp_path / "in/a.jpg", exif=exif)
    notes = {}
    for strip in (False, True):
        summary, _ = run(tmp_path, replace(QUICK, strip=strip), redo=True)
        notes[strip] = summary.records[0]["notes"]
        decoded = lof.decode((tmp_path / "out/a.jpg.lof").read_bytes())
        assert (decoded.exif is None) == strip
    assert notes == {False: [], True: ["EXIF stripped"]}


def test_compressai_files_note_the_metadata_that_they_cannot_hold(tmp_path: Path) -> None:
    from compressai.models import FactorizedPrior

    torch.manual_seed(0)
    network = FactorizedPrior(128, 192)
    network.update()
    torch.save(network.state_dict(), tmp_path / "bmshj2018-factorized-1.pth")
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    save(tmp_path / "in/a.jpg", exif=exif)
    settings = JobSettings(
        "bmshj2018-factorized", profile(1), quality=1, weights=tmp_path, format="compressai"
    )
    summary, _ = run(tmp_path, settings)
    assert summary.records[0]["notes"] == ["EXIF dropped, which --format compressai cannot hold"]
    assert summary.records[0]["output"] == "a.jpg.bin"


def test_jpegs_note_the_metadata_that_they_cannot_hold(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker" * 14000
    save(tmp_path / "in/a.png", exif=exif)
    summary, _ = run(tmp_path, JobSettings("jpeg", profile(1), quality=75, format="jpeg"))
    assert summary.records[0]["notes"] == ["EXIF dropped, which --format jpeg cannot hold"]


def test_a_format_that_cannot_hold_the_codec_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    with pytest.raises(UsageError, match="compressai holds zoo codecs only"):
        run(tmp_path, replace(QUICK, format="compressai"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", [-1, 10**23])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(UsageError, match=f"seed {seed}: must be a whole number from 0 to"):
        replace(QUICK, seed=seed)


def test_searches_end_at_the_deadline_and_keep_the_best_so_far(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    summary, _ = run(tmp_path, SLOW, until=time.time())
    (record,) = summary.records
    assert record["evaluations"] == 1
    assert record["notes"] == ["search cut short by the deadline"]
    assert record["optimised"]["cost"] <= record["baseline"]["cost"]
    assert lof.decode((tmp_path / "out/a.png.lof").read_bytes()).pixels.shape == (80, 96, 3)


@pytest.mark.parametrize("lmbda", [0.0, -1.0, float("nan"), float("inf")])
def test_a_lambda_that_is_no_positive_number_is_refused(lmbda: float) -> None:
    with pytest.raises(UsageError, match="must be a number above 0"):
        replace(QUICK, lmbda=lmbda)


@pytest.mark.parametrize(
    ("size", "place"), [((700, 500), (450, 130)), ((300, 40), (32, 0)), ((9, 5), (0, 0))]
)
def test_the_crop_is_where_the_error_fell_most(
    tmp_path: Path, size: tuple[int, int], place: tuple[int, int]
) -> None:
    width, height = size
    original = np.random.default_rng(0).integers(0, 200, (height, width, 3), dtype=np.uint8)
    optimised = original + np.uint8(1)
    baseline = optimised.copy()
    x, y = place
    baseline[y : y + 200, x : x + 200] += 50
    baseline[:30, :30] -= 1  # better in a corner
    write_crop(tmp_path / "crop.png", original, baseline, optimised)
    crop = read_crop(tmp_path / "crop.png")
    assert crop is not None
    assert all(part.shape == (min(256, height), min(256, width), 3) for part in crop[:3])
    fallen = np.abs(crop[1].astype(int) - crop[2]).sum() / np.abs(baseline.astype(int) - optimised).sum()
    assert fallen > 0.9


@pytest.mark.long
def test_a_killed_worker_costs_nothing_but_time_and_bytes_do_not_depend_on_jobs(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"in/{i}.png", seed=i)
    sources = find([str(tmp_path / "in")]).sources
    killer = Killer("1.png", most=1)
    summary = run_job(sources, tmp_path / "out", SLOW, jobs=2, on_event=killer)

    assert len(killer.killed) == 1
    assert [e.attempt for e in killer.events if isinstance(e, Started) and e.item == sources[1]] == [1, 2]
    assert (summary.done, summary.failed) == (3, 0)
    assert summary.records[1]["notes"] == ["done at the second attempt, its first worker process died"]
    assert temporaries(tmp_path) == []
    assert multiprocessing.active_children() == []

    torch.set_num_threads(threads_per_worker(2))
    run_job(sources, tmp_path / "here", SLOW)
    assert streams(tmp_path / "here") == streams(tmp_path / "out")


def test_an_image_that_kills_every_worker_is_set_aside(tmp_path: Path) -> None:
    for i in range(2):
        save(tmp_path / f"in/{i}.png", seed=i)
    killer = Killer("0.png", most=9)
    sources = find([str(tmp_path / "in")]).sources
    summary = run_job(sources, tmp_path / "out", SLOW, jobs=2, on_event=killer)
    assert len(killer.killed) == 2
    assert (summary.done, summary.failed, summary.exit_code) == (1, 1, 1)
    assert "its worker process was killed (SIGKILL), 2 times" in summary.records[0]["error"]
    assert isinstance([e for e in killer.events if getattr(e, "item", None) == sources[1]][-1], Finished)


def test_workers_that_cannot_start_end_the_job(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")

    def kill_at_once(event: Event) -> None:
        assert not isinstance(event, Started)
        if isinstance(event, Workers) and event.starting:
            for process in multiprocessing.active_children():
                process.kill()

    with pytest.raises(WorkerError, match=r"was killed \(SIGKILL\) while it started; use fewer --jobs"):
        run_job(find([str(tmp_path / "in")]).sources, tmp_path / "out", QUICK, jobs=2, on_event=kill_at_once)
    assert multiprocessing.active_children() == []


def test_what_stops_the_job_stops_its_workers(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    reached = []

    def stop(event: Event) -> None:
        if isinstance(event, Advanced):
            reached.append(event)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(find([str(tmp_path / "in")]).sources, tmp_path / "out", SLOW, jobs=2, on_event=stop)
    assert len(reached) == 1
    assert multiprocessing.active_children() == []
    assert temporaries(tmp_path) == []


def test_an_error_of_a_worker_that_loads_the_codec_is_the_jobs_error(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    sources = find([str(tmp_path / "in")]).sources
    with pytest.raises(LofError, match="device 'cuda:63': this machine has"):
        run_job(sources, tmp_path / "out", replace(QUICK, device="cuda:63"), jobs=2)
