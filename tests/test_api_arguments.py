"""Arguments of the API: what is wrong with one is said in one line, before any work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import lof
from lof.codecs import Codec
from lof.errors import ProfileError, UnknownCodecError, UsageError
from lof.pictures.picture import Picture
from lof.pools import make_pool
from lof.profiles import parse_profile
from lof.results import Target

SHORT = parse_profile({"name": "short", "stage": [{"kind": "mean-field", "evaluations": 12}]})
PICTURE = np.full((8, 8, 3), (200, 90, 20), np.uint8)


@pytest.fixture(scope="module")
def tiny() -> Codec:
    return lof.load_codec("tiny", device="cpu")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": 2**64}, "seed 18446744073709551616: must be a whole number from 0 to "),
        ({"seed": -1}, "seed -1: must be"),
        ({"seed": 1.5}, "seed 1.5: must be"),
        ({"seed": "a"}, "seed 'a': must be"),
        ({"quality": "high"}, "quality 'high': must be a number, such as 4"),
        ({"lmbda": "x"}, "lambda 'x': must be a number"),
        ({"lmbda": "0.1"}, "lambda '0.1': must be a number"),
        ({"memory": "4GB"}, "memory '4GB': must be a number, such as 4e9 bytes"),
        ({"target": 38}, "target 38: must be a lof.Target, such as lof.Target(psnr=38)"),
        (
            {"codec": "mbt2018", "metric": "bogus", "target": Target(size=1000)},
            "metric 'bogus': unknown; it is mse or ms-ssim",
        ),
    ],
)
def test_an_argument_of_another_type_or_range_is_one_clear_error(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        lof.optimize(PICTURE, **{"codec": "tiny", "profile": SHORT} | given)
    assert str(caught.value).startswith(message)


def test_arguments_are_checked_where_several_images_or_plain_encodings_are_asked_for(tiny: Codec) -> None:
    with pytest.raises(UsageError, match=r"^seed 'a': must be"):
        lof.optimize_batch([PICTURE], tiny, SHORT, seed="a")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^quality 'high': must be"):
        lof.encode(PICTURE, codec="tiny", quality="high")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^quality 'high': must be"):
        lof.load_codec("tiny", "high")  # type: ignore[arg-type]


def test_another_quality_than_that_of_a_loaded_codec_is_refused(tiny: Codec) -> None:
    message = r"^quality 7: the loaded codec has quality 4; load that one, or name the codec$"
    with pytest.raises(UsageError, match=message):
        lof.optimize(PICTURE, codec=tiny, quality=7, profile=SHORT)
    with pytest.raises(UsageError, match=message):
        lof.optimize(PICTURE, codec=tiny, quality=7, profile=SHORT, target=Target(size=1000))
    with pytest.raises(UsageError, match=message):
        lof.encode(PICTURE, codec=tiny, quality=7)
    assert lof.encode(PICTURE, codec=tiny, quality=4) == lof.encode(PICTURE, codec=tiny)


def test_a_batch_has_images_and_one_region_and_one_start_for_each(tiny: Codec) -> None:
    with pytest.raises(UsageError, match=r"^a batch holds at least one image$"):
        lof.optimize_batch([], tiny, SHORT)
    with pytest.raises(UsageError, match=r"^regions: 1 for 2 images; give one for each$"):
        lof.optimize_batch([PICTURE, PICTURE], tiny, SHORT, regions=[np.ones((8, 8))])
    with pytest.raises(UsageError, match=r"^warm_starts: 3 for 2 images; give one for each$"):
        lof.optimize_batch([PICTURE, PICTURE], tiny, SHORT, warm_starts=[None] * 3)


def test_a_name_of_several_codecs_is_encoded_as_profile_medium_selects() -> None:
    one, other = (lof.encode(PICTURE, codec=name) for name in ("msp", "msp-base"))
    assert one == other


def test_weights_that_are_no_path_and_a_device_that_is_no_name_are_one_clear_error(tiny: Codec) -> None:
    with pytest.raises(UsageError, match="weights 5: must be the path of a folder"):
        lof.decode(lof.encode(PICTURE, codec=tiny), weights=5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^device None: unknown; use auto, cpu, cuda"):
        lof.load_codec("tiny", device=None)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers(tiny: Codec) -> None:
    one, other = (
        lof.optimize(PICTURE, codec="tiny", quality=q, profile=SHORT, seed=s, lmbda=by).data
        for q, s, by in ((4, 3, 0.5), (np.float32(4), np.int64(3), np.float64(0.5)))
    )
    assert one == other


def test_what_is_no_codec_no_name_and_no_path_is_one_clear_error(tiny: Codec) -> None:
    with pytest.raises(UsageError, match=r"^codec 'tiny': must be a loaded one"):
        lof.optimize_batch([PICTURE], "tiny", SHORT)  # type: ignore[arg-type]
    for name in (None, 4):
        with pytest.raises(UnknownCodecError, match=rf"^codec {name}: is a "):
            lof.load_codec(name)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^weights 'a\\x00b': must be the path"):
        lof.load_codec("tiny", weights="a\0b")
    with pytest.raises(ProfileError, match="unknown"):
        lof.optimize(PICTURE, codec=tiny, profile=300 * "x")
    with pytest.raises(UsageError, match=r"^--jobs 0: must be 1 or more"):
        make_pool(0)


def test_the_bytes_of_a_file_may_be_a_bytearray(tiny: Codec) -> None:
    data = lof.encode(Picture(PICTURE, {b"exif": b"II*\0"}), codec=tiny)
    assert np.array_equal(lof.decode(bytearray(data)).pixels, lof.decode(data).pixels)


def test_the_seconds_of_a_batch_are_shared_out_evenly(tiny: Codec) -> None:
    results = lof.optimize_batch([PICTURE] * 3, tiny, SHORT)
    assert len({result.seconds for result in results}) == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_search_has_gradients_whatever_its_caller_has(mode: Callable[[], Any]) -> None:
    """In a process of its own, so that the codec is loaded in that mode."""
    program = f"""
import numpy, torch, lof
picture = numpy.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=numpy.uint8)
with torch.{mode.__name__}():
    plain = lof.encode(picture)
    lof.decode(plain)
    found = lof.optimize(picture, profile="fast")
    assert not torch.is_grad_enabled()
again = lof.optimize(picture, profile="fast")
assert found.data == again.data and found.kept == "search" and found.baseline.size == len(plain)
lof.optimize(picture, profile="fast", target=lof.Target(size=len(plain)))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
