"""Loaders of codecs: what they raise, and what they give that was not asked for, is one line that names the codec."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from lof.codecs import Codec, CodecSpec, Continuous, Request, load_codec, register
from lof.errors import LofError, UsageError, WeightsError

NAME = "of-a-loader"
Load = Callable[[Request], Any]


@pytest.fixture(scope="session")
def loads() -> Callable[[Load], None]:
    """Gives the codec a loader."""
    loaders: list[Load] = []

    @register(CodecSpec(NAME, Continuous(1, 8, (0.0018, 0.18)), 4, "from a test", hidden=True))
    def load(request: Request) -> Any:
        return loaders[-1](request)

    return loaders.append


def like(request: Request, **other: Any) -> Codec:
    """A codec that is what was asked for, but for some attributes."""
    codec = copy.copy(load_codec("tiny", device="cpu"))
    asked = {"name": request.spec.name, "quality": request.quality, "metric": request.metric}
    for field, value in (asked | other).items():
        setattr(codec, field, value)
    return codec


def test_a_codec_that_is_what_was_asked_for_is_loaded(loads: Callable[[Load], None]) -> None:
    loads(like)
    assert load_codec(NAME, 2.5).quality == 2.5


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [("name", "H1", f"'{NAME}'"), ("quality", 4.0, "4.5"), ("metric", "ms-ssim", "'mse'")],
)
def test_a_codec_that_is_another_than_was_asked_for_is_refused(
    loads: Callable[[Load], None], field: str, value: Any, wanted: str
) -> None:
    loads(lambda request: like(request, **{field: value}))
    with pytest.raises(UsageError) as caught:
        load_codec(NAME, 4.5)
    assert str(caught.value) == (
        f"codec {NAME}: its loader gives a codec of {field} {value!r} instead of {wanted}; correct the loader"
    )


def test_what_is_no_codec_at_all_is_refused(loads: Callable[[Load], None]) -> None:
    loads(lambda request: None)
    with pytest.raises(
        UsageError, match=f"codec {NAME}: its loader gives NoneType instead of a lof.codecs.Codec"
    ):
        load_codec(NAME, 4.25)


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (FileNotFoundError(2, "No such file or directory", "/w.pt"), "FileNotFoundError: .*'/w.pt'"),
        (ModuleNotFoundError("No module named 'nothing'"), "ModuleNotFoundError: No module named 'nothing'"),
        (
            RuntimeError("Error(s) in loading:\n\tMissing key(s)"),
            r"RuntimeError: Error\(s\) in loading: Missing key",
        ),
    ],
)
def test_what_a_loader_raises_is_one_line_that_names_the_codec(
    loads: Callable[[Load], None], raised: Exception, reason: str
) -> None:
    def failing(request: Request) -> Codec:
        raise raised

    loads(failing)
    with pytest.raises(
        WeightsError, match=rf"^codec {NAME} quality 4.125: its loader failed \({reason}"
    ) as caught:
        load_codec(NAME, 4.125)
    assert "\n" not in str(caught.value)


def test_an_error_of_lof_that_a_loader_raises_is_passed_on(loads: Callable[[Load], None]) -> None:
    def failing(request: Request) -> Codec:
        raise LofError("mine")

    loads(failing)
    with pytest.raises(LofError, match=r"^mine$"):
        load_codec(NAME, 4.75)
