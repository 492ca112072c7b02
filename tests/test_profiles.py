"""Profiles from TOML: what does not fit the schema is one line with the key and what is allowed."""

from __future__ import annotations

import tomllib

import pytest

from lof.errors import ProfileError
from lof.profiles import parse_profile

RELAX = '[[stage]]\nkind = "relax"\nevaluations = 3\n'
MEAN_FIELD = '[[stage]]\nkind = "mean-field"\nevaluations = 3\n'


def refusal(text: str) -> str:
    with pytest.raises(ProfileError) as caught:
        parse_profile({"name": "mine"} | tomllib.loads(text), "mine.toml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[stage]]\nkind = "relax"\nevaluations = true', "stage[0].evaluations: must be a whole number"),
        ('[[stage]]\nkind = "relax"\nevaluations = "30"', "stage[0].evaluations: must be a whole number"),
        ('[[stage]]\nkind = "relax"\nevaluations = 3.5', "stage[0].evaluations: must be a whole number"),
        (RELAX + 'learning_rate = "0.1"', "stage[0].learning_rate: must be a number"),
        (RELAX + "betas = [false, 0.9]", "stage[0].betas[0]: must be a number"),
        (RELAX + "patience = true", "stage[0].patience: must be a whole number"),
        (RELAX + 'decay = { start = 1, end = "0.1" }', "stage[0].decay.end: must be a number"),
        (MEAN_FIELD + "learning_rate_of = { z = true }", "stage[0].learning_rate_of.z: must be a number"),
        ("stop_below = false\n" + RELAX, "stop_below: must be a number"),
    ],
)
def test_text_and_truth_values_are_no_numbers(text: str, said: str) -> None:
    assert refusal(text) == f"mine.toml: {said}"


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert parse_profile({"name": "mine", "stage": [{"kind": "own", "evaluations": 3.0}]}).evaluations == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'name = "{65 * "x"}"\n' + RELAX, "name: must be at most 64 characters"),
        ("own = 1\n" + RELAX, "own: unknown key; see `lof profiles --schema`"),
        (RELAX + "relax = 1", "stage[0].relax: unknown key; see `lof profiles --schema`"),
        (RELAX + "learning_rate_of = { own = 11 }", "stage[0].learning_rate_of.own: must be at most 10"),
        ('[[stage]]\nkind = "relax"', "stage[0].evaluations: is missing"),
        (RELAX + "betas = [0.9]", "stage[0].betas[1]: is missing"),
    ],
)
def test_the_key_that_is_wrong_is_named_as_the_file_has_it(text: str, said: str) -> None:
    assert refusal(text) == f"mine.toml: {said}"
