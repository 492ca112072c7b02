"""Searches in windows: one ordinary stream, as good as that of a search of the whole image."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import lof
from lof.codecs import Codec, Latents, Locality, load_codec
from lof.containers import container
from lof.errors import LowMemoryError, TargetError
from lof.metrics import mse, psnr
from lof.pictures.picture import Picture
from lof.profiles import Profile, parse_profile
from lof.results import Target
from lof.search import Progress, StopSearch, analyse_in_windows, search_in_windows, windows_for

PLENTY = 10**11


def short(evaluations: int) -> Profile:
    return parse_profile({"name": "short", "stage": [{"kind": "mean-field", "evaluations": evaluations}]})


def hungry(name: str) -> Codec:
    """A codec whose searches need so much memory that a small picture does not fit."""
    codec = copy.copy(load_codec(name, device="cpu", precision="fp32"))
    codec.bytes_per_pixel = 10_000
    return codec


def least_memory(codec: Codec, height: int, width: int) -> int:
    """What the error about too little memory says."""
    message = (
        r"memory of 0\.00 GB: \S+ needs ([\d.]+) GB or more for a \d+×\d+ image; allow that much, or cut .*"
    )
    with pytest.raises(LowMemoryError) as told:
        windows_for(codec, height, width, 1)
    found = re.fullmatch(message, str(told.value))
    assert found
    return round(float(found[1]) * 1e9)


def enough_for_two(codec: Codec, height: int, width: int) -> int:
    least = least_memory(codec, height, width)
    enough = [least * percent // 100 for percent in (100, 110, 125, 140)]
    return next(memory for memory in enough if len(windows_for(codec, height, width, memory)) == 2)


@pytest.fixture(scope="module")
def picture(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(photograph[:125, :505])


@pytest.mark.parametrize("name", ["tiny", "lapped-tiny", "msp-tiny"])
@pytest.mark.parametrize("size", [(400, 1000), (1, 3000), (1111, 333)])
def test_cores_divide_the_image_at_the_least_memory_and_above(name: str, size: tuple[int, int]) -> None:
    codec = hungry(name)
    least, whole = least_memory(codec, *size), codec.padded_size(*size)
    for memory in (least, int(1.3 * least)):
        windows = windows_for(codec, *size, memory)
        covered = np.zeros([side // codec.stride for side in whole], int)
        for window in windows:
            (top, bottom), (left, right) = window.core.rows, window.core.columns
            covered[
                top // codec.stride : bottom // codec.stride, left // codec.stride : right // codec.stride
            ] += 1
            assert window.core.both(window.moves) == window.core
            assert window.moves.both(window.whole) == window.moves
        assert len(windows) > 1
        assert (covered == 1).all()
    with pytest.raises(LowMemoryError):
        windows_for(codec, *size, least - 10**8)


@pytest.mark.parametrize("name", ["tiny", "lapped-tiny"])
def test_where_the_whole_fits_no_window_is_made(name: str, crop: NDArray[np.uint8]) -> None:
    assert windows_for(load_codec(name), *crop.shape[:2], PLENTY) == []
    whole, allowed = (
        lof.optimize(crop[:64], codec=name, profile=short(2), device="cpu", memory=memory)
        for memory in (None, PLENTY)
    )
    assert whole.data == allowed.data


@pytest.mark.parametrize("name", ["tiny", "lapped-tiny", "msp-tiny"])
def test_parts_are_analysed_as_the_whole_is(name: str, picture: NDArray[np.uint8]) -> None:
    codec = hungry(name)
    windows = windows_for(codec, *picture.shape[:2], least_memory(codec, *picture.shape[:2]))
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    whole, parts = codec.analyse(codec.pad(pixels)), analyse_in_windows(codec, picture, windows)
    for latent in codec.latents:
        assert float((whole[latent] - parts[latent]).abs().max()) < 0.1


def test_sides_of_parts_are_multiples_of_a_stride_that_is_coarser_than_the_grid(
    picture: NDArray[np.uint8],
) -> None:
    codec, seen = copy.copy(hungry("lapped-tiny")), list[tuple[int, ...]]()
    codec.stride, codec.locality = 48, Locality(grid=16, reach=32)  # type: ignore[misc]
    analyse = codec.analyse

    def watched(images: torch.Tensor) -> Latents:
        seen.append(tuple(images.shape[2:]))
        return analyse(images)

    codec.analyse = watched  # type: ignore[method-assign]
    windows = windows_for(codec, *picture.shape[:2], least_memory(codec, *picture.shape[:2]))
    analyse_in_windows(codec, picture, windows)
    assert len(seen) > 1
    assert all(side % 48 == 0 for sides in seen for side in sides)


@pytest.mark.parametrize("name", ["tiny", "lapped-tiny", "msp-tiny"])
def test_windows_come_near_to_the_search_of_the_whole(name: str, picture: NDArray[np.uint8]) -> None:
    codec, seen = hungry(name), list[Progress]()
    memory = enough_for_two(codec, *picture.shape[:2])
    region = np.linspace(0, 1, picture[..., 0].size).reshape(picture.shape[:2]) if name == "tiny" else None
    found = lof.optimize(
        picture, codec=codec, profile=short(2), memory=memory, region=region, on_progress=seen.append
    )
    codec.bytes_per_pixel = 1
    whole = lof.optimize(picture, codec=codec, profile=short(2), region=region)
    assert np.array_equal(lof.decode(found.data).pixels, found.pixels)
    assert found.kept == "search"
    assert found.optimised.cost < found.baseline.cost
    assert found.optimised.cost < 1.01 * whole.optimised.cost
    assert [step.window for step in seen] == sorted(step.window for step in seen)
    assert (seen[-1].window, seen[-1].evaluations) == (seen[-1].windows, seen[-1].budget)


def test_a_window_leaves_what_is_done_as_it_is(picture: NDArray[np.uint8]) -> None:
    codec = hungry("tiny")
    windows = windows_for(codec, *picture.shape[:2], enough_for_two(codec, *picture.shape[:2]))
    assert len(windows) == 2
    after = [analyse_in_windows(codec, picture, windows)]
    for count in (1, 2):

        def stop(progress: Progress, count: int = count) -> None:
            if progress.window > count:
                raise StopSearch

        latents = copy.deepcopy(after[0])
        search_in_windows(
            codec, picture, short(2), windows, latents=latents, lmbda=0.05, metric="mse", on_progress=stop
        )
        after.append(latents)
    places = windows[0].core.columns[1] // 16
    done, others = ([one["y"][..., part] for one in after] for part in (slice(places), slice(places, None)))
    assert not torch.equal(done[0], done[1])
    assert torch.equal(done[1], done[2])
    assert not torch.equal(others[1], others[2])


def test_jpeg_says_that_it_needs_the_whole() -> None:
    with pytest.raises(LowMemoryError, match="jpeg cannot be searched in windows and needs 7"):
        windows_for(load_codec("jpeg"), 3000, 3000, 10**9)


@pytest.mark.parametrize("by_size", [True, False])
def test_a_target_is_met_in_windows(by_size: bool, picture: NDArray[np.uint8]) -> None:
    codec, seen = hungry("lapped"), list[Progress]()
    memory = enough_for_two(codec, *picture.shape[:2])
    plain = codec.decompress(
        codec.compress(codec.symbols(codec.begin(Picture(picture)).plain)), *picture.shape[:2]
    )
    wanted = psnr(mse(picture, container("lof").to_pixels(plain.image))) + 0.1
    size = round(0.97 * len(lof.encode(picture, codec=codec)))
    found = lof.optimize(
        picture,
        codec=codec,
        profile=short(12),
        target=Target(size=size) if by_size else Target(psnr=wanted),
        memory=memory,
        on_progress=seen.append,
    )
    assert np.array_equal(lof.decode(found.data).pixels, found.pixels)
    assert {step.windows for step in seen} == {2}
    done = [step.evaluations for step in seen]
    assert done == sorted(done)
    if by_size:
        assert 0.98 * size <= len(found.data) <= size
        assert found.optimised.psnr > wanted - 0.2
    else:
        assert wanted <= found.optimised.psnr < wanted + 0.1
        assert len(found.data) < 1.03 * size


def test_a_size_that_no_file_has_is_refused_in_windows_too(picture: NDArray[np.uint8]) -> None:
    codec = hungry("lapped-tiny")
    memory = enough_for_two(codec, *picture.shape[:2])
    with pytest.raises(TargetError, match=r"no file of lapped-tiny quality \d has 20 bytes or less"):
        lof.optimize(picture, codec=codec, profile=short(6), target=Target(size=20), memory=memory)


def test_a_warm_start_goes_on_in_windows(picture: NDArray[np.uint8]) -> None:
    codec = hungry("lapped-tiny")
    memory = enough_for_two(codec, *picture.shape[:2])
    first = lof.optimize(picture, codec=codec, profile=short(6), memory=memory)
    second = lof.optimize(picture, codec=codec, profile=short(6), memory=memory, warm_start=first.data)
    assert second.optimised.cost < 1.001 * first.optimised.cost


def test_only_the_image_is_read_where_only_that_is_asked_for(picture: NDArray[np.uint8]) -> None:
    for name in ("lapped-tiny", "tiny"):
        codec = load_codec(name, device="cpu")
        strings = codec.compress(codec.symbols(codec.begin(Picture(picture)).plain))
        whole = codec.decompress(strings, *picture.shape[:2]).image
        assert torch.equal(codec.decoded_image(strings, *picture.shape[:2]), whole)


@pytest.mark.parametrize("size", [(20, 3000), (32, 2000), (2000, 20)])
def test_long_thin_pictures_are_searched_in_windows(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    codec = hungry("lapped-tiny")
    found = lof.optimize(picture, codec=codec, profile=short(2), memory=least_memory(codec, *size))
    assert np.array_equal(lof.decode(found.data).pixels, found.pixels)
