"""``--profile auto`` and names that stand for several codecs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lof.codecs import codec_for, codec_spec, load_codec, tiers_of
from lof.errors import UsageError
from lof.jobs.cost import Cost, measured_cost
from lof.jobs.effort import choose, parse_duration
from lof.profiles import BUILT_IN, load_profile

COSTS = {
    "msp-fast": Cost(fixed=1.0, evaluation=1.0, step=0.1),
    "msp-base": Cost(fixed=1.5, evaluation=1.0, step=0.2),
    "msp-high": Cost(fixed=2.0, evaluation=1.0, step=0.4),
    "lapped": Cost(fixed=1.0, evaluation=1.0, step=0.1),
}


def seconds(codec: str, profile: str, pixels: int = 1_000_000) -> float:
    return COSTS[codec].seconds(load_profile(profile), pixels)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20s", 20), ("20", 20), ("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("0.5m", 30)],
)
def test_durations_are_read_as_people_write_them(text: str, expected: float) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "0s", "-3s", "soon", "2d", "s", "1e400", "20 s 3"])
def test_other_durations_are_one_clear_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"duration .* give one such as 20s"):
        parse_duration(text)


def test_a_cost_counts_evaluations_and_steps_by_the_pixel() -> None:
    profile = load_profile("fast")
    steps = sum(stage.rate_steps for stage in profile.stage)
    assert seconds("msp-base", "fast", 2_000_000) == pytest.approx(
        2 * (1.5 + profile.evaluations + 0.2 * steps)
    )


def test_the_most_thorough_profile_goes_before_the_best_tier() -> None:
    between = (seconds("msp-fast", "high") + seconds("msp-base", "high")) / 2
    choice = choose("msp", COSTS.__getitem__, [10, 1_000_000], budget=between)
    assert (choice.profile.name, choice.codec) == ("high", "msp-fast")
    assert "profile high, tier msp-fast" in choice.reason
    assert "per image" in choice.reason


def test_with_time_enough_everything_is_the_best_there_is() -> None:
    choice = choose("msp", COSTS.__getitem__, [1_000_000], budget=1e9)
    assert (choice.profile.name, choice.codec) == (BUILT_IN[-1], tiers_of("msp")[-1])


def test_a_deadline_counts_all_images_and_all_workers() -> None:
    each = seconds("lapped", "medium")
    limit = 10 * each * 0.6
    assert (
        choose(None, COSTS.__getitem__, [1_000_000] * 10, deadline=limit, workers=2).profile.name == "medium"
    )
    assert choose(None, COSTS.__getitem__, [1_000_000] * 10, deadline=limit).profile.name == "fast"


def test_a_budget_that_nothing_fits_says_what_the_least_is() -> None:
    with pytest.raises(UsageError, match=r"--budget: fast with lapped already takes about .* here"):
        choose(None, COSTS.__getitem__, [100_000_000], budget=1)


@pytest.mark.parametrize("limits", [{}, {"budget": 1.0, "deadline": 1.0}])
def test_one_limit_and_one_only(limits: Any) -> None:
    with pytest.raises(UsageError, match=r"--budget .* or --deadline"):
        choose(None, COSTS.__getitem__, [1], **limits)


def test_a_profile_selects_its_tier_and_a_codec_named_outright_stays() -> None:
    assert [codec_for("msp", name) for name in BUILT_IN] == ["msp-fast", "msp-base", "msp-high", "msp-high"]
    assert codec_for("msp", "mine") == codec_for("msp", "medium")
    assert codec_for("msp-fast", "max") == "msp-fast"


def test_every_tier_is_a_codec() -> None:
    names = {codec_for(name, profile) for name in ("msp", None) for profile in BUILT_IN}
    assert names
    assert all(codec_spec(name).rate_points for name in names)


def test_the_calibration_is_measured_once_and_kept_until_it_is_damaged_or_old(tmp_path: Path) -> None:
    codec = load_codec("tiny", device="cpu")
    cost = measured_cost(codec, cache=tmp_path)
    assert min(cost.evaluation, cost.step) > 0
    assert cost.fixed >= 0
    assert measured_cost(codec, cache=tmp_path) == cost
    (kept,) = tmp_path.iterdir()
    kept.write_text("{half a file")
    assert measured_cost(codec, cache=tmp_path) is not None
    assert kept.read_text().endswith("}")
    kept.write_text('{"fixed": 1.0, "evaluation": 2.0, "step": 3.0}')
    assert measured_cost(codec, cache=tmp_path) == Cost(1.0, 2.0, 3.0)
    os.utime(kept, (0, 0))
    assert measured_cost(codec, cache=tmp_path) != Cost(1.0, 2.0, 3.0)


def test_a_calibration_needs_no_place_to_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert measured_cost(load_codec("tiny", device="cpu"), cache=tmp_path / "file").evaluation > 0
