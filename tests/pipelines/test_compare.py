"""lof beside other formats: equal PSNR, the best variant, whose pictures count; the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

from lof.codecs import load_codec
from pipelines.compare import main
from pipelines.compare_report import bytes_at_equal_psnr, plot, series_of, to_markdown

POINTS = ((0.1, 28.0), (0.2, 31.0), (0.4, 34.0), (0.8, 37.0))


def rows(
    series: str, factor: float, variant: str = "", images: str = "ab", last: int = 4
) -> list[dict[str, Any]]:
    return [
        {"series": series, "variant": variant, "quality": q, "image": i, "bpp": factor * bpp, "psnr": psnr}
        for i in images
        for q, (bpp, psnr) in enumerate(POINTS[:last])
    ]


def test_bytes_are_compared_at_equal_psnr_with_the_better_variant() -> None:
    ours = [row | {"psnr": row["psnr"] - 1} for row in rows("lof", 0.5)]
    avif = [*rows("AVIF", 0.7, "4:4:4"), *rows("AVIF", 1.0, "4:2:0")]
    other, own = series_of([*avif, *ours], ["lof"])
    assert other.mean[0][0] == pytest.approx(0.07)
    found = bytes_at_equal_psnr(own, other)
    # On a straight line of 3 dB an octave, 1 dB less is 2^(1/3) times the rate.
    expected = 0.5 / 0.7 * 2 ** (1 / 3) - 1
    assert sorted(found, key=str) == [1.0, 2.0, 3.0, None]  # quality 0 is below what the other reaches
    assert list(found.values()) == pytest.approx([expected] * 4, abs=1e-6)
    assert "| lof | −10.0 % | −10.0 % | −10.0 % | −10.0 % |" in to_markdown([other, own], "", published=False)


def test_pictures_that_a_series_lacks_count_for_none() -> None:
    spoilt = [row | {"bpp": 50.0} for row in rows("lof", 1.0, images="c")]
    other, own = series_of([*rows("AVIF", 1.0), *rows("lof", 0.9), *spoilt], ["lof"])
    assert sorted(own.curves) == ["a", "b"]
    assert bytes_at_equal_psnr(own, other)[None] == pytest.approx(-0.1)


def test_the_published_curve_is_its_own_anchor() -> None:
    other, own = series_of([*rows("AVIF", 1.0), *rows("lof", 0.9)], ["lof"])
    text = to_markdown([other, own], "", published=True)
    assert "| mbt2018-mean | 0.0 % |" in text
    assert "| AVIF | " in text


def test_bd_rates_are_against_the_first_format_and_pass_over_points_that_do_not_rise() -> None:
    twice = [row | {"quality": 9} for row in rows("JPEG", 1.0) if row["quality"] == 3]
    text = to_markdown(
        series_of([*rows("JPEG", 1.0), *twice, *rows("lof", 0.9)], ["lof"]), "", published=False
    )
    assert "| BD-rate of mean curves | against JPEG |" in text
    assert "| lof | −10.0 % |\n| JPEG | 0.0 % |" in text


def test_the_chart_has_published_curves() -> None:
    other, own = series_of([*rows("AVIF", 1.0), *rows("lof", 0.9)], ["lof"])
    assert plot([other, own], published=True).startswith(b"\x89PNG")


def test_the_pipeline_measures_files_and_continues(tmp_path: Path, crop: NDArray[np.uint8]) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(crop[:64, :80]).save(tmp_path / "photos" / "a.png")
    app = Typer()
    app.command()(main)
    options = [
        str(tmp_path / "photos"),
        "-o",
        str(tmp_path / "out"),
        "--codec",
        "lapped-tiny",
        "--formats",
        "JPEG",
    ]
    stage = '[[stage]]\nkind = "greedy-flip"\nevaluations = 1\n'
    (tmp_path / "short.toml").write_text(stage)
    options += ["--qualities", "2,6", "--profiles", str(tmp_path / "short.toml")]
    first = CliRunner().invoke(app, options, catch_exceptions=False).stdout
    files = tmp_path / "out" / "files.jsonl"
    before = files.read_bytes()
    found = [json.loads(line) for line in before.splitlines()]
    assert "bytes against JPEG, progressive" in first
    own = [row for row in found if row["key"].startswith("lapped-tiny")]
    assert len(own) == 4
    assert [row["bpp"] for row in own] == [8 * row["size"] / (64 * 80) for row in own]
    assert load_codec("lapped-tiny", 2, device="cpu").fingerprint.hex()[:16] in own[0]["key"]
    assert CliRunner().invoke(app, options, catch_exceptions=False).stdout == first
    assert files.read_bytes() == before
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_a_psnr_counts_for_none() -> None:
    lossless = [row | {"psnr": "inf"} for row in rows("AVIF", 1.0, images="c")]
    other, own = series_of([*rows("AVIF", 1.0), *lossless, *rows("lof", 0.9, images="abc")], ["lof"])
    assert sorted(own.curves) == ["a", "b"]
    assert bytes_at_equal_psnr(own, other)[None] == pytest.approx(-0.1)
