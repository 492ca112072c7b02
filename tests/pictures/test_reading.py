"""Every picture that is read holds what the file held; what cannot be kept is refused in one line."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile

from lof.errors import ImageError, LowMemoryError
from lof.pictures.reading import picture_of, read_picture, read_size

RGB = np.random.default_rng(1).integers(0, 256, (13, 17, 3), dtype=np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:240:13j, 0:255:17j], 128), axis=-1).round().astype(np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def raw_png(
    size: tuple[int, int], depth: int, colour: int, rows: bytes, extra: bytes = b"", interlaced: bool = False
) -> bytes:
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced)
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def raw_tiff(bits: tuple[int, ...], extra_samples: int, strip: bytes) -> bytes:
    """A 2×1 uncompressed little-endian RGB TIFF, byte by byte."""
    entries = [
        (256, 2),
        (257, 1),
        (259, 1),
        (262, 2),
        (273, 8),
        (277, len(bits)),
        (278, 1),
        (279, len(strip)),
    ]
    at = 8 + len(strip)
    directory = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries]
    directory.append(struct.pack("<HHII", 258, 3, len(bits), at))
    if extra_samples:
        directory.append(struct.pack("<HHIHH", 338, 3, 1, 0, 0))
    directory.sort(key=lambda entry: struct.unpack_from("<H", entry))
    samples = struct.pack(f"<{len(bits)}H", *bits)
    body = struct.pack("<H", len(directory)) + b"".join(directory) + bytes(4)
    return b"II*\0" + struct.pack("<I", at + len(samples)) + strip + samples + body


def profile(space: bytes) -> bytes:
    """A profile that is well-formed as far as its header goes."""
    return SRGB[:16] + space + SRGB[20:]


def grey_profile(gamma: float) -> bytes:
    """A valid grey ICC v2 profile with a pure gamma curve."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    tags = struct.pack(">I4sII4sII", 2, b"kTRC", 156, len(curve), b"wtpt", 156 + len(curve), len(white))
    body = tags + curve + white
    header = struct.pack(">I4sI4s4s4s", 128 + len(body), b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + body


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x010F] = "Maker"
    tags[0x0112] = orientation
    tags.get_ifd(0x8769)[0x829A] = 0.5
    tags[0x8769] = 0
    return tags


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_picture(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message
    assert "\n" not in message
    return message


def outcome(path: Path) -> np.ndarray | None:
    """The pixels, or ``None`` for one clear error; whatever else is raised fails the test."""
    try:
        return read_picture(path).pixels
    except ImageError:
        refusal(path)
        return None


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


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
    picture = read_picture(save(Image.fromarray(RGB), tmp_path / "a.png", icc_profile=b"no profile"))
    assert picture.notes == ("unreadable ICC profile dropped",)


def test_absurd_sizes_are_refused_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(raw_png((60000, 60000), 8, 2, b""))
    assert "has 60000×60000 pixels" in refusal(path)
    path.write_bytes(raw_png((65536, 1), 8, 2, bytes(3 * 65536 + 1)))
    assert "has 65536×1 pixels" in refusal(path)
    path.write_bytes(raw_png((65535, 1), 8, 2, bytes(3 * 65535 + 1)))
    assert read_picture(path).pixels.shape == (1, 65535, 3)
    path.write_bytes(raw_png((0, 1), 8, 2, b""))
    refusal(path)


def test_sizes_that_pillow_warns_of_are_read_and_its_limit_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(Image.fromarray(RGB), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    assert np.array_equal(read_picture(path).pixels, RGB)
    assert Image.MAX_IMAGE_PIXELS == 5


def test_a_truncated_file_is_refused_even_where_another_library_allowed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(Image.fromarray(RGB), tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    refusal(path)


VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "jpeg": ("RGB", {"format": "JPEG", "exif": exif(6), "icc_profile": SRGB}),
    "cmyk jpeg": ("CMYK", {"format": "JPEG"}),
    "progressive jpeg": ("RGB", {"format": "JPEG", "progressive": True}),
    "png": ("RGB", {"format": "PNG", "exif": exif(6), "icc_profile": SRGB}),
    "palette png": ("P", {"format": "PNG"}),
    "webp": ("RGB", {"format": "WEBP", "exif": exif(6), "icc_profile": SRGB}),
    "tiff": ("RGB", {"format": "TIFF", "exif": exif(6)}),
    "lzw tiff": ("RGB", {"format": "TIFF", "compression": "tiff_lzw"}),
    "bilevel tiff": ("1", {"format": "TIFF", "compression": "group4"}),
    "bmp": ("RGB", {"format": "BMP"}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_cut_or_damaged_anywhere_is_one_clear_error_or_a_picture(tmp_path: Path, variant: str) -> None:
    mode, options = VARIANTS[variant]
    path = save(Image.fromarray(RGB).convert(mode), tmp_path / "a", **options)
    data = path.read_bytes()
    whole = read_picture(path)
    outcomes = []
    for end in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:end])
        outcomes.append(outcome(path))
    assert {pixels.shape for pixels in outcomes if pixels is not None} <= {whole.pixels.shape}
    assert sum(pixels is None for pixels in outcomes) >= 30
    dice = random.Random(variant)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(damaged)
        outcome(path)


def test_what_is_no_readable_file_is_one_clear_error(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    garbage = tmp_path / "garbage.jpg"
    garbage.write_bytes(b"This is no image.\n" * 40)
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    assert "does not exist" in refusal(tmp_path / "missing.png")
    assert "is a folder" in refusal(tmp_path)
    assert "is empty" in refusal(empty)
    assert "no readable" in refusal(garbage)
    assert "regular file" in refusal(pipe)
    assert "Not a directory" in refusal(empty / "below.png")
    assert "too long" in refusal(tmp_path / ("x" * 300))
    assert "null" in refusal(tmp_path / "a\0b.png")


def test_a_file_without_read_permission_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    path = save(Image.fromarray(RGB), Path("a.png"))
    path.chmod(0)
    root = os.geteuid() == 0
    if root:  # for whom permissions do not count
        os.seteuid(65534)
    try:
        message = refusal(path)
    finally:
        if root:
            os.seteuid(0)
    assert "Permission denied" in message


def test_an_array_is_taken_and_copied() -> None:
    array = RGB.copy()
    picture = picture_of(array[:, ::-1])
    array[:] = 0
    assert np.array_equal(picture.pixels, RGB[:, ::-1])
    assert picture.pixels.flags.c_contiguous


@pytest.mark.parametrize(
    "array", [RGB[..., 0], RGB.astype(np.float32), RGB.transpose(2, 0, 1), RGB[:0], RGB[None], np.zeros(())]
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"image: .*; "):
        picture_of(array)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_a_tensor_of_8_bit_values_comes_back_exactly(dtype: torch.dtype) -> None:
    tensor = (torch.from_numpy(RGB).permute(2, 0, 1) / 255).to(dtype)
    picture = picture_of(tensor)
    assert np.array_equal(picture.pixels, RGB)
    assert picture.notes == ()


def test_a_tensor_between_8_bit_values_is_rounded_with_a_note() -> None:
    picture = picture_of(torch.full((3, 2, 2), 100.4 / 255, requires_grad=True))
    assert picture.pixels.tolist() == [[[100] * 3] * 2] * 2
    assert picture.notes == ("rounded to 8 bits per channel",)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.full((3, 2, 2), 1.01),
        torch.full((3, 2, 2), -0.01),
        torch.full((3, 2, 2), float("nan")),
        torch.zeros(1, 3, 2, 2),
        torch.zeros(3, 2, 2).to_sparse(),
        torch.empty(3, 2, 2, device="meta"),
        torch.zeros(2, 2, 3),
        torch.zeros(3, 0, 2),
        torch.zeros(3, 2, 2, dtype=torch.uint8),
        "photo.jpg",
        None,
    ],
)
def test_other_tensors_and_types_are_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(ImageError, match=r"image: .*; "):
        picture_of(tensor)


def test_a_pillow_image_follows_the_rules_of_files(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(raw_png((2, 2), 16, 2, (b"\0" + b"\1\2" * 6) * 2))
    with Image.open(path) as image, pytest.raises(ImageError, match="image: has more than 8 bits"):
        picture_of(image)
    path = save(Image.fromarray(RGB), tmp_path / "b.jpg", exif=exif(6), icc_profile=SRGB)
    from_file = read_picture(path)
    with Image.open(path) as image:
        picture = picture_of(image)
    assert np.array_equal(picture.pixels, from_file.pixels)
    assert (picture.icc, picture.exif, picture.notes) == (from_file.icc, from_file.exif, from_file.notes)


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_with_3_of_64_rows_is_refused(tmp_path: Path, interlaced: bool) -> None:
    path = tmp_path / "a.png"
    rows = bytes(64 * (1 + 3 * 64))  # interlaced ones need a few bytes more
    path.write_bytes(raw_png((64, 64), 8, 2, rows[: 3 * 193], interlaced=interlaced))
    assert "damaged or cut short" in refusal(path)
    path.write_bytes(raw_png((64, 64), 8, 2, rows + bytes(500), interlaced=interlaced))
    assert read_picture(path).pixels.shape == (64, 64, 3)


def test_small_interlaced_pngs_are_whole(tmp_path: Path) -> None:
    for width in range(1, 10):
        passes = (2 if width > 4 else 1) * 4 + width * 3 + 30
        path = tmp_path / f"{width}.png"
        path.write_bytes(raw_png((width, 1), 8, 2, bytes(passes), interlaced=True))
        assert read_picture(path).pixels.shape == (1, width, 3)


def test_more_pixels_than_asked_for_are_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(raw_png((40, 30), 8, 2, b""))  # decoding would find no rows
    with pytest.raises(ImageError, match="has 40×30 pixels, more than 65535 on a side or 1199 in all; "):
        read_picture(path, max_pixels=1199)

    def too_much(height: int, width: int) -> None:
        raise LowMemoryError(f"{height} and {width} are too much; use less")

    with pytest.raises(LowMemoryError, match=r"a\.png: 30 and 40 are too much; use less"):
        read_picture(path, fits=too_much)


SHORT_OF_MEMORY = """
import resource, sys, zlib, struct
from lof.errors import LowMemoryError
from lof.pictures.reading import read_picture
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
side = 16384
packer = zlib.compressobj()
row = bytes(1 + 3 * side)
packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
png = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
assert len(png) < 800_000
import psutil
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**30, -1))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_picture("big.png", png)
except LowMemoryError as error:
    print(error)
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "decoded first"
"""


def test_a_small_file_of_many_pixels_is_refused_undecoded_where_memory_is_short() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("big.png: a 16384×16384 image needs about 5.9 GB of memory to read and ")
    assert done.stdout.count("\n") == 1


def test_a_pipe_is_refused_and_its_size_unknown_without_opening_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    assert "regular file" in refusal(tmp_path / "x.png")
    with pytest.raises(ImageError, match=r"x\.png: "):
        read_size(tmp_path / "x.png")
    assert "regular file" in refusal(Path("/dev/zero"))
