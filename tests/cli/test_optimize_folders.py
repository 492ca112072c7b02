"""``lof optimize`` into folders that hold other things already, and of files with odd names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from command_line import Run, files, put
from PIL import Image

import lof.cli

_PROFILE = b'[[stage]]\nkind = "relax"\nevaluations = 2\n'


def test_files_of_others_stay_unless_forced(run: Run, tmp_path: Path) -> None:
    put(tmp_path / "short.toml", _PROFILE)
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "a.png")
    put(tmp_path / "own/report.csv", b"mine")
    call = ("optimize", "a.png", "--codec", "tiny", "--profile", "short.toml", "-o", "own", "--quiet")
    for more in ((), ("--redo",), ("--dry-run",)):
        outcome = run(*call, *more)
        assert (outcome.code, outcome.err) == (
            2,
            "lof: own/report.csv: is another file already; choose another folder with -o, or add --force\n",
        )
        assert files(tmp_path / "own") == ["report.csv"]
    assert run(*call, "--force", "--dry-run").code == 0
    assert (tmp_path / "own/report.csv").read_bytes() == b"mine"
    assert run(*call, "--force").code == 0
    assert (tmp_path / "own/report.csv").read_bytes().startswith(b"source,")
    assert run(*call).code == 0


def test_a_picture_of_the_same_name_in_another_folder_is_refused_in_a_dry_run_too(
    run: Run, tmp_path: Path
) -> None:
    put(tmp_path / "short.toml", _PROFILE)
    for folder, grey in (("holiday", 40), ("work", 200)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((16, 16, 3), grey, np.uint8)).save(tmp_path / folder / "a.png")
    options = ("--codec", "tiny", "--profile", "short.toml")
    assert run("optimize", "holiday", *options).code == 0
    before = (tmp_path / "lof-out/a.png.lof").read_bytes()
    for more, said in (("--dry-run",), "would fail"), ((), "failed"):
        outcome = run("optimize", "work", *options, *more)
        words = " ".join((outcome.out + outcome.err).split())
        assert f"{said} work/a.png: lof-out/a.png.lof was made from " in words
        assert "choose another folder with -o, or add --force to replace it" in words
        assert outcome.code == (0 if more else 1)
    assert (tmp_path / "lof-out/a.png.lof").read_bytes() == before
    assert "1 to do" in run("optimize", "work", *options, "--dry-run", "--force").out
    assert run("optimize", "work", *options, "--force").code == 0
    assert (tmp_path / "lof-out/a.png.lof").read_bytes() != before


def test_jpegs_beside_their_sources_are_skipped_by_the_same_command(run: Run, tmp_path: Path) -> None:
    put(tmp_path / "short.toml", _PROFILE)
    (tmp_path / "same").mkdir()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "same/a.jpg")
    call = ("optimize", "same", "--codec", "jpeg", "--profile", "short.toml", "-o", "same", "--no-report")
    for said in ("1 done;", "0 done, 1 done before and unchanged;"):
        outcome = run(*call)
        assert (outcome.code, outcome.err.count("lof:")) == (0, 0)
        assert said in outcome.out
        assert [name for name in files(tmp_path / "same") if not name.startswith(".")] == [
            "a.jpg",
            "a.jpg.jpg",
        ]


def test_names_of_files_do_not_become_pictures(run: Run, tmp_path: Path) -> None:
    put(tmp_path / "short.toml", _PROFILE)
    put(tmp_path / "in/photo:smile:.png", b"")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "in/scan:100:.png")
    call = ("optimize", "in", "--codec", "tiny", "--profile", "short.toml", "-o", "out:cat:")
    for more in (("--dry-run",), ()):
        outcome = run(*call, *more)
        assert "in/photo:smile:.png" in outcome.out + outcome.err
        assert "scan:100:.png" in outcome.out
        assert "out:cat:" in outcome.out
    assert "scan:100:.png" in outcome.err
    assert run("optimize", "my:dog:.png").err == "lof: my:dog:.png: does not exist; check the name\n"


def test_all_consoles_of_commands_are_made_in_one_place() -> None:
    made = [
        path.name for path in Path(lof.cli.__file__).parent.glob("*.py") if " Console(" in path.read_text()
    ]
    assert made == ["_consoles.py"]
