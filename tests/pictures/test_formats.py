"""Formats beside the five usual ones, and what each of them would lose without a word."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from lof.errors import ImageError
from lof.files.inputs import find
from lof.pictures.reading import read_picture

RGB = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def save(path: Path, **options: object) -> Path:
    Image.fromarray(RGB).save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jp2", {}),
        ("a.j2k", {}),
        ("a.avif", {"quality": 100, "subsampling": "4:4:4"}),
        ("a.ppm", {}),
        ("a.gif", {}),
    ],
)
def test_other_formats_are_read_as_pillow_reads_them(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    path = save(tmp_path / name, **options)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(read_picture(path).pixels, expected)
    assert [source.path for source in find([str(tmp_path)]).sources] == [path]


def test_the_first_frame_of_a_gif_is_taken_with_a_note(tmp_path: Path) -> None:
    first, second = (Image.fromarray(pixels).quantize(16) for pixels in (RGB, 255 - RGB))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    picture = read_picture(tmp_path / "a.gif")
    assert np.array_equal(picture.pixels, np.asarray(first.convert("RGB")))
    assert picture.notes == ("first of 2 frames in the file taken", "palette expanded")


def test_greys_and_plain_text_of_pnm_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P2\n2 1\n15\n0 15\n")
    assert read_picture(tmp_path / "a.pgm").pixels.tolist() == [[[0] * 3, [255] * 3]]


def deep_jp2() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "JPEG2000", no_jp2=True)
    data = bytearray(buffer.getvalue())
    for component in range(3):
        data[data.index(b"\xff\x4f\xff\x51") + 42 + 3 * component] = 11  # 12 bits
    return bytes(data)


def deep_avif() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "AVIF")
    data = bytearray(buffer.getvalue())
    data[data.index(b"av1C") + 6] |= 0x40
    pixi = data.index(b"pixi") + 9
    data[pixi : pixi + 3] = bytes([10] * 3)
    return bytes(data)


@pytest.mark.parametrize(
    "content", [b"P6\n1 1\n65535\n" + bytes(6), b"P6\n1 1\n1023\n" + bytes(6), deep_jp2(), deep_avif()]
)
def test_more_than_8_bits_per_channel_are_refused(content: bytes) -> None:
    with pytest.raises(ImageError, match="a: has more than 8 bits per channel; "):
        read_picture("a", content)


def test_the_profile_of_a_jpeg_2000_is_kept_and_other_boxes_noted(tmp_path: Path) -> None:
    data = save(tmp_path / "a.jp2").read_bytes()
    colour = data.index(b"colr") - 4
    (old,) = struct.unpack_from(">I", data, colour)
    new = struct.pack(">I4sBBB", 11 + len(SRGB), b"colr", 2, 0, 0) + SRGB
    header = data.index(b"jp2h") - 4
    (length,) = struct.unpack_from(">I", data, header)
    grown = struct.pack(">I", length + len(new) - old)
    uuid = struct.pack(">I4s", 24, b"uuid") + bytes(16)
    data = (
        data[:header]
        + grown
        + data[header + 4 : colour]
        + new
        + data[colour + old : header + length]
        + (uuid + data[header + length :])
    )
    picture = read_picture("a.jp2", data)
    assert picture.icc == SRGB
    assert picture.notes == ("boxes of JPEG 2000 dropped (uuid)",)


def test_wide_colours_of_an_avif_are_noted(tmp_path: Path) -> None:
    data = bytearray(save(tmp_path / "a.avif").read_bytes())
    assert read_picture("a.avif", bytes(data)).notes == ()
    struct.pack_into(">HH", data, data.index(b"colrnclx") + 8, 12, 13)
    notes = read_picture("a.avif", bytes(data)).notes
    assert notes == ("colour description (primaries 12, transfer 13) dropped",)


HEIC = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic") + bytes(40)


def test_heic_without_its_plug_in_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"a\.heic: is HEIC, which needs the package pillow-heif; run pip"):
        read_picture("a.heic", HEIC)


def test_heic_is_read_with_its_plug_in(tmp_path: Path) -> None:
    import pillow_heif

    path = tmp_path / "a.heic"
    pillow_heif.from_pillow(Image.fromarray(RGB)).save(path, quality=-1, chroma=444, icc_profile=SRGB)
    picture = read_picture(path)
    assert np.abs(picture.pixels.astype(int) - RGB).mean() < 3
    with pytest.raises(ImageError, match=r"damaged or cut short|no readable"):
        read_picture("a.heic", HEIC)
