"""Reports: what they say, that programs can read them, and that no file name can harm them."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import platform
import re
from collections.abc import Sequence
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

import lof
from lof.errors import OutputError
from lof.report import Crops, figures, write_reports
from lof.report.page import LOSSLESS_UP_TO, MOST_CROPS
from lof.report.table import MOST_ROWS, beside_table, summary_table

EVIL = "<script>alert(1)</script>.png"
Record = dict[str, Any]


def record(source: str = "a.png", change: float = -0.1, **other: Any) -> Record:
    """A picture of 1000×800 whose plain encoding has 50 kB and 30 dB."""
    before = {"size": 50_000, "bpp": 0.5, "mse": 65.025, "psnr": 30.0, "ms_ssim": 0.95, "cost": 1.3}
    after = before | {"size": 45_000, "bpp": 0.45, "psnr": 30.25, "cost": 1.3 + 0.5 * change}
    return {
        "source": source,
        "output": f"{source}.lof",
        "source_size": 1_000_000,
        "source_sha256": "0" * 64,
        "output_sha256": "1" * 64,
        "notes": [],
        "state": "done",
        "codec": "tiny",
        "quality": 4.0,
        "profile": "fast",
        "lambda": 0.013,
        "seed": 0,
        "kept": "search",
        "height": 800,
        "width": 1000,
        "baseline": before,
        "optimised": after,
        "rate_change": change,
        "evaluations": 20,
        "seconds": 1.5,
        "trace": [{"evaluations": 20, "stage": "relax", "cost": 1.2, "bpp": 0.4, "distortion": 60.0}],
        **other,
    }


def failure(source: str = "bad.png") -> Record:
    return {"source": source, "state": "failed", "error": f"{source}: is empty; replace it"}


def lossless(source: str = "flat.png") -> Record:
    measured = record()["optimised"] | {"mse": 0.0, "psnr": math.inf, "ms_ssim": None}
    return record(source, baseline=measured, optimised=measured, rate_change=0.0, kept="plain")


def cut(_: Record, side: int = 16) -> Crops:
    grey = np.full((side, side, 3), 100, np.uint8)
    return Crops(grey, grey + 20, grey + 10)


def write(records: Sequence[Record], folder: Path, **options: Any) -> tuple[list[Any], list[Any], str]:
    """The three reports, read back strictly."""
    paths = write_reports(records, folder, **{"title": "A job", "crops": cut} | options)
    assert [path.name for path in paths] == ["report.jsonl", "report.csv", "report.html"]
    assert sorted(folder.iterdir()) == sorted(paths)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in paths[0].read_text("ascii").splitlines()]
    with paths[1].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return lines, rows, paths[2].read_text("utf-8")


class Page(HTMLParser):
    """Tags, attributes and text, as a browser would find them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.pieces: list[str] = []
        self.images: list[str] = []
        self.plots: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "img":
            about = dict(attrs)
            (self.images if "width" in about else self.plots).append(about["src"] or "")

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)


def test_a_report_says_what_was_won(tmp_path: Path) -> None:
    records = [record("b.png", -0.2), record("a.png", -0.1, kept="plain"), failure()]
    lines, rows, html = write(records, tmp_path)
    assert lines == [records[1], records[0], records[2]]
    assert [row["source"] for row in rows] == ["a.png", "b.png", "bad.png"]
    page = Page(html)
    assert "2 pictures" in page.text
    assert "−15.0 % mean change of rate at equal quality" in page.text
    assert "−10.0 % of bytes: 100 kB plain, 90.0 kB optimised" in page.text
    assert "40 gradient evaluations" in page.text
    assert "codec tiny, quality 4 profile fast λ 0.013 seed 0" in page.text
    assert "1 picture kept the plain encoding" in page.text
    assert "bad.png bad.png: is empty; replace it" in page.text
    assert len(page.images) == 2 * 5


def test_columns_of_the_csv_name_their_units(tmp_path: Path) -> None:
    _, (row,), _ = write([record(notes=["orientation 6 applied", "palette expanded"])], tmp_path)
    assert row["baseline_bpp"] == "0.5"
    assert row["optimised_bytes"] == "45000"
    assert row["optimised_psnr_db"] == "30.25"
    assert float(row["rate_change_percent"]) == pytest.approx(-10)
    assert row["gradient_evaluations"] == "20"
    assert row["seconds"] == "1.5"
    assert row["notes"] == "orientation 6 applied; palette expanded"


def test_files_stand_beside_other_formats_of_the_same_psnr(tmp_path: Path) -> None:
    records = [
        record("a.png", against={"webp": 90_000, "avif": 30_000}),
        record("b.png", against={"webp": 60_000, "avif": None}),
        record("c.png"),
    ]
    _, rows, html = write(records, tmp_path)
    assert [row["webp_bytes_at_same_psnr"] for row in rows] == ["90000", "60000", ""]
    assert [row["avif_bytes_at_same_psnr"] for row in rows] == ["30000", "", ""]
    page = Page(html).text
    assert "webp 150 kB 90.0 kB −40.0 % avif (1 of 2 pictures) 30.0 kB 45.0 kB +50.0 %" in page
    assert "b.png 45.0 kB 60.0 kB –" in page
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(beside_table(records))
    table = [line.split() for line in console.export_text().splitlines()]
    assert table[1] == ["webp", "150", "kB", "90.0", "kB", "−40.0", "%"]


@pytest.mark.parametrize(
    "name", ["=1+1.png", "+a.png", "-a.png", "@a.png", "\t=1.png", " =1.png", "\r=1.png"]
)
def test_no_file_name_is_a_formula(tmp_path: Path, name: str) -> None:
    _, (good, bad), _ = write([record(name), failure(f"{name}x")], tmp_path)
    for row in (good, bad):
        assert row["source"][0] in "'\ufffd"
    assert good["output"][0] in "'\ufffd"
    assert good["rate_change_percent"].startswith("-")


@pytest.mark.parametrize("name", [EVIL, '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "</style><b>", "&lt;"])
def test_file_names_are_inert_on_the_page(tmp_path: Path, name: str) -> None:
    plain, attacked = (
        Page(write([record(n, notes=[n], codec=n, profile=n), failure(n + "2")], tmp_path, title=n)[2])
        for n in ("harmless", name)
    )
    assert attacked.tags == plain.tags
    assert [key for key, _ in attacked.attributes] == [key for key, _ in plain.attributes]
    assert attacked.pieces.count(name) == plain.pieces.count("harmless")


def test_names_that_are_no_text_survive(tmp_path: Path) -> None:
    name = (
        "caf\udce9\n\x1b[31m\u202e.png"  # a Latin-1 name on a UTF-8 system, a newline, colours, turned text
    )
    lines, rows, html = write([record(name), failure(name + "2")], tmp_path)
    assert lines[0]["source"] == name
    assert rows[0]["source"] == "caf\ufffd\ufffd\ufffd[31m\ufffd.png"
    assert Page(html).text.count(rows[0]["source"]) >= 3
    assert rows[0]["source"][:4] in printed([record(name)])


def test_the_page_is_one_file(tmp_path: Path) -> None:
    _, _, html = write([record(), lossless(), failure(EVIL)], tmp_path)
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert not [key for key, _ in page.attributes if key.startswith("on")]
    links = [value for key, value in page.attributes if key in ("src", "href", "srcset", "data", "action")]
    assert all(link.startswith(("data:image/", "#")) for link in links)
    assert "url(http" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html


def test_the_page_says_when_where_and_by_what_it_was_written_and_folds_failures_away(tmp_path: Path) -> None:
    _, _, html = write([record(), failure()], tmp_path)
    assert f"lof {lof.__version__}, {date.today()}, {platform.machine()} with " in html
    assert "source file 1.00 MB" in html
    assert re.search(r"<details[^>]*><summary>1 of them</summary><ul>\s*<li><b>bad.png</b>", html)


def test_infinity_and_absence_survive(tmp_path: Path) -> None:
    lines, rows, html = write([lossless(), record("other.png")], tmp_path)
    assert lines[0]["optimised"]["psnr"] == "inf"
    assert lines[0]["optimised"]["ms_ssim"] is None
    assert (rows[0]["optimised_psnr_db"], rows[0]["optimised_ms_ssim"]) == ("inf", "")
    page = Page(html)
    assert "PSNR, dB ∞ ∞ MS-SSIM – –" in page.text
    assert "1 lossless picture (PSNR ∞) not in the right plot" in page.text
    assert "∞→∞" in printed([lossless()])
    # What was written is understood again: a job that continues reads its records from JSON.
    again, _, html_again = write(lines, tmp_path)
    assert (again, html_again) == (lines, html)


@pytest.mark.parametrize("records", [[], [failure()], [failure("a"), failure("b")]])
def test_a_job_without_a_picture_has_its_reports(tmp_path: Path, records: list[Record]) -> None:
    lines, rows, html = write(records, tmp_path)
    assert len(lines) == len(rows) == len(records)
    page = Page(html)
    assert "No picture was optimised." in page.text
    assert page.text.count("is empty; replace it") == len(records)
    assert not page.plots
    assert ("1 file failed." in printed(records)) == (len(records) == 1)


def test_one_picture_alone_can_be_drawn(tmp_path: Path) -> None:
    for number, one in enumerate([record(), lossless(), record(change=0.0), record(change=-5.0)]):
        page = Page(write([one], tmp_path / str(number))[2])
        assert len(page.plots) == (1 if number == 1 else 2)
        for plot in page.plots:
            assert pixels_of(plot).std() > 1


def test_of_many_pictures_those_that_changed_most_are_shown(tmp_path: Path) -> None:
    records = [record(f"{i:03}.png", -i / 1000) for i in range(500)]
    asked: list[str] = []

    def crops(one: Record) -> Crops:
        asked.append(one["source"])
        return cut(one)

    lines, rows, html = write(records, tmp_path, crops=crops)
    assert len(lines) == len(rows) == 500
    assert asked == [f"{i:03}.png" for i in range(500 - MOST_CROPS, 500)]
    page = Page(html)
    assert f"The {MOST_CROPS} of 500 pictures whose rate changed most" in page.text
    assert "stored as JPEG" in page.text
    assert len(page.images) == 5 * MOST_CROPS
    assert all(f"{i:03}.png" in page.text for i in range(500))


def pixels_of(address: str) -> np.ndarray[Any, Any]:
    data = base64.b64decode(address.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_crops_and_error_maps_show_the_pixels(tmp_path: Path) -> None:
    random = np.random.default_rng(0).integers(0, 200, (24, 40, 3), dtype=np.uint8)
    crops = Crops(random, random + 20, random + 10)
    page = Page(write([record()], tmp_path, crops=lambda _: crops)[2])
    for address, exact in zip(page.images[:3], crops[:3], strict=True):
        assert np.array_equal(pixels_of(address), exact)
    worse, better = (pixels_of(address).astype(int) for address in page.images[3:])
    assert worse.mean() > better.mean()  # one scale for both: more error is brighter
    assert worse.std(axis=(0, 1)).max() < 3
    assert "0 32 absolute error in grey levels, the same scale for both maps" in page.text
    assert "error of the plain encoding, mean 20.00" in page.text
    assert "error of the optimised one, mean 10.00" in page.text


def test_crops_of_many_pictures_stay_close(tmp_path: Path) -> None:
    records = [record(f"{i:02}.png") for i in range(LOSSLESS_UP_TO + 1)]
    address = Page(write(records, tmp_path)[2]).images[0]
    assert address.startswith("data:image/jpeg")
    assert np.abs(pixels_of(address).astype(int) - 100).max() <= 3


def test_a_picture_without_crops_keeps_its_figures(tmp_path: Path) -> None:
    page = Page(write([record()], tmp_path, crops=lambda _: None)[2])
    assert "No crop: the picture or its output is no longer there." in page.text
    assert "PSNR, dB 30.00 30.25" in page.text
    assert page.images == []


def test_reports_that_cannot_be_written_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"report\.jsonl: cannot be written"):
        write_reports([record()], tmp_path / "file", title="", crops=cut)


def printed(records: Sequence[Record], width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(summary_table(records))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max((cell_len(line) for line in text.splitlines()), default=0) <= width
    return str(text)


def test_the_table_fits_80_columns_and_names_keep_both_ends() -> None:
    long = "holiday in the mountains/second day/IMG_20240912_1234567890-edited-final.jpeg"
    wide = record(long, -0.999, evaluations=100_000, seconds=360_000.0)
    wide["baseline"] |= {"bpp": 12.345, "psnr": 48.123}
    wide["optimised"] |= {"bpp": 11.345, "psnr": math.inf, "ms_ssim": 1.0}
    text = printed([wide, record("照片" * 30 + ".png")])
    _, row, wide_row, *_ = text.splitlines()
    assert row.startswith("holi")
    assert wide_row.startswith("照片")
    assert ".png" in wide_row
    for cell in (".jpeg", "12.35→11.35", "48.12→∞", ".9500→1.000", "−99.9 %", "100k", "100h00m"):
        assert cell in row


def test_the_table_ends_with_means_and_sums() -> None:
    small = record("b", -0.3, notes=["x"])
    small["baseline"]["ms_ssim"] = small["optimised"]["ms_ssim"] = None
    small["baseline"]["bpp"] = 1.5
    text = printed([record("a", -0.1), small, failure(), record("c", 0.0, kept="plain", state="skipped")])
    rows = [line.split() for line in text.splitlines()]
    assert rows[1][0] == "a"
    assert rows[2] == ["b", "1.500→0.450", "30.00→30.25", "–", "−30.0", "%", "20", "1.5", "s"]
    assert rows[3][4] == "plain"
    mean = ["mean,", "total", "0.833→0.450", "30.00→30.25", ".9500→.9500", "−13.3", "%", "60", "4.5", "s"]
    assert rows[4] == mean
    assert text.splitlines()[5].strip() == "1 file failed."


def test_a_long_table_shows_what_changed_most() -> None:
    text = printed([record(f"{i:03}.png", -i / 1000) for i in range(500)])
    assert "459.png" not in text
    assert all(f"{i}.png" in text for i in range(460, 500))
    assert f"{MOST_ROWS} of 500 pictures" in text


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (figures.size(999), "999 B"),
        (figures.size(4912), "4.91 kB"),
        (figures.size(999_600), "1.00 MB"),
        (figures.size(12_345_678), "12.3 MB"),
        (figures.duration(9.94), "9.9 s"),
        (figures.duration(9.96), "10 s"),
        (figures.duration(59.6), "1m00s"),
        (figures.duration(3599.7), "1h00m"),
        (figures.duration(11_100), "3h05m"),
        (figures.percent(-0.1234), "−12.3 %"),
        (figures.percent(-0.0001), "0.0 %"),
        (figures.percent(0.02), "+2.0 %"),
        (figures.short_count(99_999), "99999"),
        (figures.short_count(12_345_678), "12M"),
        (figures.similarity(0.99999), "1.000"),
        (figures.similarity(-0.01), "−.0100"),
        (figures.bits_per_pixel(9.9999), "10.00"),
        (figures.shorten("abcdefghij", 6), "ab…hij"),
        (figures.shorten("abc", 1), "…"),
    ],
)
def test_figures_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected
