"""The registry: names, qualities, tiers, codecs of other packages."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from lof.codecs import (
    Codec,
    CodecSpec,
    Continuous,
    Points,
    RatePoint,
    Request,
    codec_for,
    codec_spec,
    codec_specs,
    codec_tiers,
    load_codec,
    register,
    register_tiers,
    tiers_of,
    trainable,
)
from lof.errors import UnknownCodecError


def never(request: Request) -> Codec:
    raise AssertionError("nothing is loaded here")


def test_a_second_codec_of_one_name_is_refused() -> None:
    with pytest.raises(ValueError, match="registered already"):
        register(codec_spec("tiny"))(never)
    with pytest.raises(ValueError, match="registered already"):
        register_tiers("tiny", {"medium": "tiny"})


@pytest.mark.parametrize("name", ["of a test", "", "x" * 65, "ü", "line\n"])
def test_a_name_that_no_file_can_state_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no file can state the name; take 1 to 64 of A-Z a-z 0-9"):
        register(CodecSpec(name, Continuous(1, 8, (0.0018, 0.18)), 4, "from a test"))(never)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        (
            Points({("mse", 0.4): RatePoint(0.01)}),
            "quality 0.4: no file can state it; take multiples of 1/64",
        ),
        (Points({("mse", 1000.5): RatePoint(0.01)}), "quality 1000.5: no file can state it; .*to 1000"),
        (Continuous(0, 1, (0.0018, 0.18)), "quality 0: no file can state it; .*from 1/64"),
        (Continuous(1, math.inf, (0.0018, 0.18)), "quality inf: no file can state it"),
        (Points({("vmaf", 1): RatePoint(0.01)}), "metric 'vmaf': no file can state it; it is mse or ms-ssim"),
        (Points({("mse", 1): RatePoint(0.0)}), "quality 1: its λ must be a positive number, not 0"),
        (Continuous(8, 1, (0.0018, 0.18)), "has no quality"),
        (Points({}), "has no quality"),
    ],
)
def test_qualities_that_no_file_can_state_are_refused(rates: Points | Continuous, message: str) -> None:
    with pytest.raises(ValueError, match=f"^codec 'refused': {message}"):
        register(CodecSpec("refused", rates, 1, "from a test"))(never)
    assert "refused" not in [spec.name for spec in codec_specs()]


def test_an_unknown_codec_names_the_nearest() -> None:
    with pytest.raises(UnknownCodecError, match=r"'mbt2018-maen': unknown; did you mean mbt2018-mean\?"):
        codec_spec("mbt2018-maen")


def test_an_unknown_quality_lists_those_that_exist() -> None:
    with pytest.raises(UnknownCodecError, match="no quality 9; it has 1, 2, 3, 4, 5, 6, 7, 8"):
        load_codec("mbt2018-mean", 9)


def test_an_unknown_metric_lists_those_that_exist() -> None:
    with pytest.raises(UnknownCodecError, match="no metric 'vmaf'; it has ms-ssim, mse"):
        load_codec("mbt2018-mean", 1, metric="vmaf")


class TestContinuousQuality:
    RATES = Continuous(1, 8, (0.0018, 0.18))

    def test_lambda_grows_by_equal_factors(self) -> None:
        lambdas = [self.RATES.at("one", "mse", quality).lmbda for quality in (1, 4.5, 8)]
        assert lambdas == pytest.approx([0.0018, 0.018, 0.18])

    @pytest.mark.parametrize("quality", [0.5, 8.25, 3.01])
    def test_what_no_file_can_state_is_refused(self, quality: float) -> None:
        with pytest.raises(UnknownCodecError, match=r"every multiple of 1/64 from 1 to 8"):
            self.RATES.at("one", "mse", quality)

    def test_whole_qualities_are_listed(self) -> None:
        assert list(self.RATES.listed()) == [("mse", float(quality)) for quality in range(1, 9)]

    def test_a_range_may_be_a_single_quality_or_have_no_whole_one(self) -> None:
        assert Continuous(4, 4, (0.013, 0.013)).listed() == {("mse", 4.0): RatePoint(pytest.approx(0.013))}
        spec = CodecSpec("between", Continuous(0.25, 0.75, (0.0018, 0.18)), 0.5, "from a test")
        assert list(spec.rate_points) == [("mse", 0.25)]
        assert spec.made_for("ms-ssim") == "mse"

    def test_another_metric_is_refused(self) -> None:
        with pytest.raises(UnknownCodecError, match="no metric 'ms-ssim'; it has mse"):
            self.RATES.at("one", "ms-ssim", 4)


def test_the_profile_selects_the_tier() -> None:
    assert codec_for("msp", "fast") == "msp-fast"
    assert codec_for("msp", "high") == codec_for("msp", "max") == "msp-high"
    assert codec_for("msp", "of-my-own") == codec_for("msp", "medium") == "msp-base"
    assert codec_for("tiny", "high") == "tiny"
    assert codec_for(None, "high") == tiers_of(None)[0]
    assert tiers_of("msp") == ("msp-fast", "msp-base", "msp-high")


def test_a_name_of_several_codecs_names_them_where_one_is_needed() -> None:
    with pytest.raises(
        UnknownCodecError, match=r"^codec 'msp': stands for msp-fast, msp-base, msp-high; name one$"
    ):
        load_codec("msp")
    with pytest.raises(UnknownCodecError, match=r"^codec 'ms': unknown; (?!did you mean msp\?)"):
        codec_spec("ms")
    assert codec_tiers() == {"msp": tiers_of("msp")}


def test_a_codec_that_lof_cannot_train_says_which_it_can() -> None:
    spec = CodecSpec("of-a-test", Points({("mse", 1.0): RatePoint(0.01)}), 1, "from a test", hidden=True)
    register(spec)(never)
    with pytest.raises(UnknownCodecError, match="lof cannot train it; it trains ") as told:
        trainable("of-a-test")
    assert {"mean-scale-96", "lapped"} <= set(str(told.value).partition("it trains ")[2].split(", "))


def test_every_codec_that_ships_can_be_trained() -> None:
    shipped = [spec for spec in codec_specs(hidden=True) if spec.source != "none"]
    assert len(shipped) > 5
    for spec in shipped:
        assert trainable(spec.name).build is not None


def test_help_lists_and_import_need_no_torch() -> None:
    modules = "profiles", "containers", "errors", "codecs", "report", "jobs", "archive", "study"
    code = (
        f"import sys, lof, {', '.join(f'lof.{name}' for name in modules)}; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
