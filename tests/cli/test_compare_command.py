"""``lof compare``: what is measured, what is refused in one line, and that the page works in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from rich.cells import cell_len
from typer.testing import CliRunner, Result

import lof
from lof.cli import app, compare  # noqa: F401
from lof.errors import OutputError, StreamError, UsageError
from lof.metrics import ms_ssim, mse, psnr
from lof.pictures.refusing import load_jxl
from lof.report import comparison

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(autouse=True)
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crop: NDArray[np.uint8]) -> Image.Image:
    """``photo.png`` and ``photo.jpg`` in an empty folder, the working directory."""
    monkeypatch.chdir(tmp_path)
    image = Image.fromarray(crop[:100, :90])
    image.save("photo.png")
    image.save("photo.jpg", quality=60)
    return image


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["compare", *arguments])


def pixels(name: str) -> NDArray[np.uint8]:
    with Image.open(name) as image:
        return np.asarray(image.convert("RGB"))


def shown(page: str) -> list[NDArray[np.uint8]]:
    """The pictures on the page, without the maps."""
    data = [base64.b64decode(text) for text in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    return [np.asarray(Image.open(io.BytesIO(one))) for one in data]


def test_a_jpeg_with_descriptors_is_measured_as_lof_shows_it(photo: Image.Image) -> None:
    data = lof.encode(photo, codec="jpeg-descriptors-tiny")
    Path("steered.jpg").write_bytes(data)
    at = data.index(b"lof\0") + 30
    Path("broken.jpg").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    result = run("photo.png", "steered.jpg", "broken.jpg", "--json", "--no-page")
    steered, broken = map(json.loads, result.stdout.splitlines())
    decoded = lof.decode(data).pixels
    assert not np.array_equal(decoded, pixels("steered.jpg"))
    assert steered["psnr"] == psnr(mse(np.asarray(photo), decoded))
    assert steered["notes"] == ["as lof shows it; other programs show the plain JPEG"]
    assert broken["psnr"] == psnr(mse(np.asarray(photo), pixels("broken.jpg")))
    assert broken["notes"] == ["what lof added to this JPEG is damaged; this is the plain picture"]


def test_files_of_every_kind_are_measured_as_they_decode(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.transpose(Image.Transpose.ROTATE_90).save("turned.webp", lossless=True, exif=exif)
    Path("photo.lof").write_bytes(lof.encode(photo, codec="tiny"))
    photo.save("photo.tga")
    result = run("photo.png", "photo.jpg", "photo.lof", "turned.webp", "photo.tga", "--json")
    assert result.exit_code == 0, result.output
    found = {row["file"]: row for row in map(json.loads, result.stdout.splitlines())}
    for name, decoded in (
        ("photo.jpg", pixels("photo.jpg")),
        ("photo.lof", lof.decode(Path("photo.lof").read_bytes()).pixels),
    ):
        size = Path(name).stat().st_size
        assert found[name]["size"] == size
        assert found[name]["bpp"] == 8 * size / 9000
        assert found[name]["psnr"] == psnr(mse(np.asarray(photo), decoded))
        assert found[name]["ms_ssim"] == ms_ssim(np.asarray(photo), decoded)
    assert [found[name]["psnr"] for name in ("turned.webp", "photo.tga")] == ["inf", "inf"]
    assert found["turned.webp"]["notes"] == ["orientation 6 applied"]
    page = Path("compare.html").read_text()
    assert np.array_equal(shown(page)[0], np.asarray(photo))
    assert np.array_equal(shown(page)[1], pixels("photo.jpg"))


def test_what_cannot_be_compared_is_one_line_each_and_the_rest_is_shown(photo: Image.Image) -> None:
    photo.resize((50, 40)).save("small.png")
    half = photo.convert("RGBA")
    half.putalpha(100)
    half.save("half.png")
    Image.fromarray(np.full((100, 90), 40000, np.uint16)).save("deep.png")
    Path("cut.jpg").write_bytes(Path("photo.jpg").read_bytes()[:700])
    Path("cut.lof").write_bytes(lof.encode(photo, codec="tiny")[:-9])
    photo.convert("L").save("grey.png")
    result = run(
        "photo.png", "small.png", "half.png", "deep.png", "cut.jpg", "cut.lof", "none.jpg", ".", "grey.png"
    )
    assert result.exit_code == 1
    failures = [
        "small.png: has 50×40 pixels, the original 90×100",
        "half.png: is transparent",
        "deep.png: has more than 8 bits",
        "cut.jpg: damaged or cut short",
        "cut.lof: is damaged or cut short",
        "none.jpg: does not exist",
        ".: is a folder",
    ]
    lines = result.stderr.splitlines()
    assert [
        line.removeprefix("failed ")[: len(text)] for line, text in zip(lines, failures, strict=True)
    ] == failures
    assert "grey.png: grey expanded to RGB" in result.stdout
    assert len(shown(Path("compare.html").read_text())) == 2
    before = Path("compare.html").read_bytes()
    assert run("photo.png", "small.png").exit_code == 1  # nothing is left to show
    assert Path("compare.html").read_bytes() == before


def test_a_profile_of_another_kind_is_said_and_travels_to_the_page(photo: Image.Image) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo.save("tagged.png", icc_profile=profile)
    result = run("tagged.png", "photo.jpg")
    assert "photo.jpg: ICC profile differs from the original's, not applied" in result.stdout
    data = re.findall(r"data:image/png;base64,([^\"]+)", Path("compare.html").read_text())[0]
    assert Image.open(io.BytesIO(base64.b64decode(data))).info["icc_profile"] == profile


def test_no_picture_is_overwritten_and_no_half_page_left() -> None:
    before = {path: path.read_bytes() for path in Path().iterdir()}
    Path("folder").mkdir()
    for out, error in (("photo.jpg", UsageError), ("folder", OutputError)):
        assert isinstance(run("photo.png", "photo.jpg", "-o", out).exception, error)
    assert not list(Path("folder").iterdir())
    assert run("photo.png", "photo.jpg", "--no-page", "--quiet").stdout == ""
    assert isinstance(run("none.png", "photo.jpg").exception, StreamError)
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


def test_hostile_names_are_shown_and_do_nothing(photo: Image.Image) -> None:
    names = ["<script>alert(1)<\u2044script>.png", "[red]a.png", "bad\udcff\udcfe.png", f"long{'x' * 90}.png"]
    for name in names:
        photo.save(name)
    result = run("photo.png", *names)
    assert result.exit_code == 0
    table = result.stdout.split("\n\n")[0]
    assert all(cell_len(line) <= 80 for line in table.splitlines())
    assert "[red]a.png" in table
    page = Path("compare.html").read_text("utf-8")
    assert page.count("<script>") == 1
    assert "bad\ufffd\ufffd.png" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)|url\(|https?:", page)


def test_large_pictures_are_cut_where_the_errors_are(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "MOST_PIXELS", 2 * 32 * 32)
    spoilt = np.array(photo)
    spoilt[64:80, 32:48] ^= 128
    Image.fromarray(spoilt).save("spoilt.png")
    assert run("photo.png", "spoilt.png").exit_code == 0
    page = Path("compare.html").read_text()
    original, other = shown(page)
    assert original.shape == (32, 32, 3)
    assert (original != other).any(2).sum() == 16 * 16
    assert "this page shows the same 32 × 32 pixels of each" in page


def test_jpeg_xl_is_turned_once_whatever_its_exif_says(photo: Image.Image) -> None:
    pytest.importorskip("pillow_jxl")
    load_jxl()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.transpose(Image.Transpose.ROTATE_90).save("turned.jpg", quality=95, exif=exif)
    with Image.open("turned.jpg") as jpeg:
        jpeg.save("of-jpeg.jxl", lossless_jpeg=True)  # the JPEG's orientation holds
    photo.save(
        "upright.jxl", quality=90, exif=exif.tobytes()
    )  # JPEG XL has one of its own, which its decoder has applied
    result = run("photo.png", "turned.jpg", "of-jpeg.jxl", "upright.jxl", "--json", "--no-page")
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert rows[0]["psnr"] == rows[1]["psnr"] > 35
    assert rows[2]["psnr"] > 35


def test_a_picture_of_one_pixel_can_be_compared() -> None:
    for name in ("one.png", "one.webp"):
        Image.new("RGB", (1, 1), (200, 10, 30)).save(name)
    result = run("one.png", "one.webp")
    assert result.exit_code == 0
    assert [array.shape for array in shown(Path("compare.html").read_text())] == [(1, 1, 3)] * 2


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_slider_works_in_a_browser_that_runs_nothing_else_on_the_page(tmp_path: Path) -> None:
    run("photo.png", "photo.jpg")
    assert BROWSER is not None
    quiet = "--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        *quiet.split(),
        f"--user-data-dir={tmp_path / 'b'}",
    ]
    page = Path("compare.html").read_text()
    Path("compare.html").write_text(page.replace("</h1>", "</h1><script>document.title='run'</script>"))
    done = subprocess.run(
        [*command, "--dump-dom", (tmp_path / "compare.html").as_uri()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "clip-path: inset(0px 50% 0px 0px)" in done.stdout, done.stderr[-500:]
    assert re.search(r'id="viewer">', done.stdout)  # it is hidden until its script has run
    assert "<title>photo.png</title>" in done.stdout
