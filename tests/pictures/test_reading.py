"""A file that can be read gives the pixels and the EXIF that it holds."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from picture_tools import (
    RGB,
    SMOOTH,
    exif,
    raw_png,
    refusal,
    save,
)
from PIL import Image

from lof.pictures.reading import read_picture


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.webp", {"lossless": True}),
        ("a.tif", {}),
        ("z.tif", {"compression": "tiff_lzw"}),
        ("a.bmp", {}),
    ],
)
def test_lossless_rgb_comes_back_as_it_is(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    picture = read_picture(save(Image.fromarray(RGB), tmp_path / name, **options))
    assert np.array_equal(picture.pixels, RGB)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    assert (picture.icc, picture.exif, picture.notes) == (None, None, ())


def test_a_jpeg_gives_the_pixels_of_its_decoder_whatever_its_suffix(tmp_path: Path) -> None:
    path = save(Image.fromarray(RGB), tmp_path / "photo.png", format="JPEG", quality=90)
    assert np.array_equal(read_picture(path).pixels, np.asarray(Image.open(path)))


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    picture = read_picture(save(Image.new("RGB", (1, 1), (1, 2, 3)), tmp_path / "dot.png"))
    assert picture.pixels.tolist() == [[[1, 2, 3]]]


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_once_and_its_tag_reset(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    options: dict[str, object] = {"lossless": True} if suffix == "webp" else {}
    plain = save(Image.fromarray(RGB), tmp_path / f"plain.{suffix}", **options)
    turned = save(Image.fromarray(RGB), tmp_path / f"a.{suffix}", exif=exif(orientation), **options)
    picture = read_picture(turned)
    assert np.array_equal(picture.pixels, TURNS[orientation](read_picture(plain).pixels))
    assert picture.notes == (() if orientation == 1 else (f"orientation {orientation} applied",))
    tags = Image.Exif()
    assert picture.exif is not None
    tags.load(picture.exif)
    assert tags.get(0x0112, 1) == 1
    assert tags[0x010F] == "Maker"
    assert tags.get_ifd(0x8769)[0x829A] == 0.5


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_keeps_every_other_byte(tmp_path: Path, order: str) -> None:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, 6, 0)
    block = mark + struct.pack(order + "IH", 8, 1) + entry + bytes(4) + b"maker note with offsets"
    picture = read_picture(save(Image.fromarray(RGB), tmp_path / "a.jpg", exif=b"Exif\0\0" + block))
    assert picture.exif == block.replace(entry, struct.pack(order + "HHIHH", 0x0112, 3, 1, 1, 0))
    assert picture.pixels.shape == (17, 13, 3)


@pytest.mark.parametrize("block", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0II"])
def test_damaged_exif_does_not_cost_the_image(tmp_path: Path, block: bytes) -> None:
    picture = read_picture(save(Image.fromarray(RGB), tmp_path / "a.png", exif=block))
    assert np.array_equal(picture.pixels, RGB)
    assert picture.exif is None
    assert picture.notes == ("unreadable EXIF dropped",)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.webp"])
def test_several_frames_or_pages_are_refused(tmp_path: Path, name: str) -> None:
    pages = [Image.fromarray(255 - RGB)]
    assert "several" in refusal(
        save(Image.fromarray(RGB), tmp_path / name, save_all=True, append_images=pages)
    )


def test_a_multi_picture_jpeg_gives_its_first_picture(tmp_path: Path) -> None:
    first = save(Image.fromarray(SMOOTH), tmp_path / "first.jpg")
    other = [Image.fromarray(255 - SMOOTH)]
    both = save(
        Image.fromarray(SMOOTH), tmp_path / "both.jpg", format="MPO", save_all=True, append_images=other
    )
    picture = read_picture(both)
    assert np.array_equal(picture.pixels, read_picture(first).pixels)
    assert picture.notes == ("first of 2 pictures in the file taken",)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    assert "JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000, AVIF or PNM" in refusal(
        save(Image.fromarray(RGB), tmp_path / "a.png", format="TGA")
    )


def test_small_interlaced_pngs_are_whole(tmp_path: Path) -> None:
    for width in range(1, 10):
        passes = (2 if width > 4 else 1) * 4 + width * 3 + 30
        path = tmp_path / f"{width}.png"
        path.write_bytes(raw_png((width, 1), 8, 2, bytes(passes), interlaced=True))
        assert read_picture(path).pixels.shape == (1, width, 3)


def test_heic_is_read_upright_with_a_note_and_transparency_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    image, tags = Image.fromarray(np.full((50, 40, 3), (200, 90, 20), np.uint8)), Image.Exif()
    tags[0x0112] = 6
    image.save(tmp_path / "a.heic", quality=95, exif=tags.tobytes())
    found = read_picture(tmp_path / "a.heic")
    assert (found.pixels.shape, found.notes) == ((40, 50, 3), ("orientation 6 applied",))
    image.putalpha(90)
    image.save(tmp_path / "b.heic")
    assert "is transparent" in refusal(tmp_path / "b.heic")
