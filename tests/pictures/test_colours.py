"""Grey, palettes, alpha, CMYK and profiles become RGB with a note; what 8-bit RGB cannot hold is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from picture_tools import (
    RGB,
    SRGB,
    chunk,
    grey_profile,
    profile,
    raw_png,
    raw_tiff,
    refusal,
    save,
)
from PIL import Image

from lof.errors import ImageError
from lof.pictures.reading import picture_of, read_picture


@pytest.mark.parametrize(
    ("mode", "name"), [("L", "a.png"), ("1", "a.png"), ("1", "a.tif"), ("L", "a.jpg"), ("L", "a.bmp")]
)
def test_grey_is_expanded_with_a_note(tmp_path: Path, mode: str, name: str) -> None:
    path = save(Image.fromarray(RGB).convert(mode), tmp_path / name)
    grey = np.asarray(Image.open(path).convert("L"))
    picture = read_picture(path)
    assert np.array_equal(picture.pixels, np.repeat(grey[..., None], 3, axis=2))
    assert picture.notes == ("grey expanded to RGB",)


def test_a_palette_is_expanded_with_a_note(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).quantize(16)
    picture = read_picture(save(image, tmp_path / "a.png"))
    assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert picture.notes == ("palette expanded",)


def test_opaque_alpha_is_dropped_with_a_note(tmp_path: Path) -> None:
    image = Image.fromarray(RGB)
    grey = image.convert("L")
    cases = {
        "a.png": image.convert("RGBA"),
        "a.tif": image.convert("RGBA"),
        "la.png": image.convert("LA"),
        "la.tif": image.convert("LA"),
    }
    for name, case in cases.items():
        picture = read_picture(save(case, tmp_path / name))
        expected = RGB if name.startswith("a.") else np.asarray(grey.convert("RGB"))
        assert np.array_equal(picture.pixels, expected)
        assert picture.notes[0] == "fully opaque alpha dropped"
    unused = save(image.quantize(16), tmp_path / "palette.png", transparency=200)
    assert read_picture(unused).notes == ("fully opaque alpha dropped", "palette expanded")


def test_real_transparency_is_refused(tmp_path: Path) -> None:
    image = Image.fromarray(RGB)
    veil = np.full(RGB.shape[:2], 255, np.uint8)
    veil[5, 5] = 254
    rgba = Image.fromarray(np.dstack([RGB, veil]))
    paths = [
        save(rgba, tmp_path / "rgba.png"),
        save(rgba, tmp_path / "rgba.webp", lossless=True),
        save(rgba, tmp_path / "rgba.tif"),
        save(rgba.convert("LA"), tmp_path / "la.png"),
        save(image.quantize(16), tmp_path / "palette.png", transparency=3),
        save(image.quantize(16), tmp_path / "alphas.png", transparency=bytes([255] * 7 + [9] + [255] * 8)),
        save(image, tmp_path / "key.png", transparency=tuple(int(v) for v in RGB[2, 2])),
    ]
    for path in paths:
        assert "transparent" in refusal(path)


@pytest.mark.parametrize(("key", "transparent"), [(5, True), (4, False)])
def test_the_transparent_grey_of_four_bits_is_found(tmp_path: Path, key: int, transparent: bool) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(raw_png((2, 1), 4, 0, b"\0\x51", chunk(b"tRNS", struct.pack(">H", key))))
    if transparent:
        assert "transparent" in refusal(path)
    else:
        assert read_picture(path).pixels[0, :, 0].tolist() == [85, 17]


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_per_channel_are_refused_in_png(tmp_path: Path, colour: int, channels: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(raw_png((2, 2), 16, colour, (b"\0" + b"\1\2" * channels * 2) * 2))
    assert "8 bits per channel" in refusal(path)


def test_16_bits_per_channel_are_refused_in_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(raw_tiff((16, 16, 16), 0, bytes(range(12))))
    assert "8 bits per channel" in refusal(path)
    for dtype in (np.uint16, np.int32, np.float32):
        save(Image.fromarray(np.ones((3, 3), dtype)), path)
        assert "8 bits per channel" in refusal(path)


def test_12_bits_per_channel_are_refused_in_jpeg(tmp_path: Path) -> None:
    path = save(Image.fromarray(RGB), tmp_path / "a.jpg")
    data = bytearray(path.read_bytes())
    data[data.index(b"\xff\xc0") + 4] = 12
    path.write_bytes(data)
    assert "12-bit" in refusal(path)


def test_extra_channels_of_a_tiff_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(raw_tiff((8, 8, 8), 0, bytes(range(6))))
    assert read_picture(path).pixels.tolist() == [[[0, 1, 2], [3, 4, 5]]]
    path.write_bytes(raw_tiff((8, 8, 8, 8), 1, bytes(range(8))))
    assert "extra channels" in refusal(path)


@pytest.mark.parametrize("mode", ["LAB", "HSV", "YCbCr"])
def test_other_colour_modes_are_refused(mode: str) -> None:
    with pytest.raises(ImageError, match=f"image: has the colour mode {mode}; convert"):
        picture_of(Image.new(mode, (2, 2)))


def test_cmyk_without_a_profile_is_converted_with_a_note(tmp_path: Path) -> None:
    path = save(Image.fromarray(RGB).convert("CMYK"), tmp_path / "a.jpg")
    picture = read_picture(path)
    assert np.array_equal(picture.pixels, np.asarray(Image.open(path).convert("RGB")))
    assert picture.notes == ("CMYK without a usable profile converted to RGB",)


def test_cmyk_with_a_broken_profile_is_still_converted(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).convert("CMYK")
    path = save(image, tmp_path / "a.tif", icc_profile=profile(b"CMYK"))
    picture = read_picture(path)
    assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert picture.icc is None
    assert picture.notes == ("CMYK without a usable profile converted to RGB",)


def cmyk_profile() -> bytes:
    """A valid CMYK printer profile: a 2-point table to Lab whose lightness falls with every ink alone."""
    corners = np.indices((2, 2, 2, 2)).reshape(4, -1).T
    lightness = np.where(corners.any(axis=1), 0, 255)
    table = b"".join(bytes([int(value), 128, 128]) for value in lightness)
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    lut += struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut += bytes(range(256)) * 4 + table + bytes(range(256)) * 3
    body = struct.pack(">I4sII", 1, b"A2B0", 144, len(lut)) + lut
    header = struct.pack(">I4sI4s4s4s", 128 + len(body), b"lcms", 0x02100000, b"prtr", b"CMYK", b"Lab ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + body


def test_cmyk_with_a_profile_goes_through_it_to_srgb(tmp_path: Path) -> None:
    inks = np.zeros((2, 2, 4), np.uint8)
    inks[0, 0, 1] = 255  # this profile prints pure magenta black; without it, it is magenta
    image = Image.fromarray(inks, "CMYK")
    picture = read_picture(save(image, tmp_path / "a.tif", icc_profile=cmyk_profile()))
    assert picture.pixels[0, 0].max() <= 2
    assert picture.pixels[1, 1].min() >= 253
    assert picture.icc is None
    assert picture.notes == ("CMYK converted to sRGB",)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_an_rgb_profile_is_kept_byte_for_byte(tmp_path: Path, name: str) -> None:
    assert read_picture(save(Image.fromarray(RGB), tmp_path / name, icc_profile=SRGB)).icc == SRGB


def test_a_grey_profile_is_applied_not_attached(tmp_path: Path) -> None:
    grey = Image.new("L", (4, 4), 128)
    picture = read_picture(save(grey, tmp_path / "a.png", icc_profile=grey_profile(1.0)))
    # Linear 128/255 is 188 in sRGB.
    assert np.abs(picture.pixels.astype(int) - 188).max() <= 1
    assert picture.icc is None
    assert picture.notes == ("grey expanded to RGB", "grey profile converted to sRGB")


def test_a_profile_of_another_colour_space_is_dropped_with_a_note(tmp_path: Path) -> None:
    picture = read_picture(save(Image.fromarray(RGB), tmp_path / "a.png", icc_profile=profile(b"CMYK")))
    assert picture.icc is None
    assert np.array_equal(picture.pixels, RGB)
    assert picture.notes == ("ICC profile for CMYK dropped, it does not fit RGB",)
    strange = bytearray(profile(b"RGB "))
    strange[16:20] = b"\x1b[2J"  # clears a terminal
    picture = read_picture(save(Image.fromarray(RGB), tmp_path / "a.png", icc_profile=bytes(strange)))
    assert picture.notes == ("ICC profile for 1b5b324a dropped, it does not fit RGB",)
    picture = read_picture(save(Image.fromarray(RGB), tmp_path / "a.png", icc_profile=b"no profile"))
    assert picture.notes == ("unreadable ICC profile dropped",)
