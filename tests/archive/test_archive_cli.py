"""``lof archive``: what it prints, how it exits, one line for every error."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from lof.archive import Floors
from lof.cli import main
from lof.errors import UsageError

QUICK = '[[stage]]\nkind = "greedy-flip"\nevaluations = 1\n'
MORE = '[[stage]]\nkind = "mean-field"\nevaluations = 12\ncheck_every = 4\n'


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``lof archive`` in this process, in a folder with ``photos`` and two profiles."""
    monkeypatch.chdir(tmp_path)
    Path("quick.toml").write_text(QUICK)
    Path("more.toml").write_text(MORE)
    Path("photos/sub").mkdir(parents=True)
    small = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(small).resize((80, 64), Image.Resampling.BICUBIC).save("photos/sub/a.jpg", quality=95)
    Path("photos/notes.txt").write_text("words")

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["lof", "archive", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        code = stop.value.code
        return Outcome(code if isinstance(code, int) else 0, *capsys.readouterr())

    return call


ARCHIVE = Path(__file__).parents[1] / "fixtures/v0.1/archive"
CREATE = ("create", "photos", "dst", "--codec", "tiny", "--profile", "quick.toml")


def test_an_archive_is_made_looked_at_checked_improved_and_restored(run: Run) -> None:
    made = run(*CREATE)
    assert made.code == 0
    assert "this time: 1 stream written, 1 file stored as is" in made.out
    assert "not to the same bytes" in " ".join(made.out.split())
    assert all(len(line) <= 80 for line in made.out.splitlines() if not line.startswith("source"))
    assert "photos/notes.txt: stored as it is (no image)" in made.err

    assert "Streams of tiny are not sure to be read on another kind of CPU" in " ".join(made.out.split())

    status = run("status", "dst")
    assert status.code == 0
    assert "2 folders" in status.out
    assert "stored, no image" in status.out
    held = json.loads(run("status", "dst", "--json").out)
    assert sum(total["files"] for total in held["totals"] if total["kind"] == "file") == 2

    assert "all is well" in run("verify", "dst").out
    assert "1 stream replaced" in run("improve", "dst", "--profile", "more.toml").out
    assert "1 tried before" in run("improve", "dst", "--profile", "more.toml").out

    restored = run("restore", "dst", "out")
    assert (restored.code, "restored 1 image, 1 other file" in restored.out) == (0, True)
    assert Path("out/photos/sub/a.jpg.png").is_file()


def test_checksums_are_read_by_sha256sum(tmp_path: Path, run: Run) -> None:
    dst = shutil.copytree(ARCHIVE, tmp_path / "dst")
    (dst / "stored/photos/notes.txt").rename(dst / "stored/photos/a\\b\nc")
    with contextlib.closing(sqlite3.connect(dst / "manifest.sqlite", isolation_level=None)) as database:
        database.execute("UPDATE files SET object = replace(object, 'notes.txt', ?)", ("a\\b\nc",))
    for options, place in (((), dst), (("--sources",), ARCHIVE.parent)):
        checksums = run("checksums", "dst", *options).out
        assert checksums.count("\n") == 3
        subprocess.run(
            ["sha256sum", "--check", "--strict"], cwd=place, input=checksums, check=True, text=True
        )


def test_checksums_without_an_output_are_one_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # what Python makes of `>&-`
    ended = run("checksums", str(ARCHIVE))
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "the standard output is closed; send the checksums to a file" in ended.err


@pytest.mark.parametrize("floor", ["nan", "inf"])
def test_a_floor_that_is_no_number_is_wrong_usage(run: Run, floor: str) -> None:
    ended = run(*CREATE, "--min-psnr", floor)
    assert (ended.code, ended.err) == (2, f"lof: --min-psnr {floor}: is no finite number; give one\n")
    assert not Path("dst").exists()
    with pytest.raises(UsageError, match="--min-ms-ssim"):
        Floors(ms_ssim=float(floor))


def test_without_a_codec_streams_are_such_as_every_cpu_reads(run: Run) -> None:
    lines = run("create", "photos", "dst", "--profile", "quick.toml", "--json").out.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["codec"] for row in rows if row.get("state") == "streamed"] == ["lapped"]
    made = run("create", "photos", "second", "--profile", "quick.toml")
    assert "this time: 1 stream written" in made.out
    assert "another kind of CPU" not in " ".join(made.out.split())


def test_json_has_one_line_for_each_file_and_a_summary(run: Run) -> None:
    lines = [json.loads(line) for line in run(*CREATE, "--json").out.splitlines()]
    assert [line.get("path", "summary") for line in lines] == [
        "photos/notes.txt",
        "photos/sub/a.jpg",
        "summary",
    ]
    assert lines[-1]["summary"]["streamed"] == 1
    checked = [json.loads(line) for line in run("verify", "dst", "--json").out.splitlines()]
    assert checked[-1]["summary"]["findings"] == []


def test_verify_exits_1_and_names_what_is_wrong(run: Run) -> None:
    run(*CREATE)
    Path("dst/stored/photos/notes.txt").write_text("w0rds")
    verdict = run("verify", "dst")
    assert verdict.code == 1
    assert "damaged    photos/notes.txt: stored/photos/notes.txt is not as it was written" in verdict.out
    assert "1 finding" in verdict.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("create", "missing", "dst"), 2, "missing: does not exist"),
        (("create", "photos", "quick.toml"), 1, "cannot be written"),
        (("create", "photos", "."), 2, "lies in the archive"),
        (("status", "photos"), 1, "holds no archive"),
        (("verify", "nowhere"), 1, "holds no archive"),
        (("restore", "photos", "out"), 1, "holds no archive"),
        (("improve", "photos"), 1, "holds no archive"),
        (("create", "photos", "dst", "--ray", "127.0.0.1:1"), 1, "no Ray head node answers"),
    ],
)
def test_every_error_is_one_line(run: Run, arguments: tuple[str, ...], code: int, message: str) -> None:
    options = ("--codec", "tiny", "--profile", "quick.toml") if arguments[0] == "create" else ()
    ended = run(*arguments, *options)
    assert ended.code == code
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("lof: ")
    assert message in ended.err


def test_improve_needs_the_originals_and_says_so(run: Run) -> None:
    run(*CREATE)
    Path("photos").rename("elsewhere")
    ended = run("improve", "dst", "--profile", "more.toml")
    assert ended.code == 0
    assert "1 without their original at hand" in ended.out
    ended = run("improve", "dst", "--profile", "more.toml", "--source", "elsewhere")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.endswith(
        "the archive has no source elsewhere, only photos; give it the name that it had\n"
    )
    Path("there").mkdir()
    Path("elsewhere").rename("there/photos")
    assert (
        "1 stream replaced" in run("improve", "dst", "--profile", "more.toml", "--source", "there/photos").out
    )


def test_a_damaged_zip_does_not_stop_the_other_sources(run: Run) -> None:
    with zipfile.ZipFile("broken.zip", "w") as made:
        made.writestr("a.txt", "words")
    whole = Path("broken.zip").read_bytes()
    at = whole.index(b"PK\x01\x02")
    Path("broken.zip").write_bytes(whole[:at] + b"XX" + whole[at + 2 :])
    ended = run("create", "photos", "broken.zip", "dst", "--codec", "tiny", "--profile", "quick.toml")
    assert ended.code == 1
    assert "this time: 1 stream written, 1 file stored as is" in ended.out
    assert "broken.zip" in ended.out + ended.err
