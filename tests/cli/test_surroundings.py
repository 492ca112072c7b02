"""What commands do where they cannot print, where their folder is gone, and where names are not UTF-8."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Run, put

from lof.cli import LOG

FULL = "lof: standard output: cannot be written (No space left on device); make room there"


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    "arguments", [["codecs"], ["codecs", "--json"], ["profiles", "fast"], ["decode", "a.lof"], ["--help"]]
)
def test_a_full_disk_below_stdout_is_one_line(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stream: bytes,
    arguments: list[str],
    buffered: bool,
) -> None:
    put(tmp_path / "a.lof", stream)
    raw = open("/dev/full", "wb", buffering=-1 if buffered else 0)  # noqa: SIM115
    with io.TextIOWrapper(raw, write_through=not buffered) as full:
        monkeypatch.setattr(sys, "stdout", full)
        outcome = run(*arguments)
    assert outcome.code == 1
    assert outcome.err.startswith(FULL)
    assert outcome.err.count("\n") == 1


def test_what_is_printed_at_the_end_of_a_process_counts_too() -> None:
    with open("/dev/full", "wb") as full:
        process = subprocess.run(
            [sys.executable, "-m", "lof", "--version"],
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert process.returncode == 1
    assert process.stderr.startswith(FULL)
    assert process.stderr.count("\n") == 1


def test_a_log_file_on_a_full_disk_is_one_warning(
    run: Run, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(LOG, "handlers", LOG.handlers)
    outcome = run("--log-file", "/dev/full", "decode", "none")
    assert outcome.code == 2
    assert outcome.err == "lof: none: does not exist; check the name\n"
    (warning,) = recwarn
    assert str(warning.message).startswith("/dev/full: cannot be written (No space left on device)")


def test_a_working_folder_that_is_gone_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    outcome = run("decode", str(tmp_path))
    assert outcome.code == 2
    assert outcome.err.startswith("lof: the working folder cannot be used (No such file or directory)")


def test_names_that_are_not_utf_8_are_refused_in_one_line() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "lof", "codecs"],
        env={**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr == "lof: file names are read as ascii here; set a UTF-8 locale, or PYTHONUTF8=1\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["decode", "a.lof", "-o", "pipe.png"], 1, "pipe.png: cannot be read (not a regular file)"),
        (["profiles", "pipe.toml"], 2, "pipe.toml: cannot be read (not a regular file)"),
        (["train", "pipe.toml", "-o", "run"], 1, "pipe.toml: cannot be read (not a regular file)"),
    ],
)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(
    run: Run, tmp_path: Path, stream: bytes, arguments: list[str], code: int, message: str
) -> None:
    put(tmp_path / "a.lof", stream)
    for name in ("pipe.png", "pipe.toml"):
        os.mkfifo(tmp_path / name)
    signal.alarm(30)  # the end of this process, where it waits for ever
    outcome = run(*arguments)
    signal.alarm(0)
    assert outcome.code == code
    assert message in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("archive", "create", "in", "s3://bucket/a"),
        ("archive", "restore", "in", "s3://bucket/a"),
        ("samples", "s3://bucket/a"),
        ("compare", "a.png", "b.png", "-o", "s3://bucket/a"),
        ("optimize", "in", "--weights", "s3://bucket/a"),
    ],
)
def test_a_url_where_a_path_belongs_is_wrong_usage(
    run: Run, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "in").mkdir()
    message = "lof: s3://bucket/a: is a URL; name a file or folder of this machine here\n"
    assert run(*arguments) == (2, "", message)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    "arguments", [("profiles", 300 * "a"), ("archive", "status", 300 * "a"), ("decode", 300 * "a")]
)
def test_a_name_that_no_file_can_have_is_one_line(run: Run, arguments: tuple[str, ...]) -> None:
    outcome = run(*arguments)
    assert outcome.code in (1, 2)
    assert outcome.err.startswith("lof: ")
    assert 300 * "a" in outcome.err
    assert outcome.err.count("\n") == 1
