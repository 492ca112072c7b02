"""The TOML file of a study: its schema, the space of its parameters, and the files that ship."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from study_tools import BASE, RATE

from lof.errors import StudyError
from lof.profiles import load_profile, parse_profile, profile_toml
from lof.study import (
    load_study,
)
from lof.study.space import profile_at

STEPS = {"path": "stage.0.steps", "low": 1, "high": 8}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, "colour: unknown key; allowed: name, codec"),
        ({"space": [RATE | {"lo": 1}]}, "space[0].lo: unknown key; allowed: path, split, low"),
        ({"space": [RATE | {"low": "0.1"}]}, "space[0].low: must be a number"),
        ({"space": [RATE | {"log": 1}]}, "space[0].log: must be true or false"),
        ({"trials": True}, "trials: must be a whole number"),
        ({"name": 49 * "x"}, "name: must be at most 48 characters"),
        ({"space": []}, "space: must be a list of at least 1"),
        ({"space": [RATE | {"low": 20.0}]}, "low < high"),
        (
            {"space": [RATE | {"high": 11.0}]},
            "stage.0.learning_rate = 11.0: stage[0].learning_rate: must be at most 10",
        ),
        (
            {"space": [RATE | {"path": "stage.0.rate"}]},
            "stage.0.rate: not in the profile; it has evaluations",
        ),
        ({"space": [RATE | {"path": "stage.rate"}]}, "stage.rate: not in the profile; it has 0 to 0 there"),
        ({"space": [RATE | {"path": "stage.3.rate"}]}, "'3' is not in the profile; it has 0 to 0 there"),
        ({"space": [RATE | {"path": "stage.0"}]}, "stage.0: holds no single value; it has evaluations, "),
        (
            {"space": [{"split": ["name", "stage.0.evaluations"], "low": 0.2, "high": 1.0}]},
            "name: has no number in the profile, which a split needs",
        ),
        (
            {
                "space": [{"split": ["stop_below", "stage.0.variance.start"], "low": 0.2, "high": 1.0}],
                "enqueue": ["base"],
            },
            "stop_below:stage.0.variance.start: is 0 in all, of which there is no share",
        ),
        ({"space": [RATE, RATE]}, "each parameter once"),
        ({"space": [{"path": "stage.0.kind", "choices": ["relax"]}]}, "two or more different values"),
        ({"enqueue": [{"stage.0.learning_rate": 0.01}]}, "0.01 is outside of 0.05…10.0; widen the space"),
        ({"enqueue": [{"rate": 0.1}]}, "enqueue[0]: rate is not in the space; it has stage.0.learning_rate"),
        (
            {"enqueue": [{RATE["path"]: "0.2"}]},
            "enqueue[0]: stage.0.learning_rate = 0.2 is outside of 0.05…10",
        ),
        (
            {"space": [RATE | {"log": False, "step": 0.1}]},
            "enqueue[0]: stage.0.learning_rate = 0.2 is not among 0.05, 0.15 … 9.95; change low or step",
        ),
        (
            {"space": [STEPS], "enqueue": [{STEPS["path"]: 2.5}]},
            "enqueue[0]: stage[0].steps: must be a whole number",
        ),
        (
            {"space": [STEPS | {"step": 2}], "enqueue": [{STEPS["path"]: 4}]},
            "enqueue[0]: stage.0.steps = 4 is not among 1, 3 … 7; change low or step",
        ),
        ({"space": [STEPS | {"step": 0.5}]}, "space: stage.0.steps: step must be a whole number"),
        ({"space": [STEPS | {"high": 7.5}]}, "space: stage.0.steps = 7.5: stage[0].steps: must be a whole"),
        (
            {
                "base": {"stage": [BASE, BASE]},
                "space": [{"path": f"stage.{stage}.evaluations", "choices": [0, 3]} for stage in (0, 1)],
                "enqueue": [{"stage.0.evaluations": 0, "stage.1.evaluations": 0}],
            },
            "enqueue[0]: stage: must be a list of at least 1",
        ),
        ({"enqueue": ["fast"]}, "enqueue[0]: fast differs from base outside of the space"),
        ({"objectives": ["seconds"]}, "objectives: cost or bd-rate, then"),
        ({"objectives": ["bd-rate"]}, "bd-rate needs two qualities or more"),
        ({"codec": "tinny"}, "did you mean tiny?"),
        ({"qualities": [4, 9]}, "no quality 9"),
        ({"qualities": [4, 4.0]}, "qualities: each rate point once"),
        ({"codec": "lapped-tiny", "qualities": [4.7]}, "no quality 4.7; it has every multiple of 1/64"),
        ({"base": "fasst"}, "did you mean fast?"),
        ({"base": {"stage": [BASE | {"steps": 0}]}}, "base: stage[0].steps: must be at least 1"),
        ({"name": "../up"}, "letters, digits"),
    ],
)
def test_a_study_that_does_not_fit_the_schema_is_one_clear_error(
    write: Callable[..., Path], changes: dict[str, Any], said: str
) -> None:
    path = write(**changes)
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value).strip()


def test_a_study_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"cannot be read \(No such file"):
        load_study(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(StudyError, match="not valid TOML"):
        load_study(tmp_path / "bad.toml")


@pytest.mark.parametrize("name", ["fast", "medium", "high"])
def test_the_shipped_studies_try_todays_profile_first(name: str) -> None:
    study = load_study(Path(__file__).parents[2] / "profiles" / "studies" / f"{name}.toml")
    first = profile_at(study.points[0], study.space, study.profile, name)
    assert first.digest == load_profile(name).digest


def test_a_split_moves_evaluations_and_leaves_out_a_stage_without_any(write: Callable[..., Path]) -> None:
    flips = {"kind": "greedy-flip", "evaluations": 7}
    paths = ["stage.0.evaluations", "stage.1.evaluations"]
    study = load_study(
        write(
            base={"stage": [BASE, flips]}, space=[{"split": paths, "low": 0.2, "high": 1.0}], enqueue=["base"]
        )
    )
    name = "stage.0.evaluations:stage.1.evaluations"
    assert study.points == [{name: 0.3}]

    def stages(share: float) -> list[int]:
        return [s.evaluations for s in profile_at({name: share}, study.space, study.profile, "x").stage]

    assert (stages(0.3), stages(0.8), stages(1.0)) == ([3, 7], [8, 2], [10])


def test_a_profile_is_written_as_toml_that_says_the_same() -> None:
    stage = BASE | {"learning_rate_of": {"y hat": 0.1, "a.b": 0.2, 'quo"te': 0.3}}
    profile = parse_profile({"name": "odd", "summary": 'rub\x7fout "x" \\', "stage": [stage]})
    assert parse_profile(tomllib.loads(profile_toml(profile))) == profile
