"""Inputs and outputs that are URLs: what is found, written whole, remembered, refused."""

from __future__ import annotations

import errno
import re
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import fsspec
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from upath import UPath

import lof
from lof.cli import app
from lof.errors import ImageError, LofError, OutputError, UsageError
from lof.files.atomic import remove_leftovers, write_atomically
from lof.files.inputs import find
from lof.files.storage import is_remote, parse, temporary_name
from lof.jobs import JobSettings, plan_job, run_job
from lof.jobs.events import Finished
from lof.jobs.remote_manifest import RemoteManifest
from lof.pictures.reading import read_size
from lof.pools import Processes
from lof.profiles import parse_profile

QUICK = JobSettings(
    "tiny", parse_profile({"name": "short", "stage": [{"kind": "relax", "evaluations": 1}]}), device="cpu"
)


@pytest.fixture
def memory() -> Iterator[str]:
    folder = f"memory://{uuid.uuid4().hex}"
    yield folder
    fsspec.filesystem("memory").store.clear()


def png(seed: int = 0, size: tuple[int, int] = (48, 32)) -> bytes:
    import io

    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def url(text: str) -> UPath:
    location = parse(text)
    assert is_remote(location)
    return location


def names(folder: str) -> list[str]:
    return sorted(str(source.relative) for source in find([folder]).sources)


def test_folders_globs_and_files_of_a_store_are_found(memory: str) -> None:
    for name in ("a.png", "sub/b.JPG", "sub/notes.txt", ".hidden/c.png", "sub/.d.png"):
        write_atomically(url(f"{memory}/{name}"), png())
    assert names(memory) == ["a.png", "sub/b.JPG"]
    assert find([memory]).ignored == {".txt": 1}
    assert names(f"{memory}/*.png") == ["a.png"]
    assert names(f"{memory}/**/*.JPG") == ["sub/b.JPG"]
    assert names(f"{memory}/sub/b.JPG") == ["b.JPG"]
    found = find([memory], exclude=parse(f"{memory}/sub")).sources
    assert [source.relative for source in found] == [PurePosixPath("a.png")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope://bucket/a", "unknown protocol"),
        ("memory://nothing-there", "does not exist or is empty"),
        ("memory://nothing-there/*.png", "does not exist or is empty"),
    ],
)
def test_urls_that_name_nothing_are_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        find([text])
    assert str(caught.value).startswith(f"{text}: ")


def test_a_missing_driver_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(protocol: str) -> None:
        raise ImportError("no module")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(UsageError, match=r"package for s3:// is not installed \(Install s3fs"):
        parse("s3://bucket/folder")


def test_two_sources_of_a_store_with_one_output_are_refused(memory: str) -> None:
    for name in ("x/a.png", "y/a.png"):
        write_atomically(url(f"{memory}/{name}"), png())
    with pytest.raises(UsageError, match=r"both outputs would be a\.png"):
        find([f"{memory}/x/a.png", f"{memory}/y/a.png"])


def test_a_job_in_a_store_writes_streams_reads_them_back_and_continues(memory: str) -> None:
    for number in range(2):
        write_atomically(url(f"{memory}/in/sub/{number}.png"), png(number))
    write_atomically(url(f"{memory}/in/bad.png"), b"no image")
    out = url(f"{memory}/out")
    sources = find([f"{memory}/in"]).sources

    summary = run_job(sources, out, QUICK)
    assert (summary.done, summary.failed) == (2, 1)
    stream = (out / "sub/1.png.lof").read_bytes()
    assert lof.decode(stream).pixels.shape == (32, 48, 3)
    assert summary.records[2]["output"] == "sub/1.png.lof"

    write_atomically(url(f"{memory}/in/sub/0.png"), png(7))
    (out / "sub/1.png.lof").unlink()
    plan = plan_job(find([f"{memory}/in"]).sources, out, QUICK)
    assert [str(source.relative) for source in plan.todo] == ["bad.png", "sub/0.png", "sub/1.png"]
    assert run_job(find([f"{memory}/in"]).sources, out, QUICK).skipped == 0
    assert run_job(find([f"{memory}/in"]).sources, out, QUICK).skipped == 2


def test_what_lives_in_one_process_is_refused_with_several(memory: str, tmp_path: Path) -> None:
    write_atomically(url(f"{memory}/a.png"), png())
    (tmp_path / "a.png").write_bytes(png())
    for inputs, out in ((memory, tmp_path / "out"), (str(tmp_path), url(f"{memory}/out"))):
        with pytest.raises(UsageError, match="lives in this process alone"):
            run_job(find([inputs]).sources, out, QUICK, jobs=2)
    assert not (tmp_path / "out").exists()


def test_file_urls_work_with_several_processes_in_batches(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / f"in/{number}.png").write_bytes(png(number))
    out = url(f"file://{tmp_path}/out")
    sources = find([f"file://{tmp_path}/in"]).sources
    summary = run_job(sources, out, QUICK, pool=Processes(2, threads=1), batch=2)
    assert summary.done == 3
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png.lof")) == [
        f"{i}.png.lof" for i in range(3)
    ]
    assert list(tmp_path.rglob(".*.tmp")) == []
    # What a store holds is an ordinary output folder.
    assert run_job(find([str(tmp_path / "in")]).sources, tmp_path / "out", QUICK).skipped == 3


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = url(f"file://{tmp_path}/a.txt")
    write_atomically(target, b"old")

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(target.fs), "mv", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_atomically(target, b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.txt", b"old")]


def test_what_a_killed_write_left_in_a_store_is_removed(memory: str) -> None:
    target = url(f"{memory}/out/a.png.lof")
    for name in (temporary_name(target.name), temporary_name("other.lof")):
        write_atomically(target.with_name(name), b"half")
    remove_leftovers([target])
    assert len(target.fs.ls(target.parent.path)) == 1


def test_a_manifest_in_a_store_is_there_before_the_first_image_and_after_the_last(memory: str) -> None:
    out = url(f"{memory}/out")
    with RemoteManifest(out):
        assert (out / ".lof/manifest.sqlite").exists()
    (out / ".lof/manifest.sqlite").write_bytes(b"no database" * 99)
    with pytest.raises(OutputError, match=f"{memory}/out/.lof/manifest.sqlite: damaged"), RemoteManifest(out):
        pass


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_of_two_jobs_in_one_folder_of_a_store_the_first_stops_and_harms_nothing(
    memory: str, tmp_path: Path, scheme: str
) -> None:
    base = memory if scheme == "memory" else f"file://{tmp_path}"
    for number in range(2):
        write_atomically(url(f"{base}/in/{number}.png"), png(number))
    sources, out = find([f"{base}/in"]).sources, url(f"{base}/out")
    second: list[object] = []

    def start_a_second(event: object) -> None:
        if isinstance(event, Finished) and not second:
            second.append(run_job(sources, out, QUICK))

    with pytest.raises(OutputError, match=f"{base}/out: another lof began to work there"):
        run_job(sources, out, QUICK, on_event=start_a_second)
    assert len(second) == 1
    assert run_job(sources, out, QUICK).skipped == 2  # the second one's manifest is whole


def test_sizes_come_from_headers_anywhere(memory: str) -> None:
    target = url(f"{memory}/a.png")
    write_atomically(target, png(size=(40, 30)))
    assert read_size(target) == (40, 30)
    write_atomically(target, b"none")
    for path in (target, url(f"{memory}/missing.png")):
        with pytest.raises(ImageError, match=re.escape(str(path))):
            read_size(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "nope://x"], "nope://x: unknown protocol"),
        (["-o", "file:///proc/x"], "cannot be written"),
        (["--jobs", "2", "-o", "memory://x"], "lives in this process alone"),
        (["--ray", "127.0.0.1:1"], "no Ray head node answers there"),
        (["--num-gpus", "1"], "goes with --ray only"),
    ],
)
def test_the_command_line_says_what_is_wrong(options: list[str], message: str, tmp_path: Path) -> None:
    import lof.cli.optimize  # noqa: F401

    (tmp_path / "a.png").write_bytes(png())
    result = CliRunner().invoke(app, ["optimize", str(tmp_path), "--codec", "tiny", *options])
    assert isinstance(result.exception, LofError)
    assert message in str(result.exception)


def test_a_store_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Access Denied")

    (tmp_path / "a.png").write_bytes(png())
    monkeypatch.setattr(type(url(memory).fs), "find", fail)
    with pytest.raises(
        OutputError, match=rf"^{memory}: cannot be listed \(.*Access Denied.*\); check its perm"
    ):
        plan_job(find([str(tmp_path / "a.png")]).sources, url(memory), QUICK)


def test_without_a_temporary_folder_the_error_says_how_to_name_one(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(
        OutputError, match="No such file or directory; name a folder that has room with TMPDIR"
    ):
        RemoteManifest(url(memory))
