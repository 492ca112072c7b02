"""Damaged, cut, absurd and unreadable files are refused in one line, before they take memory."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from picture_tools import (
    RGB,
    SRGB,
    exif,
    outcome,
    raw_png,
    refusal,
    save,
)
from PIL import Image, ImageFile

from lof.errors import ImageError, LowMemoryError
from lof.pictures.reading import read_picture, read_size


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


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_with_3_of_64_rows_is_refused(tmp_path: Path, interlaced: bool) -> None:
    path = tmp_path / "a.png"
    rows = bytes(64 * (1 + 3 * 64))  # interlaced ones need a few bytes more
    path.write_bytes(raw_png((64, 64), 8, 2, rows[: 3 * 193], interlaced=interlaced))
    assert "damaged or cut short" in refusal(path)
    path.write_bytes(raw_png((64, 64), 8, 2, rows + bytes(500), interlaced=interlaced))
    assert read_picture(path).pixels.shape == (64, 64, 3)


def test_bytes_behind_the_end_of_a_png_are_not_gone_through(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(raw_png((64, 64), 8, 2, bytes(64 * 193)))
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # sparse: as chunks it would take days
    assert read_picture(path).pixels.shape == (64, 64, 3)


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
