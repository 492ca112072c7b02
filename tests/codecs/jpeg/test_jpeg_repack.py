"""Existing JPEGs in fewer bytes: the same picture and metadata, or one clear line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import lof
from lof.codecs.jpeg import files
from lof.errors import LowMemoryError, StreamError


@pytest.fixture(scope="module")
def face(photograph: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(photograph[60:157, 160:274])


def saved(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def opened(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"subsampling": "4:2:0"}),
        ("RGB", {"subsampling": "4:2:2"}),
        ("RGB", {"subsampling": "4:4:4", "progressive": True}),
        ("RGB", {"keep_rgb": True}),
        ("RGB", {"restart_marker_blocks": 3}),
        ("L", {}),
        ("CMYK", {"quality": 90}),
    ],
)
def test_every_kind_keeps_its_pixels_in_no_more_bytes(
    face: Image.Image, mode: str, options: dict[str, object]
) -> None:
    data = saved(face.convert(mode), **options)
    packed = lof.repack(data)
    assert np.array_equal(opened(packed), opened(data))
    assert len(packed) <= len(data)
    assert lof.repack(packed) == packed


def test_coefficients_and_metadata_stay(face: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned: the pixels stay as they are stored
    extras = {"exif": exif.tobytes(), "icc_profile": bytes(36) + b"acsp" + bytes(200), "comment": b"hello"}
    data = saved(face, quality=80, dpi=(300, 300), **extras)
    packed = lof.repack(data)
    assert len(packed) < 0.95 * len(data)
    with Image.open(io.BytesIO(packed)) as image:
        assert image.getexif()[0x0112] == 6
        assert image.info["icc_profile"] == extras["icc_profile"]
        assert (image.info["comment"], image.info["dpi"]) == (b"hello", (300, 300))
    before, after = files.read(data), files.read(packed)
    assert all(map(np.array_equal, before.planes, after.planes))
    assert np.array_equal(before.tables, after.tables)


def test_what_would_lose_something_or_is_damaged_is_one_clear_error(
    face: Image.Image, tmp_path: Path
) -> None:
    import jpeglib

    whole = saved(face)
    path = tmp_path / "one.jpg"
    path.write_bytes(whole)
    jpeglib.read_dct(str(path)).write_dct(str(path), flags=["+ARITH_CODE"])
    # The libraries end their process at these two.
    empty = whole[:2] + b"\xff\xe0\x00\x02" + whole[2:]
    progressive = saved(face, progressive=True)
    scan = progressive.index(b"\xff\xda", progressive.index(b"\xff\xda") + 2)
    other_table = progressive[:scan] + b"\xff\xdb\x00\x43\x00" + bytes([9] * 64) + progressive[scan:]
    assert np.array_equal(opened(lof.repack(empty)), opened(whole))
    spoilt = {
        other_table: "is a JPEG that mozjpeg does not read",
        whole + b"film": "holds 4 bytes behind its picture",
        whole[: len(whole) // 2]: "is no JPEG, or one cut short",
        path.read_bytes(): "is a JPEG that mozjpeg does not read",
        b"\xff\xd8\xff\xd9": "no readable JPEG",
        b"\x89PNG": "is no stream",
    }
    for data, message in spoilt.items():
        with pytest.raises(StreamError, match=rf"^a\.jpg: {message}[^\n]*; [^\n]*$"):
            lof.repack(data, name="a.jpg")


def test_neither_a_file_nor_memory_ends_in_another_librarys_words(
    face: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(face)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own, far below lof's
    assert len(files.read(data).planes) == 3
    monkeypatch.setattr("lof.machine.memory.free_memory", lambda: 100_000)
    with pytest.raises(LowMemoryError, match=r"^a\.jpg: a 114×97 image needs about"):
        lof.repack(data, name="a.jpg")


def test_modules_of_the_working_folder_are_not_run(
    face: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mozjpeg_lossless_optimization.py").write_text("open('was-here', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    data = saved(face)
    assert len(lof.repack(data)) < len(data)
    assert not (tmp_path / "was-here").exists()


def test_many_bytes_of_fill_are_read_in_one_go(face: Image.Image) -> None:
    data = saved(face)
    scan = data.index(b"\xff\x00")  # a byte FF of the picture, after which fill is none
    filled = data[:-2] + b"\xff" * 300_000 + data[-2:]
    assert 0 < scan < len(data)
    assert np.array_equal(opened(lof.repack(filled)), opened(data))
    before, after = files.read(data), files.read(filled)
    assert all(map(np.array_equal, before.planes, after.planes))
