"""Arrays, tensors and Pillow images are taken as they are, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from picture_tools import (
    RGB,
    SRGB,
    exif,
    raw_png,
    save,
)
from PIL import Image

from lof.errors import ImageError
from lof.pictures.picture import Picture
from lof.pictures.reading import picture_of, read_picture


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


def test_a_picture_that_is_as_it_should_be_takes_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lof.machine.memory.free_memory", lambda: 0)
    whole = Picture(RGB.copy())
    assert picture_of(whole) is whole


def test_a_picture_is_looked_at_like_an_array() -> None:
    boxes = {b"iccp": b"profile"}
    whole = Picture(RGB.copy(), boxes)
    assert picture_of(whole) is whole
    turned = picture_of(Picture(RGB[::-1], boxes))
    assert turned.pixels.flags.c_contiguous
    assert np.array_equal(turned.pixels, RGB[::-1])
    assert turned.boxes == boxes
    for pixels in (RGB / np.float32(255), RGB[..., 0], RGB[:0]):
        with pytest.raises(ImageError, match=r"^image: .*; "):
            picture_of(Picture(pixels))
