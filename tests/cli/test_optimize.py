"""``lof optimize``: what it prints where, its exit codes, and Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner, Result

import lof.cli.optimize
from lof.cli import app
from lof.cli.display import JobLines
from lof.errors import LofError, UsageError
from lof.files.inputs import Source
from lof.jobs import Advanced, Finished, Skipped, Started, Workers
from lof.profiles import load_profile


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_profile("short.toml", 2)


def write_profile(name: str, evaluations: int) -> None:
    Path(name).write_text(f'[[stage]]\nkind = "relax"\nevaluations = {evaluations}\n')


def save(name: str, seed: int = 0, size: tuple[int, int] = (96, 80), **options: Any) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(name, **options)


def lof_optimize(*arguments: str, profile: str = "short.toml") -> Result:
    return CliRunner().invoke(app, ["optimize", *arguments, "--codec", "tiny", "--profile", profile])


def tree() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def test_streams_reports_and_a_table_of_80_columns(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save("in/a.jpg", exif=exif)
    save(
        "in/a folder with a long name/a picture with an even longer name, Łódź 日本.png",
        seed=1,
        size=(200, 170),
    )
    Path("in/notes.txt").write_text("x")
    result = lof_optimize("in")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in Path("lof-out").glob("report.*")) == [
        "report.csv",
        "report.html",
        "report.jsonl",
    ]
    assert Path("lof-out/a.jpg.lof").is_file()
    table = result.stdout.split("\nNotes\n")[0]
    assert all(cell_len(line) <= 80 for line in table.splitlines())
    assert "a.jpg" in table
    assert "orientation 6 applied: a.jpg" in result.stdout
    assert "2 done" in result.stdout
    assert "lof-out/report.html" in result.stdout
    assert "other files left out: 1 .txt" in result.stderr
    assert result.stderr.count("at equal quality") + result.stderr.count("plain encoding kept") == 2


def test_the_report_of_a_resumed_job_shows_all_its_images_again() -> None:
    save("in/a.png")
    lof_optimize("in", "-o", "out")
    Path("out/report.html").unlink()
    result = lof_optimize("in", "-o", "out")
    assert result.exit_code == 0
    assert "0 done, 1 done before and unchanged" in result.stdout
    page = Path("out/report.html").read_text()
    assert "a.png" in page
    assert "data:image/" in page


def test_no_report_writes_none() -> None:
    save("in/a.png")
    assert lof_optimize("in", "-o", "out", "--no-report").exit_code == 0
    assert list(Path("out").glob("report.*")) == []


def test_json_gives_one_object_per_image_and_nothing_else_on_stdout() -> None:
    save("in/a.png")
    lof_optimize("in", "--no-report")
    save("in/b.png", seed=1)
    Path("in/c.png").write_text("no image")
    result = lof_optimize("in", "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert {record["source"]: record["state"] for record in records} == {
        "a.png": "skipped",
        "b.png": "done",
        "c.png": "failed",
    }
    assert result.exit_code == 1
    assert "failed in/c.png: " in result.stderr


def test_a_dry_run_says_what_would_be_done_and_writes_nothing() -> None:
    save("in/a.png")
    lof_optimize("in", "--no-report")
    save("in/b.png", seed=1, size=(300, 200))
    Path("in/c.png").write_text("no image")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save("in/deep.png")
    before = tree()
    result = lof_optimize("in", "--dry-run")
    assert tree() == before
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "1 to do, 0.1 megapixels, at most 2 gradient evaluations (2 for each image, profile short)" in text
    assert "1 done before and unchanged: skipped" in text
    assert "would fail in/c.png: " in text
    assert "2 would fail" in text
    assert "would fail in/deep.png: has more than 8 bits per channel" in text
    assert "b.png 300×200 lof-out/b.png.lof" in text

    rows = [json.loads(line) for line in lof_optimize("in", "--dry-run", "--json").stdout.splitlines()]
    assert [(row["source"], row["state"], row["evaluations"], row["width"]) for row in rows] == [
        ("a.png", "skipped", 0, 96),
        ("b.png", "todo", 2, 300),
        ("c.png", "refused", 0, None),
        ("deep.png", "refused", 0, None),
    ]


def test_a_dry_run_lists_every_file_and_passes_pipes_by() -> None:
    for number in range(45):
        save(f"in/{number:02}.png", size=(8, 8))
    os.mkfifo("in/pipe.png")
    result = lof_optimize("in", "--dry-run")
    assert all(f"{number:02}.png" in result.stdout for number in range(45))
    assert "45 to do" in result.stdout
    assert "in/pipe.png: is not a regular file" in " ".join(result.stdout.split())


def test_streams_of_other_settings_are_replaced_only_when_asked() -> None:
    save("in/a.png")
    assert lof_optimize("in").exit_code == 0
    before = Path("lof-out/a.png.lof").read_bytes()
    result = lof_optimize("in", "--seed", "1")
    assert isinstance(result.exception, UsageError)
    assert "holds streams made with other settings (1 of these images)" in str(result.exception)
    assert "--redo" in str(result.exception)
    assert Path("lof-out/a.png.lof").read_bytes() == before
    assert "made with other settings" in lof_optimize("in", "--seed", "1", "--dry-run").stdout
    assert "1 done" in lof_optimize("in", "--seed", "1", "--redo").stdout


def test_quiet_prints_errors_only_and_a_log_file_keeps_all() -> None:
    save("in/a.png")
    Path("in/b.png").write_text("no image")
    Path("in/notes.txt").write_text("x")
    result = CliRunner().invoke(
        app,
        ["--log-file", "log.txt", "optimize", "in", "--quiet", "--codec", "tiny", "--profile", "short.toml"],
    )
    assert result.exit_code == 1
    assert result.stdout == ""
    assert [line.startswith("failed in/b.png") for line in result.stderr.splitlines()] == [True]
    lines = sorted(line.split(" ", 2)[2] for line in Path("log.txt").read_text().splitlines())
    assert lines[0].startswith("a.png: ")
    assert " bpp, " in lines[0]
    assert lines[1].startswith("failed in/b.png")
    assert len(lines) == 2


def test_no_stream_is_bigger_than_the_plain_one_where_that_is_asked_for() -> None:
    save("in/a.png")
    for options, kept in (((), "search"), (("--never-bigger", "--redo"), "plain")):
        # In bf16, which some CPUs have, the search finds nothing better here.
        result = lof_optimize("in/a.png", "--lambda", "0.2", "--precision", "fp32", "--json", *options)
        assert json.loads(result.stdout)["kept"] == kept


def test_a_region_raises_the_quality_inside_and_is_in_the_reports() -> None:
    save("in/a.png")
    write_profile("longer.toml", 12)
    outcomes = []
    for options in (("--region", "0,0,48,96=8"), ("--region", "in.png"), ()):
        Image.fromarray(np.pad(np.full((80, 48), 240, np.uint8), ((0, 0), (0, 48)), constant_values=30)).save(
            "in.png"
        )
        result = lof_optimize("in", "--redo", "--json", *options, profile="longer.toml")
        outcomes.append(json.loads(result.stdout)["optimised"])
    rectangle, picture, none = outcomes
    assert rectangle["psnr_inside"] == picture["psnr_inside"] > rectangle["psnr_outside"]
    assert rectangle["psnr_inside"] > none["psnr"] > rectangle["psnr_outside"]
    assert none["psnr_inside"] is None
    assert "region: PSNR" in lof_optimize("in", "--redo", "--region", "0,0,48,96=8").stdout
    page = Path("lof-out/report.html").read_text()
    assert "inside the region, dB" in page
    assert 'alt="the region"' in page
    assert "made with other settings" in str(lof_optimize("in", "--region", "0,0,40,96=8").exception)


def test_auto_stays_with_what_it_chose_when_the_machine_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save("in/a.png")
    megapixels = 96 * 80 / 1e6

    def auto(seconds_of_fast: float, *options: str) -> Result:
        for path in tmp_path.glob("cache/lof/cost-*"):
            each = seconds_of_fast / megapixels / load_profile("fast").evaluations
            path.write_text(json.dumps({"fixed": 0, "evaluation": each, "step": 0}))
        return lof_optimize("in", "--budget", "100s", *options, profile="auto")

    auto(0, "--dry-run")  # measures
    assert not Path("lof-out").exists()
    first = auto(90)
    assert first.exit_code == 0, first.output
    assert "profile fast" in first.stderr
    quiet = auto(0.001, "--quiet")
    assert (quiet.exit_code, quiet.output) == (0, "")
    again = auto(0.001)
    assert again.exit_code == 0, again.output
    assert "profile fast with tiny: as before in lof-out" in again.stderr
    assert "1 done before and unchanged" in again.stdout
    assert "profile max" in auto(0.001, "--dry-run", "--redo").stderr
    Path("lof-out/.lof/choices.json").write_text("[1]")
    assert "made with other settings" in str(auto(0.001).exception)
    assert Path("lof-out/.lof/choices.json").read_text() == "[1]"


def test_an_image_is_done_again_where_its_own_map_has_changed() -> None:
    def done_now(*options: str) -> list[str]:
        result = lof_optimize("in", "--json", *options)
        assert result.exit_code == 0, result.output
        return [r["source"] for r in map(json.loads, result.stdout.splitlines()) if r["state"] == "done"]

    def save_map(name: str, level: int) -> None:
        Path("masks").mkdir(exist_ok=True)
        Image.new("L", (96, 80), level).save(f"masks/{name}")

    for name in ("a.png", "b.png", "c.png"):
        save(f"in/{name}")
    save_map("a.png", 200)
    save_map("b.png", 200)
    assert done_now("--region", "masks") == ["a.png", "b.png", "c.png"]
    save("in/d.png")
    save_map("d.png", 200)
    save_map("of-no-image.png", 200)
    assert done_now("--region", "masks") == ["d.png"]
    save_map("a.png", 100)
    Path("masks/b.png").unlink()
    save_map("c.png", 100)
    assert done_now("--region", "masks") == ["a.png", "b.png", "c.png"]
    assert done_now("--region", "masks") == []
    assert "made with other settings (4 of these" in str(lof_optimize("in").exception)


def test_a_folder_of_regions_has_the_paths_of_the_images() -> None:
    for name in ("in/a.png", "in/below/b.png", "in/c.png", "in/d.png"):
        save(name)
    for name, width in (("masks/a.png", 96), ("masks/below/b.png", 96), ("masks/d.png", 95)):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.tile(np.arange(width, dtype=np.uint8), (80, 1))).save(name)
    result = lof_optimize("in", "--region", "masks", "--json")
    assert result.exit_code == 1
    found = {row["source"]: row for row in map(json.loads, result.stdout.splitlines())}
    inside = {
        name: row["optimised"]["psnr_inside"] is not None for name, row in found.items() if "optimised" in row
    }
    assert inside == {"a.png": True, "below/b.png": True, "c.png": False}
    assert found["c.png"]["notes"] == ["no map of it in masks: all pixels count the same"]
    assert "is 96×80, but its map masks/d.png 95×80" in found["d.png"]["error"]
    again = lof_optimize("in/a.png", "-o", "other", "--region", "200,0,5,5=2", "--json")
    assert "is 96×80 and has no pixel in --region 200,0,5,5" in json.loads(again.stdout)["error"]


def test_a_dry_run_of_a_new_job_creates_no_folder() -> None:
    save("in/a.png")
    assert lof_optimize("in", "-o", "out", "--dry-run").exit_code == 0
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ["missing.png"],
        ["in", "--profile", "hihg"],
        ["in", "--codec", "tini"],
        ["in", "--quality", "9"],
        ["in", "--metric", "psnr"],
        ["in", "--format", "zip"],
        ["in", "--lambda", "-1"],
        ["in", "--precision", "fp8"],
        ["in", "--device", "abacus"],
        ["in", "--jobs", "0"],
        ["in", "--target-psnr", "30", "--never-bigger"],
        ["in", "--region", "1,2,3=4"],
        ["in", "--region", "/dev/null"],
        ["in", "--region", "missing.png"],
        ["in", "--region", "1,2,3,4=5", "--metric", "ms-ssim"],
        ["in", "--seed", str(10**23)],
        ["in", "--no-such-option"],
        [],
    ],
)
def test_wrong_usage_exits_with_2_and_writes_nothing(wrong: list[str]) -> None:
    save("in/a.png")
    before = tree()
    arguments = ["optimize", "--codec", "tiny", "--profile", "short.toml", *wrong]
    result = CliRunner().invoke(app, arguments)
    code = result.exception.exit_code if isinstance(result.exception, LofError) else result.exit_code
    assert code == 2
    assert {name: data for name, data in tree().items() if ".lof" not in name} == before
    assert not list(Path().rglob("*.png.lof"))


def fake_progress(evaluations: int) -> Any:
    return SimpleNamespace(evaluations=evaluations, budget=1000, gain=[-0.123])


def test_the_live_display_has_a_line_per_image_in_work_and_fits_80_columns() -> None:
    display = JobLines(30)
    display.moving = True  # as on a terminal
    display.started -= 60
    sources = [
        Source(Path(name), PurePosixPath(name)) for name in ("a.png", "long/" * 20 + "日本語.png", "c.png")
    ]
    display(Skipped(sources[2], {}))
    display.started -= 60
    display(Started(sources[2], "process 1", 1))
    figures = {"rate_change": -0.2, "baseline": {"bpp": 1.0}, "optimised": {"bpp": 0.8}, "kept": "search"}
    done = {"state": "done", "source": "c.png", "evaluations": 9, "seconds": 1.0, "notes": []}
    display(Finished(sources[2], done | figures))
    for source in sources[:2]:
        display(Started(source, "process 1", 1))
    display(Advanced(sources[0], fake_progress(500)))
    display(Advanced(sources[1], fake_progress(1000)))
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    console.print(display.render())
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 3
    assert all(cell_len(line) <= 80 for line in lines)
    assert lines[0].startswith("a.png")
    assert "500/1000" in lines[0]
    assert "−12.3 %" in lines[0]
    assert "1000/1000" in lines[1]
    assert lines[2].startswith("1 of 29 images · 1.0 per minute · mean −20.0 % · about ")
    assert lines[2].rstrip().endswith("left")


def test_while_the_last_file_is_written_no_time_is_named() -> None:
    display = JobLines(1)
    source = Source(Path("a.png"), PurePosixPath("a.png"))
    display(Started(source, "process 1", 1))
    display(Advanced(source, fake_progress(900)))
    assert display.overall(90.0)[-1] == "about 10 s left"
    display(Advanced(source, fake_progress(1000)))
    assert display.overall(100.0)[-1] == "almost done"


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_display_says_what_the_workers_do_and_stays_on_the_screen(width: int) -> None:
    display = JobLines(90)
    display.console = Console(file=io.StringIO(), width=width, height=10, force_terminal=True)
    display(Workers(starting=1, ready=60, lost=2))
    for number in range(50):
        source = Source(Path(f"{number}.png"), PurePosixPath(f"{number}.png"))
        display(Started(source, f"10.0.0.7 process {number}", 1))
        display(Advanced(source, fake_progress(500)))
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(display.render())
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) < 10
    assert all(cell_len(line) <= width for line in lines)
    assert ("10.0.0.7 process 0" in lines[0]) == (width == 120)
    assert lines[-1].strip() == ("workers: 50 at work, 10 idle, 1 starting, 2 died · 44 more in work")


def test_failures_stay_on_the_screen_in_one_line_without_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with JobLines(1) as display:
        source = Source(Path("[bold].png"), PurePosixPath("[bold].png"))
        display(Finished(source, {"state": "failed", "error": "[bold].png: " + "damaged " * 20}))
    assert f"failed [bold].png: {'damaged ' * 20}".strip() in capsys.readouterr().err


def test_the_command_starts_without_torch() -> None:
    code = "import sys, lof.cli.optimize; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.long
def test_ctrl_c_leaves_whole_files_and_the_same_command_continues() -> None:
    images = 8
    write_profile("long.toml", 20)
    for i in range(images):  # enough that some are left when the first is done
        save(f"in/{i}.png", seed=i)
    # Shells start background jobs with Ctrl-C ignored, and that is inherited.
    code = "from signal import *; signal(SIGINT, default_int_handler); import lof.cli.optimize as o; o.app()"
    command = ["optimize", "in", "--codec", "tiny", "--profile", "long.toml", "--jobs", "2", "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, start_new_session=True, text=True
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
        rest = process.stdout.read().splitlines()  # ends when no worker holds the other end any more
        assert process.wait() == 130
    finished = {first["source"], *(json.loads(line)["source"] for line in rest)}
    assert 1 <= len(finished) < images
    assert [path for path in Path("lof-out").rglob("*.tmp")] == []
    for stream in Path("lof-out").glob("*.png.lof"):
        assert lof.decode(stream.read_bytes()).pixels.shape == (80, 96, 3)

    result = lof_optimize("in", "--json", "--no-report", profile="long.toml")
    states = {record["source"]: record["state"] for record in map(json.loads, result.stdout.splitlines())}
    assert result.exit_code == 0
    assert {source for source, state in states.items() if state == "skipped"} == finished
    assert len(states) == images


def test_memory_is_a_size_and_too_little_is_one_line_about_that_image() -> None:
    save("in/a.png")
    result = lof_optimize("in", "--memory", "much")
    assert isinstance(result.exception, UsageError)
    assert str(result.exception) == "--memory 'much': is no size; give one such as 4GB or 500M"
    result = lof_optimize("in", "--memory", "10MB", "--quiet")
    assert result.exit_code == 1
    assert "in/a.png: memory of 0.01 GB: tiny needs" in result.stderr
    assert lof_optimize("in", "--memory", "2GB").exit_code == 0
