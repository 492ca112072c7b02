"""What a storage holds: studies of the first format are resumed, others than asked for are refused."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from study_tools import BASE, HOPELESS, RATE, finished, trials_of

from lof.errors import StudyError
from lof.study import (
    Bench,
    best_profiles,
    load_study,
    open_storage,
    read_images,
    run_study,
    study_status,
)
from lof.study.stored import FORMAT, VERSION, create_or_load

STORED = {
    "pruner": {"kind": "median", "startup": 1, "warmup": 0},
    "enqueue": ["base", HOPELESS],
}
"""The study of ``format-1.sql``, which no later version may fail to read."""


def test_a_study_of_format_1_is_resumed(write: Callable[..., Path]) -> None:
    study = load_study(write(**STORED))
    with sqlite3.connect(study.url.removeprefix("sqlite:///")) as database:
        database.executescript((Path(__file__).parent / "format-1.sql").read_text(encoding="utf-8"))
    before = finished(trials_of(study))
    assert len(before) == 2
    assert run_study(study, trials=3).finished == 3
    after = finished(trials_of(study))
    assert {number: after[number] for number in before} == before
    (best,) = best_profiles(open_storage(study.url))
    assert best.trial != 1  # the hopeless one; the third is drawn at random
    assert best.profile.stage[0].evaluations == 3


def test_a_study_that_was_killed_while_it_was_made_is_made_to_its_end(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_study(write(enqueue=["base", {RATE["path"]: RATE["low"]}]))
    bench, held = Bench(study, read_images(study)), open_storage(study.url)
    writes = [0]

    def dying(name: str) -> Callable[..., Any]:
        real = getattr(optuna.Study, name)

        def write_or_die(*arguments: Any, **named: Any) -> Any:
            writes[0] -= 1
            if not writes[0]:
                raise KeyboardInterrupt
            return real(*arguments, **named)

        return write_or_die

    for name in ("set_user_attr", "enqueue_trial"):
        monkeypatch.setattr(optuna.Study, name, dying(name))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # waits for a process that may be at work
    for last in range(1, 7):
        one = study.model_copy(update={"name": f"killed-{last}"})
        writes[0] = last
        with pytest.raises(KeyboardInterrupt):
            create_or_load(one, held, bench)
        with pytest.raises(StudyError, match="still being made, or that was interrupted"):
            study_status(held, one.name)
        other = one.model_copy(update={"objectives": ("cost", "seconds")})
        with pytest.raises(StudyError, match=r"objectives.*; give the changed study another name"):
            create_or_load(other, held, bench)
        found = create_or_load(one, held, bench)
        assert found.user_attrs.keys() == {FORMAT, "settings", "weights", "images"}
        assert [trial.state.name for trial in found.trials] == ["WAITING"] * 2
        assert create_or_load(one, held, bench).user_attrs == found.user_attrs


def test_the_learning_rate_of_a_latent_that_the_codec_lacks_is_no_parameter(
    write: Callable[..., Path],
) -> None:
    path = "stage.0.learning_rate_of.Z"
    study = load_study(write(space=[RATE | {"path": path}], enqueue=None))
    with pytest.raises(
        StudyError, match=rf"^study search: space: {path}: codec tiny has no latent 'Z'; it has z, y$"
    ):
        run_study(study, trials=1)
    with pytest.raises(StudyError, match="it holds none"):
        study_status(open_storage(study.url))


def test_a_study_of_somebody_else_is_never_taken_over(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    study = load_study(write())
    bench, held = Bench(study, read_images(study)), open_storage(study.url)
    foreign = optuna.create_study(storage=held, study_name=study.name, direction="maximize")
    with pytest.raises(StudyError, match="not made by lof; choose another with --name"):
        create_or_load(study, held, bench)
    assert (foreign.user_attrs, foreign.trials) == ({}, [])


def test_a_study_of_a_later_format_is_refused(write: Callable[..., Path]) -> None:
    study = load_study(write())
    found = create_or_load(study, open_storage(study.url), Bench(study, read_images(study)))
    found.set_user_attr(FORMAT, VERSION + 1)
    for use in (lambda: study_status(open_storage(study.url)), lambda: run_study(study, trials=1)):
        with pytest.raises(
            StudyError, match=r"search: has study format 2, this lof reads up to 1; install a newer"
        ):
            use()


def test_other_settings_under_the_same_name_are_refused_and_named(write: Callable[..., Path]) -> None:
    study = load_study(write())
    run_study(study, trials=1)
    other = load_study(write(seed=3, base={"stage": [BASE | {"steps": 2}]}))
    with pytest.raises(StudyError) as caught:
        run_study(other, trials=2)
    assert "base.stage.0.steps 1 → 2, seed 0 → 3" in str(caught.value)
    assert len(trials_of(study)) == 1
    # What does not change the figures may change.
    assert (
        run_study(load_study(write(sampler={"kind": "random"}, trials=2)), images=study.images).finished == 2
    )


def test_a_storage_with_several_studies_asks_which(write: Callable[..., Path]) -> None:
    study = load_study(write())
    held = open_storage(study.url)
    with pytest.raises(StudyError, match="it holds none"):
        study_status(held)
    for name in ("a", "b"):
        run_study(study.model_copy(update={"name": name}), trials=1)
    with pytest.raises(StudyError, match="it holds a, b; choose one with --name"):
        study_status(held)
    assert study_status(held, "b").complete == 1
    with pytest.raises(StudyError, match="study 'c': not in the storage; it holds a, b"):
        best_profiles(held, "c")
