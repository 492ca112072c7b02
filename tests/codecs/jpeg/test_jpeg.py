"""JPEG as a codec: libjpeg's own files at first, smaller ones after the search, and every program reads them."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile

import lof
from lof import load_codec
from lof.codecs import hard_rounding
from lof.codecs.jpeg import files
from lof.codecs.jpeg.search import LARGEST_LEVEL, PLANES, about
from lof.containers import container, unpack
from lof.errors import ImageError, StreamError, UnknownCodecError
from lof.pictures.picture import Picture
from lof.pictures.reading import picture_of
from lof.profiles import load_profile, parse_profile
from lof.results import Pixels

READ_ALONE = """
import hashlib, sys
from PIL import Image
with Image.open(sys.argv[1]) as image:
    print(image.format, image.size, hashlib.sha256(image.convert("RGB").tobytes()).hexdigest())
assert not any(name == "lof" or name.startswith("lof.") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def face(photograph: NDArray[np.uint8]) -> Pixels:
    return np.ascontiguousarray(photograph[60:157, 160:274])


def saved(pixels: Pixels, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def pixels_of(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("quality", [5, 75, 100])
def test_the_plain_encoding_is_libjpeg_turbos_own_and_never_larger(face: Pixels, quality: int) -> None:
    plain = lof.encode(face, codec="jpeg", quality=quality)
    theirs = saved(face, quality=quality, optimize=True, progressive=True)
    assert np.array_equal(pixels_of(plain), pixels_of(theirs))
    assert len(plain) <= len(theirs)


def test_a_searched_file_is_much_smaller_at_equal_cost_and_pillow_alone_reads_it(
    face: Pixels, tmp_path: Path
) -> None:
    result = lof.optimize(face, codec="jpeg", quality=75, profile="fast")
    assert result.kept == "search"
    assert result.optimised.cost < 0.85 * result.baseline.cost
    path = tmp_path / "face.jpg"
    path.write_bytes(result.data)
    done = subprocess.run(
        [sys.executable, "-c", READ_ALONE, str(path)], capture_output=True, text=True, check=True
    )
    digest = hashlib.sha256(result.pixels.tobytes()).hexdigest()
    assert done.stdout.split() == ["JPEG", "(114,", "97)", digest]
    assert np.array_equal(lof.decode(result.data).pixels, result.pixels)


def test_no_file_of_libjpeg_turbo_has_a_lower_cost(face: Pixels) -> None:
    result = lof.optimize(face, codec="jpeg", quality=90, profile="fast")
    for quality in (70, 80, 85, 90, 95):
        for subsampling in (0, 1, 2):
            theirs = saved(face, quality=quality, subsampling=subsampling, optimize=True, progressive=True)
            error = np.square(pixels_of(theirs).astype(float) - face).mean()
            cost = 8 * len(theirs) / (face.size / 3) + result.lmbda * error
            assert result.optimised.cost < cost


def test_the_same_picture_gives_the_same_bytes_whatever_it_is_searched_with(face: Pixels) -> None:
    alone = lof.optimize(face, codec="jpeg", profile="fast").data
    flipped = np.ascontiguousarray(face[::-1])
    both = lof.api.optimize_batch([face, flipped], load_codec("jpeg"), "fast")
    assert [both[0].data, len(both)] == [alone, 2]


@pytest.mark.parametrize("sampling", files.Sampling)
@pytest.mark.parametrize("size", [(97, 114), (96, 112), (90, 101)])
def test_the_differentiable_decoder_is_libjpeg_turbos(
    face: Pixels, size: tuple[int, int], sampling: files.Sampling
) -> None:
    height, width = size
    codec = load_codec("jpeg", 90).for_size(height, width)
    image = torch.tensor(face[:height, :width]).permute(2, 0, 1)[None].float() / 255
    latents = codec.analyse(codec.pad(image)) | {"halved": torch.full((1, 1, 1, 1), float(sampling))}
    values = {name: c.value for name, c in codec.code(latents, hard_rounding).items()}
    there, here = (
        codec.crop(codec.synthesise(values, exact=exact), height, width).clamp(0, 1)
        for exact in (True, False)
    )
    difference = 255 * (there - here).abs()
    # Each of its stages rounds to whole levels.
    assert float(difference.max()) < 5
    assert float(difference.mean()) < 0.55


def test_a_region_moves_bits_to_where_it_is(face: Pixels) -> None:
    region = np.ones(face.shape[:2])
    region[:, 57:] = 10
    plain, favoured = (
        lof.optimize(face, codec="jpeg", quality=50, profile="fast", region=which) for which in (None, region)
    )

    def right(pixels: Pixels) -> float:
        return float(np.square(pixels[:, 60:].astype(float) - face[:, 60:]).mean())

    assert right(favoured.pixels) < 0.75 * right(plain.pixels)


def test_a_search_for_ms_ssim_has_fewer_bytes_and_more_of_it(photograph: NDArray[np.uint8]) -> None:
    picture = np.ascontiguousarray(photograph[:168, :168])
    one, other = (
        lof.optimize(picture, codec="jpeg", quality=60, metric=metric, profile="fast")
        for metric in ("ms-ssim", "mse")
    )

    def cost(result: lof.Result) -> float:
        return result.optimised.bpp + one.lmbda * (1 - (result.optimised.ms_ssim or 0))

    assert one.optimised.size < one.baseline.size
    assert (one.optimised.ms_ssim or 0) > (one.baseline.ms_ssim or 1)
    assert cost(one) < 0.9 * cost(other)


@pytest.mark.parametrize("name", ["jpeg", "jpeg-descriptors"])
def test_a_picture_without_errors_stays_as_it_is(name: str) -> None:
    white = np.full((176, 176, 3), 255, np.uint8)
    found = lof.optimize(white, codec=name, quality=75, metric="ms-ssim", profile="fast")
    assert np.array_equal(found.pixels, white)
    assert found.optimised.size <= found.baseline.size


def test_stages_of_the_engine_run_on_it_and_lose_nothing(face: Pixels) -> None:
    profile = parse_profile({"name": "engine", "stage": [{"kind": "greedy-flip", "evaluations": 3}]})
    result = lof.optimize(face[:48, :48], codec="jpeg", quality=50, profile=profile)
    assert result.optimised.cost <= result.baseline.cost
    assert result.evaluations == 3


def test_mean_field_stages_give_way_to_the_codecs_own_search() -> None:
    codec = load_codec("jpeg")
    assert [stage.kind for stage in codec.plan(load_profile("max")).stage] == [
        "own",
        "greedy-gradient",
        "greedy-flip",
    ]
    assert codec.plan(load_profile("fast")).evaluations < codec.plan(load_profile("medium")).evaluations


def test_qualities_are_libjpegs() -> None:
    assert load_codec("jpeg", 1).lmbda < load_codec("jpeg", 50).lmbda < load_codec("jpeg", 100).lmbda
    for quality in (0, 101, 50.5):
        with pytest.raises(
            UnknownCodecError, match=rf"^codec jpeg: no quality {quality:g}; it has 1 to 100$"
        ):
            load_codec("jpeg", quality)


def test_metadata_stand_where_other_programs_look_for_them(face: Pixels) -> None:
    with Image.new("RGB", (1, 1)) as dot:
        exif = dot.getexif()
        exif[0x010F] = "Camera"
    boxes = {b"exif": exif.tobytes()[6:], b"xmpd": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"}
    data = lof.encode(Picture(face, boxes), codec="jpeg")
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif()[0x010F] == "Camera"
        assert image.info["xmp"] == boxes[b"xmpd"]
    assert lof.decode(data).boxes == boxes


def test_coefficients_other_than_those_written_are_no_picture(face: Pixels) -> None:
    data = lof.encode(face, codec="jpeg")
    for place in range(data.rindex(b"\xff\xda") + 20, len(data) - 2, len(data) // 40):
        flipped = bytearray(data)
        flipped[place] ^= 4
        with pytest.raises(StreamError, match=r"(damaged|cut short|cannot be read)"):
            lof.decode(bytes(flipped))
    other = Image.open(io.BytesIO(data))  # whoever saves it anew without the comment has made another file
    assert lof.decode(saved(np.asarray(other))).pixels.shape == face.shape


def test_a_jpeg_of_another_program_is_decoded_too(face: Pixels) -> None:
    theirs = saved(face, quality=60)
    assert unpack(theirs).quality == 60
    assert np.array_equal(lof.decode(theirs).pixels, pixels_of(theirs))


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"subsampling": "4:2:0"}),
        ("RGB", {"subsampling": "4:2:2", "progressive": True}),
        ("RGB", {"subsampling": "4:4:4", "restart_marker_blocks": 2}),
        ("L", {}),
    ],
)
def test_a_jpeg_is_searched_from_its_own_coefficients(
    face: Pixels, mode: str, options: dict[str, object]
) -> None:
    file = io.BytesIO()
    Image.fromarray(face).convert(mode).save(file, "JPEG", quality=75, **options)
    source = picture_of(Image.open(file))
    before = files.read(file.getvalue())
    result = lof.optimize(source, codec="jpeg", quality=95, profile="fast")
    assert "from its own coefficients" in result.note
    found = files.read(result.data)
    assert found.sampling == before.sampling
    assert not (found.tables % before.tables).any()
    anew = lof.optimize(replace(source, source=None), codec="jpeg", quality=95, profile="fast")
    assert result.optimised.cost < 0.98 * anew.optimised.cost


def test_where_errors_cost_much_a_jpeg_keeps_all_that_it_says(face: Pixels) -> None:
    data = saved(face, quality=60)
    result = lof.optimize(picture_of(Image.open(io.BytesIO(data))), codec="jpeg", lmbda=100.0)
    assert result.optimised.mse == 0
    assert len(result.data) < len(data)
    read = files.read(result.data)
    assert all(map(np.array_equal, read.planes, files.read(data).planes))


def test_a_grey_picture_is_a_file_with_one_plane_unless_its_profile_is_for_rgb(face: Pixels) -> None:
    grey = np.repeat(face[..., :1], 3, 2)
    result = lof.optimize(grey, codec="jpeg", quality=90, profile="fast")
    assert result.kept == "search"
    with Image.open(io.BytesIO(result.data)) as image:
        assert image.mode == "L"
    assert np.array_equal(lof.decode(result.data).pixels, result.pixels)
    profile = bytes(16) + b"RGB " + bytes(16) + b"acsp" + bytes(100)
    with Image.open(io.BytesIO(lof.encode(Picture(grey, {b"iccp": profile}), codec="jpeg"))) as image:
        assert (image.mode, image.info["icc_profile"]) == ("RGB", profile)


def rgb_by_adobe_alone(face: Pixels) -> bytes:
    """Its components are numbered as those of YCbCr."""
    data = bytearray(saved(face, keep_rgb=True, subsampling=0))
    frame, scan = data.find(b"\xff\xc0"), data.find(b"\xff\xda")
    for number, (in_frame, in_scan) in enumerate(((10, 5), (13, 7), (16, 9)), start=1):
        data[frame + in_frame] = data[scan + in_scan] = number
    assert np.abs(pixels_of(bytes(data)).astype(int) - face).mean() < 10
    return bytes(data)


def strange(face: Pixels) -> dict[str, bytes]:
    """JPEGs that the codec does not write."""
    cmyk = io.BytesIO()
    Image.fromarray(face).convert("CMYK").save(cmyk, "JPEG")
    whole = saved(face, quality=75)
    return {
        "cmyk": cmyk.getvalue(),
        "RGB": saved(face, keep_rgb=True),
        "RGB by Adobe's segment alone": rgb_by_adobe_alone(face),
        "short": whole[: len(whole) // 2],
        "head": whole[:300],
        "two bytes": whole[:3],
    }


@pytest.mark.parametrize("kind", [*strange(np.zeros((8, 8, 3), np.uint8))])
def test_a_jpeg_that_it_cannot_hold_is_one_clear_error(face: Pixels, kind: str) -> None:
    with pytest.raises(StreamError, match=r"^photo\.jpg: .+; .+$") as caught:
        lof.decode(strange(face)[kind], name="photo.jpg")
    assert "\n" not in str(caught.value)


def test_rgb_without_letters_is_coded_anew_from_its_pixels(face: Pixels) -> None:
    source = picture_of(Image.open(io.BytesIO(rgb_by_adobe_alone(face))))
    result = lof.optimize(source, codec="jpeg", quality=90, profile="fast")
    assert "coded anew from its pixels" in result.note
    assert np.abs(lof.decode(result.data).pixels.astype(int) - face).mean() < 10


def test_bytes_that_fill_are_no_damage(face: Pixels) -> None:
    data = saved(face, quality=75)
    filled = data[:2] + b"\xff\xff" + data[2:]
    assert np.array_equal(lof.decode(filled).pixels, pixels_of(data))


def test_a_jpeg_of_another_size_than_stated_is_refused_before_it_is_decoded(
    face: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = unpack(lof.encode(face, codec="jpeg"))
    large = io.BytesIO()
    Image.new("L", (4000, 3000)).save(large, "JPEG")
    lying = container("lof").pack(
        replace(stream, strings=(large.getvalue(),), fingerprint=load_codec("jpeg").fingerprint[:4])
    )

    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    with pytest.raises(StreamError, match=r"^bomb: .*has 4000×3000 pixels, not 114×97; "):
        lof.decode(lying, name="bomb")


def test_a_side_that_no_jpeg_has_is_one_clear_error() -> None:
    with pytest.raises(ImageError, match=r"has 65501×1 pixels, and a JPEG at most 65500 on a side; cut"):
        lof.encode(np.zeros((1, 65501, 3), np.uint8), codec="jpeg")


def test_a_pillow_image_that_is_not_its_files_first_picture_is_coded_from_its_pixels(face: Pixels) -> None:
    draft = Image.open(io.BytesIO(saved(face)))
    draft.draft("RGB", (50, 40))
    film, frames = io.BytesIO(), [Image.fromarray(face), Image.fromarray(face[::-1])]
    frames[0].save(film, "MPO", save_all=True, append_images=frames[1:])
    second = Image.open(film)
    second.seek(1)
    for image in (draft, second):
        picture = picture_of(image)
        assert picture.source is None
        assert np.array_equal(picture.pixels, np.asarray(image))
    assert "number 2 of 2 pictures in the file taken" in picture_of(second).notes
    first = Image.open(film)
    assert picture_of(first).source == film.getvalue()


def test_written_coefficients_are_read_back_at_every_size() -> None:
    random = np.random.default_rng(0)
    for (rows, columns), sampling in product(((1, 1), (1, 3), (2, 1), (3, 5)), files.Sampling):
        down, across = sampling.divisors
        colour = -(-rows // down), -(-columns // across)
        shapes = [(rows, columns)] if sampling == files.Sampling.GREY else [(rows, columns), colour, colour]
        planes = tuple(random.integers(-3, 4, (*shape, 8, 8)).astype(np.int16) for shape in shapes)
        tables = random.integers(1, 256, (2, 8, 8)).astype(np.uint16)
        height, width = 8 * rows - 3, 8 * columns - 6
        given = files.Coefficients(height, width, planes, tables, sampling)
        read = files.read(files.written(given))
        assert (read.height, read.width, read.sampling) == (height, width, sampling)
        assert np.array_equal(read.tables[: len(shapes)], tables[: len(shapes)])
        assert all(np.array_equal(mine, theirs) for mine, theirs in zip(read.planes, planes, strict=True))


def test_levels_that_prices_are_asked_for_are_such_as_a_file_holds() -> None:
    levels = {name: torch.tensor([2100.0, -2100.0, 3.0]) for name in PLANES}
    assert about(levels)["y"].tolist() == [LARGEST_LEVEL, -LARGEST_LEVEL, 3]
