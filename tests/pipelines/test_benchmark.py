"""The benchmark: reference settings, Bjøntegaard deltas, its journal, and whole runs of the command."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from typer import Typer
from typer.testing import CliRunner

import lof
from lof.errors import OutputError, UsageError
from lof.profiles import RelaxStage, load_profile
from lof.search.schedules import value_at
from pipelines import benchmark_report as report
from pipelines import command
from pipelines.benchmark import main
from pipelines.benchmark_plots import gain_against_evaluations, rate_distortion
from pipelines.methods import Journal, code_digest, sga

METHODS = ["plain", "SGA-2000", "medium"]


@pytest.fixture
def folder(tmp_path: Path, photograph: NDArray[np.uint8]) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for index in range(3):
        Image.fromarray(photograph[index * 100 :][:96, 150:246]).save(images / f"{index}.png")
    return images


def row(image: str, method: str, quality: int, bpp: float, psnr: float, **other: Any) -> dict[str, Any]:
    optimised = {"size": 100, "bpp": bpp, "psnr": psnr, "ms_ssim": None, "cost": 1.0, "mse": 10.0}
    return {
        "image": image,
        "method": method,
        "quality": quality,
        "optimised": optimised,
        "baseline": optimised,
        "rate_change": 0.0,
        "evaluations": 0,
        "seconds": 1.0,
        "kept": "search",
    } | other


def curves(factors: dict[str, float], images: int = 2, qualities: int = 3) -> list[dict[str, Any]]:
    """Rows whose methods need ``factor`` times the rate of the plain encoding at the same PSNR."""
    return [
        row(f"{i}.png", method, q, factor * 0.1 * 2**q * (1 + i), 28 + 3 * q - i, evaluations=evaluations)
        for i in range(images)
        for q in range(qualities)
        for (method, factor), evaluations in zip(factors.items(), (0, 2000, 60), strict=True)
    ]


def test_an_image_stored_without_loss_is_left_out() -> None:
    rows = curves({"plain": 1.0, "SGA-2000": 0.9, "medium": 0.9}, images=3)
    rows[-1]["optimised"]["psnr"] = math.inf
    found = report.summarise(rows, METHODS, "SGA-2000")
    assert found is not None
    assert found.images == ["0.png", "1.png"]
    assert found.methods[2].curve_bd_rate == pytest.approx(-0.1)


def printed(table: Any) -> list[str]:
    text = io.StringIO()
    Console(width=80, file=text, highlight=False).print(table)
    return text.getvalue().splitlines()


def test_the_reference_anneals_as_its_authors_wrote_it() -> None:
    profile = sga(2000)
    (stage,) = profile.stage
    assert isinstance(stage, RelaxStage)
    assert (profile.evaluations, stage.relaxation, stage.learning_rate) == (2000, "sga", 0.005)
    for t in range(2000):
        assert value_at(stage.temperature, t / 1999) == pytest.approx(min(0.5, math.exp(-0.001 * (t - 700))))
        assert value_at(stage.decay, t / 1999) == 1


def test_a_method_that_needs_a_tenth_less_rate_has_a_bd_rate_of_minus_ten_percent() -> None:
    found = report.summarise(curves({"plain": 1, "SGA-2000": 0.8, "medium": 0.9}), METHODS, "SGA-2000")
    assert found is not None
    medium = found.methods[2]
    assert medium.bd_rate == pytest.approx(-0.1)
    assert medium.curve_bd_rate == pytest.approx(-0.1)
    assert medium.bd_psnr is not None
    assert medium.bd_psnr == pytest.approx(3 * math.log2(1 / 0.9), rel=0.05)
    assert found.to_reference(medium, found.gain) == pytest.approx(0.5)
    assert found.to_reference(medium, lambda m: m.evaluations) == pytest.approx(0.03)


def test_an_image_whose_curve_falls_is_left_out_of_the_deltas_and_the_notes_say_so() -> None:
    rows = curves({"plain": 1, "SGA-2000": 0.8, "medium": 0.9})
    rows[-1]["optimised"]["psnr"] = 20.0
    found = report.summarise(rows, METHODS, "SGA-2000")
    assert found is not None
    assert found.methods[2].bd_images == 1
    assert found.methods[2].bd_rate == pytest.approx(-0.1)
    assert "medium: BD of 1 of 2 images; the other curves do not rise." in report.notes(found)


def test_means_are_over_the_images_that_every_method_has() -> None:
    rows = curves({"plain": 1, "SGA-2000": 0.8, "medium": 0.9}, images=3)
    found = report.summarise(rows[:-1], METHODS, None)
    assert found is not None
    assert found.images == ["0.png", "1.png"]
    assert report.summarise(rows[:2], METHODS, None) is None


def test_one_rate_point_has_a_rate_change_and_says_why_there_is_no_bd_rate() -> None:
    rows = curves({"plain": 1, "SGA-2000": 0.8, "medium": 0.9}, qualities=1)
    for one in rows:
        one["rate_change"] = {"plain": 0.0, "SGA-2000": -0.2, "medium": -0.123}[one["method"]]
    found = report.summarise(rows, METHODS, "SGA-2000")
    assert found is not None
    text = "\n".join([*printed(report.summary_table(found)), *report.notes(found)])
    assert "BD-PSNR" not in text
    assert "−12.30 %" in text
    assert "One rate point: no BD-rate." in text
    assert gain_against_evaluations(found).startswith(b"\x89PNG")


def test_the_tables_fit_80_columns_with_every_cell_whole() -> None:
    rows = curves({"plain": 1, "SGA-2000": 0.8234, "medium": 0.5})
    for one in rows:
        one |= {"seconds": 1234.5 if one["method"] == "SGA-2000" else 2.5, "rate_change": -0.2222}
        one["optimised"] |= {"ms_ssim": 0.98765}
    found = report.summarise(rows, METHODS, "SGA-2000")
    assert found is not None
    lines = [*printed(report.summary_table(found)), *printed(report.points_table(found, ms_ssim=True))]
    assert max(map(len, lines)) <= 80
    assert "…" not in "\n".join(lines)
    for cell in ("SGA-2000", "−17.66 %", "1/33.3", "1/493.8", "1234", ".9877", "−22.22 %"):
        assert cell in "\n".join(lines)


def test_the_markdown_table_has_the_cells_of_the_printed_one() -> None:
    found = report.summarise(curves({"plain": 1, "SGA-2000": 0.8, "medium": 0.9}), METHODS, "SGA-2000")
    assert found is not None
    text = report.to_markdown(found, "Two images.")
    summary = next(line for line in text.splitlines() if line.startswith("| medium"))
    assert summary == "| medium | −10.00 % | −10.00 % | 0.46 | 50 % | 60 | 1/33.3 | 1.00 | 1.0 |"
    assert rate_distortion(found).startswith(b"\x89PNG")


def test_a_journal_cut_at_any_byte_keeps_its_whole_lines_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    journal = Journal(path)
    for key in ("a", "b"):
        journal.append({"key": key, "psnr": math.inf})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        again = Journal(path)
        assert list(again.rows) == ["a", "b"][: content[:length].count(b"\n")]
        again.append({"key": "c"})
        assert list(Journal(path).rows)[-1] == "c"


def test_a_whole_line_that_is_no_row_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"key": "a"}\n[1]\n')
    with pytest.raises(OutputError, match=r"results\.jsonl: line 2 is no result; remove that line"):
        Journal(path)


def run(*arguments: object) -> str:
    """What the script prints, in this process so that codecs are loaded once."""
    app = Typer()
    app.command()(main)
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_run_leaves_its_results_and_a_second_one_repeats_no_search(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = (folder, "-o", out, "--codec", "tiny", "--profiles", "fast", "--sga-steps", 5)
    first = run(*options, "--count", 2, "--crop", 64)
    assert "tiny (" in first
    assert "2 centre crops of 64×64" in first
    written = (out / "results.jsonl").read_bytes()
    rows = [json.loads(line) for line in written.splitlines()]
    assert [(r["image"], r["method"]) for r in rows] == [
        (image, method) for image in ("0.png", "2.png") for method in ("SGA-5", "fast", "plain")
    ]
    assert [r["evaluations"] for r in rows[:3]] == [5, load_profile("fast").evaluations, 0]
    assert {(r["height"], r["width"]) for r in rows} == {(64, 64)}
    for one in rows:
        assert one["optimised"]["cost"] <= one["baseline"]["cost"]
        assert one["optimised"]["bpp"] == one["optimised"]["size"] * 8 / 64**2
    assert rows[2]["optimised"] == rows[0]["baseline"] == rows[1]["baseline"]
    table = list(csv.DictReader(io.StringIO((out / "results.csv").read_text())))
    assert [float(line["bpp"]) for line in table] == [r["optimised"]["bpp"] for r in rows]
    for name in ("table.md", "bd-rate.png", "rd.png"):
        assert (out / name).stat().st_size > 0

    assert run(*options, "--count", 2, "--crop", 64) == first
    assert (out / "results.jsonl").read_bytes() == written

    (out / "results.jsonl").write_bytes(written[:-10])
    run(*options, "--count", 2, "--crop", 64)
    mended = (out / "results.jsonl").read_bytes().splitlines()
    assert mended[:-1] == written.splitlines()[:-1]
    assert json.loads(mended[-1])["method"] == "plain"

    run(*options, "--count", 2, "--crop", 48)
    assert len((out / "results.jsonl").read_bytes().splitlines()) == 12


def test_images_in_a_batch_are_measured_one_by_one(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(folder / "1.png")
    options = (folder, "--codec", "tiny", "--profiles", "fast", "--sga-steps", 0, "--batch", 3)
    run(*options, "-o", tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_bytes().splitlines()]
    sizes = {(r["image"], r["width"], r["height"]) for r in rows if r["method"] == "fast"}
    assert sizes == {("0.png", 96, 96), ("1.png", 40, 30), ("2.png", 96, 96)}


def test_the_default_codec_gains_in_bd_rate_on_a_photograph(folder: Path, tmp_path: Path) -> None:
    options = "--count", 1, "--crop", 96, "--qualities", "2,4,6", "--profiles", "fast", "--sga-steps", 0
    run(folder, "-o", tmp_path / "out", *options)
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_bytes().splitlines()]
    found = report.summarise(rows, ["plain", "fast"], None)
    assert found is not None
    assert found.qualities == [2, 4, 6]
    assert found.methods[1].bd_rate is not None
    assert found.methods[1].bd_rate < -0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profiles", "", "--sga-steps", "0"], "nothing to compare"),
        (["--profiles", "fast,fast"], "two methods of one name"),
        (["--qualities", "low"], "give numbers by commas"),
    ],
)
def test_a_wrong_option_is_one_clear_error(
    folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(folder, "-o", tmp_path / "out", "--codec", "tiny", *arguments)


def test_a_command_ends_an_error_with_one_line_and_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing"
    monkeypatch.setattr("sys.argv", ["benchmark.py", str(missing), "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stopped:
        command.run(main)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"lof: {missing}: does not exist; check the name\n"


@pytest.mark.parametrize("module", ["codecs/msp/network.py", "encoding/__init__.py", "metrics.py", "api.py"])
def test_the_digest_of_the_code_covers_every_module_that_decides_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    package = tmp_path / "lof"
    shutil.copytree(Path(lof.__file__).parent, package, ignore=shutil.ignore_patterns("data", "__pycache__"))
    monkeypatch.setattr(lof, "__file__", str(package / "__init__.py"))
    before = code_digest()
    with (package / module).open("a") as file:
        file.write("# changed\n")
    assert code_digest() != before
