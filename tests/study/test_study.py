"""Running studies: figures of trials; pruned, killed, shared and failed ones; what they hand out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from fresh import fresh, silent_lof
from PIL import Image
from study_tools import BASE, HOPELESS, RATE, finished, trials_of

import lof
from lof.codecs import Codec, Request, codec_spec, register
from lof.codecs.lapped.codec import LappedCodec
from lof.errors import SearchError, StudyError
from lof.pools import make_pool
from lof.profiles import load_profile
from lof.report.rate_distortion import bjontegaard_deltas
from lof.study import (
    Bench,
    Figures,
    Finished,
    Started,
    best_profiles,
    load_study,
    open_storage,
    read_images,
    run_study,
    storage,
    study_status,
)
from lof.study.measure import Measurement
from lof.study.run import Trials
from lof.study.schema import Range, Study
from lof.study.stored import FIGURES, REASON, create_or_load, load_stored


def start(path: Path, trials: int) -> BaseProcess:
    return fresh(silent_lof, "study", "run", str(path), "--trials", str(trials))


def wait_for_finished(study: Study, count: int, process: BaseProcess) -> None:
    file = Path(str(study.storage).removeprefix("sqlite:///"))
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert process.is_alive(), "the process ended too early"
        try:
            if file.exists() and len(finished(trials_of(study))) >= count:
                return
        except StudyError:  # not made yet
            pass
        time.sleep(0.2)
    raise AssertionError("no trial was finished in ten minutes")


def test_a_trial_is_worth_what_its_files_are(write: Callable[..., Path], photos: Path) -> None:
    study = load_study(write())
    ended: list[Any] = []
    summary = run_study(
        study, trials=2, on_event=lambda e: ended.append(e) if isinstance(e, Finished) else None
    )
    assert (summary.finished, summary.running) == (2, 0)
    first, second = trials_of(study)
    assert first.params == {"stage.0.learning_rate": 0.2}
    assert second.params != first.params
    results = [
        lof.optimize(np.asarray(Image.open(path)), codec="tiny", profile=study.profile)
        for path in sorted(photos.glob("*.png"))
    ]
    changes = [result.optimised.cost / result.baseline.cost - 1 for result in results]
    assert first.value == pytest.approx(sum(changes) / 2, abs=1e-12)
    assert first.value < -0.01
    assert first.user_attrs[FIGURES]["evaluations"] == sum(r.evaluations for r in results) / 2
    assert [event.number for event in ended] == [0, 1]


def test_bd_rate_is_that_of_the_files_at_all_rate_points(write: Callable[..., Path], photos: Path) -> None:
    path = write(codec="lapped-tiny", qualities=[6, 2], objectives=["bd-rate", "gradient-evaluations"])
    study = load_study(str(path))  # as a notebook would
    (photos / "1.png").unlink()
    run_study(study, trials=1)
    (trial,) = trials_of(study)
    picture = np.asarray(Image.open(photos / "0.png"))
    results = [
        lof.optimize(picture, codec="lapped-tiny", quality=quality, profile=study.profile)
        for quality in (2, 6)
    ]
    plain, found = (
        [(m.bpp, m.psnr) for m in side]
        for side in ([r.baseline for r in results], [r.optimised for r in results])
    )
    delta = bjontegaard_deltas(plain, found)
    assert delta is not None
    assert trial.values == pytest.approx([delta[0], study.profile.evaluations])


@pytest.mark.filterwarnings("error::UserWarning:optuna", "error::FutureWarning:optuna")  # seen on a terminal
def test_what_best_writes_is_a_profile_that_reproduces_the_trial(
    write: Callable[..., Path], command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path = write(objectives=["cost", "gradient-evaluations"], space=[RATE, EVALUATIONS])
    assert command("study", "run", path, "--trials", 5)[0] == 0
    code, out, _ = command("study", "best", path, "-o", "found")
    assert code == 0
    study = load_study(path)
    best = best_profiles(open_storage(str(study.storage)))
    values = [(one.figures.evaluations, one.figures.cost) for one in best]
    assert values == sorted(values)
    assert [cost for _, cost in values] == sorted((cost for _, cost in values), reverse=True)
    bench = Bench(study, read_images(study))
    for number, one in enumerate(best, start=1):
        file = Path("found") / f"search-{number}.toml"
        assert str(file) in out
        profile = load_profile(file)
        measured = bench.measure(profile).figures
        assert measured is not None
        assert measured.cost == pytest.approx(one.figures.cost, abs=1e-12)
        assert f"cost {100 * one.figures.cost:.1f} %".replace("-", "−") in profile.summary
        assert "2 crops of 64×64, tiny quality 4" in profile.summary
    pngs = {file.name: Image.open(file).size for file in Path("found").glob("*.png")}
    assert set(pngs) == {"history.png", "pareto.png", "importance.png"}
    assert "5 complete" in command("study", "status", path)[1]
    status = json.loads(command("study", "status", path, "--json")[1])
    assert (status["study"], status["complete"], status["failed"]) == ("search", 5, [])
    assert [one["cost"] for one in status["best"]] == [one.figures.cost for one in best]


@pytest.fixture(scope="session")
def guests() -> None:
    """Codecs of other packages, by another default quality."""

    def load(request: Request) -> Codec:
        codec = LappedCodec.load(replace(request, spec=codec_spec("lapped-tiny")))
        codec.name = request.spec.name
        return codec

    for name, quality in (("half-of-a-test", 4.5), ("lost-of-a-test", 9)):
        spec = replace(codec_spec("lapped-tiny"), name=name, default_quality=quality, source="none")
        register(spec)(load)


@pytest.mark.usefixtures("guests")
@pytest.mark.parametrize(
    "changes", [{"codec": "half-of-a-test"}, {"codec": "lapped-tiny", "qualities": [4.5]}]
)
def test_a_quality_between_two_whole_ones_can_be_studied(
    write: Callable[..., Path], changes: dict[str, Any]
) -> None:
    study = load_study(write(**changes))
    assert run_study(study, trials=1).complete == 1
    held = open_storage(study.url)
    assert study_status(held).study.qualities == (4.5,)
    assert f"{changes['codec']} quality 4.5; study search" in best_profiles(held)[0].profile.summary
    assert run_study(load_study(write(**changes)), trials=2).complete == 2


FRACTION = {"path": "stage.0.fraction", "low": 0, "high": 1}


@pytest.mark.filterwarnings("error::UserWarning:optuna")
def test_the_schema_of_profiles_says_which_parameters_are_whole(write: Callable[..., Path]) -> None:
    variance = {"path": "stage.0.variance.end", "low": 0, "high": 1.3, "step": 0.5}
    steps = {"path": "stage.0.steps", "low": 1.0, "high": 4.0}
    study = load_study(write(space=[FRACTION, variance, steps]))
    run_study(study, trials=4)
    first, *later = [trial.params for trial in trials_of(study)]
    assert first == {"stage.0.fraction": 0.35, "stage.0.variance.end": 1.0, "stage.0.steps": 1}
    assert all(0 < point["stage.0.fraction"] < 1 for point in later)
    assert {point["stage.0.variance.end"] for point in later} <= {0.0, 0.5, 1.0}
    assert all(isinstance(point["stage.0.steps"], int) for point in later)
    assert run_study(load_study(write(space=[FRACTION, variance, steps])), trials=5).finished == 5


def test_a_study_that_an_earlier_version_began_with_whole_numbers_goes_on_with_them(
    write: Callable[..., Path],
) -> None:
    study = load_study(write(space=[FRACTION], enqueue=None))
    whole = study.model_copy(update={"space": (Range(**FRACTION),)})
    run_study(whole, trials=1)
    assert run_study(study, trials=4).complete == 4
    assert {trial.params["stage.0.fraction"] for trial in trials_of(study)} <= {0, 1}


def test_a_point_that_is_no_profile_is_a_failed_trial_and_the_others_are_tried(
    write: Callable[..., Path], command: Callable[..., tuple[int, str, str]]
) -> None:
    flips = {"kind": "greedy-flip", "evaluations": 3}
    either = [{"path": f"stage.{stage}.evaluations", "choices": [0, 3]} for stage in (0, 1)]
    path = write(base={"stage": [BASE, flips]}, space=either, sampler={"kind": "random"})
    code, out, _ = command("study", "run", path, "--trials", 12, "--json")
    assert code == 0
    ended = [json.loads(line) for line in out.splitlines()]
    assert [event["number"] for event in ended] == list(range(12))
    failed = [event for event in ended if event["reason"]]
    assert 0 < len(failed) < 12
    for event in failed:
        assert (event["reason"], event["steps"]) == ("stage: must be a list of at least 1", 0)
        assert set(trials_of(load_study(path))[event["number"]].params.values()) == {0}
    status = study_status(open_storage(load_study(path).url))
    assert (status.complete, len(status.failed), status.waiting) == (12 - len(failed), len(failed), 0)
    assert f"trial {failed[0]['number']} failed: stage: must" in command("study", "status", path)[1]


@pytest.mark.usefixtures("guests")
def test_a_default_quality_that_the_codec_does_not_have_is_said_at_once(write: Callable[..., Path]) -> None:
    with pytest.raises(StudyError, match=r"search\.toml: codec lost-of-a-test: no quality 9; it has"):
        load_study(write(codec="lost-of-a-test"))


EVALUATIONS = {"path": "stage.0.evaluations", "low": 1, "high": 6}


def test_trials_that_fall_behind_are_stopped(write: Callable[..., Path]) -> None:
    pruner = {"kind": "median", "startup": 1, "warmup": 2}
    study = load_study(write(pruner=pruner, enqueue=["base", HOPELESS], crops={"size": 32}))
    ended: list[Finished] = []
    run_study(study, trials=2, on_event=lambda e: ended.append(e) if isinstance(e, Finished) else None)
    assert [trial.state.name for trial in trials_of(study)] == ["COMPLETE", "COMPLETE"]
    study = study.model_copy(update={"pruner": study.pruner.model_copy(update={"warmup": 0})})
    again = study.model_copy(update={"name": "again", "objectives": ("cost", "gradient-evaluations")})
    for one in (study.model_copy(update={"name": "other"}), again):
        ended.clear()
        run_study(one, trials=2, on_event=lambda e: ended.append(e) if isinstance(e, Finished) else None)
        assert [(event.figures is None, event.steps) for event in ended] == [(False, 2), (True, 1)]


@pytest.mark.long
@pytest.mark.filterwarnings("error::optuna.exceptions.ExperimentalWarning")  # a terminal would show it
def test_a_killed_study_keeps_its_finished_trials_and_tries_the_rest_again(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(base={"stage": [BASE | {"evaluations": 10}]})
    study = load_study(path)
    running: list[optuna.trial.FrozenTrial] = []
    while not running:  # a trial may end just before the kill
        process = start(path, 1000)
        try:
            wait_for_finished(study, 2, process)
            while not any(trial.state.name == "RUNNING" and trial.params for trial in trials_of(study)):
                time.sleep(0.05)
        finally:
            process.kill()
            process.join()
        before = trials_of(study)
        running = [trial for trial in before if trial.state.name == "RUNNING"]
    done = finished(before)
    assert len(done) >= 2
    (left,) = running
    monkeypatch.setattr(storage, "GRACE_SECONDS", 1)
    time.sleep(2.1)  # until it counts as abandoned
    limit = len(done) + 3  # the abandoned one counts as running at first
    opened: list[Any] = []
    run_study(study, trials=limit, on_event=opened.append)
    assert opened[0].finished == len(done)
    after = trials_of(study)
    assert {number: value for number, value in finished(after).items() if number in done} == done
    new = [trial.params for trial in after if trial.number not in done and trial.state.name == "COMPLETE"]
    assert left.params in new
    assert study_status(open_storage(study.url)).interrupted == 1


@pytest.mark.long
def test_two_processes_share_a_study(write: Callable[..., Path]) -> None:
    path = write(base={"stage": [BASE | {"evaluations": 30}]})
    study = load_study(path)
    process = start(path, 9)
    ended: list[Any] = []
    try:
        wait_for_finished(study, 1, process)
        run_study(study, trials=9, on_event=lambda e: ended.append(e) if isinstance(e, Finished) else None)
        process.join(300)
        assert process.exitcode == 0
    finally:
        process.kill()
    trials = trials_of(study)
    assert len(finished(trials)) in (9, 10)  # both may begin a last one at the same moment
    assert 0 < len(ended) < len(finished(trials))
    assert not [trial for trial in trials if trial.state.name in ("RUNNING", "WAITING")]
    assert len({json.dumps(trial.params) for trial in trials}) == len(trials)


def test_two_workers_of_one_call_do_not_overshoot(write: Callable[..., Path]) -> None:
    study = load_study(write())
    assert run_study(study, pool=make_pool(2), trials=3).finished == 3
    trials = trials_of(study)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert len({json.dumps(trial.params) for trial in trials}) == 3


def test_processes_that_make_the_same_study_at_once_try_its_points_once(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_study(write(enqueue=["base", {RATE["path"]: RATE["low"]}]))
    shared, bench = open_storage(study.url), Bench(study, read_images(study))
    add = optuna.Study.add_trial

    def add_late(found: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        time.sleep(0.3)
        add(found, trial)

    monkeypatch.setattr(optuna.Study, "add_trial", add_late)
    with ThreadPoolExecutor(3) as makers:
        made = list(makers.map(create_or_load, [study] * 3, [shared] * 3, [bench] * 3))
    assert len({found.study_name for found in made}) == 1
    assert [trial.state.name for trial in trials_of(study)] == ["WAITING", "WAITING"]


def test_an_image_whose_plain_encodings_have_no_bd_rate_ends_the_study_and_is_named(
    write: Callable[..., Path], photos: Path, tmp_path: Path
) -> None:
    held = Path(lof.__file__).parent / "codecs" / "data" / "mean-scale-96-2.safetensors"
    for quality in (2, 4):  # twice the same weights: a curve of one point
        shutil.copy(held, tmp_path / f"mean-scale-96-{quality}.safetensors")
    path = write(codec="mean-scale-96", qualities=[2, 4], objectives=["bd-rate"], weights=".")
    with pytest.raises(StudyError, match=r"^0\.png: its plain encodings at quality 2, 4 do not grow"):
        run_study(load_study(path), trials=2)


def test_a_study_ends_when_every_trial_fails_and_says_why(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_curve(*_: object) -> Measurement:
        return Measurement(Figures(-0.1, None, 3, 0.1), [-0.1], "1.png")

    monkeypatch.setattr(Bench, "measure", without_curve)
    study = load_study(write(codec="lapped-tiny", qualities=[2, 4], objectives=["bd-rate"]))
    with pytest.raises(StudyError, match=r"every trial failed; the last: 1\.png: no BD-rate"):
        run_study(study, trials=2)
    assert [trial.user_attrs[REASON][:5] for trial in trials_of(study)] == ["1.png"] * 2


def test_an_error_of_a_search_names_the_image_and_its_point_is_not_lost(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_memory(*_: object, **__: object) -> Any:
        raise SearchError("needs 9 GB of memory")

    study = load_study(write())
    monkeypatch.setattr(lof, "optimize_batch", without_memory)
    with pytest.raises(SearchError, match=r"^0\.png: needs 9 GB of memory$"):
        run_study(study, trials=2)
    failed, again = trials_of(study)
    assert (failed.state.name, again.state.name) == ("FAIL", "WAITING")
    assert failed.params == again.system_attrs["fixed_params"] == {RATE["path"]: 0.2}


def test_a_trial_without_images_or_with_a_bad_one_says_so(
    write: Callable[..., Path], command: Callable[..., tuple[int, str, str]], photos: Path
) -> None:
    path = write(images=None)
    assert "names no images; set images = [...] or give --images" in command("study", "run", path)[2]
    (photos / "1.png").write_bytes(b"nothing")
    code, _, error = command("study", "run", path, "--images", photos)
    assert code == 1
    assert "1.png" in error


def test_a_trial_that_another_process_ends_is_replaced(write: Callable[..., Path]) -> None:
    study = load_study(write())

    def end(event: Any) -> None:
        if isinstance(event, Started) and event.number == 0:
            _, found = load_stored(open_storage(study.url), "search")
            found.tell(0, state=optuna.trial.TrialState.FAIL)

    summary = run_study(study, trials=1, on_event=end)
    assert (summary.finished, summary.interrupted, summary.running) == (1, 1, 0)


def test_a_trial_that_two_workers_took_for_theirs_is_made_up_for(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite lets that happen, too seldom for a test: here one worker just says that it has had its trial."""
    real, calls = Trials._next, []

    def once_for_nothing(*arguments: Any) -> bool:
        calls.append(arguments)
        return True if len(calls) == 1 else real(*arguments)

    monkeypatch.setattr(Trials, "_next", once_for_nothing)
    assert run_study(load_study(write()), trials=2).finished == 2
    assert len(calls) == 3


@pytest.mark.long
def test_a_study_on_ray_ends_in_the_same_storage(write: Callable[..., Path]) -> None:
    ray = pytest.importorskip("ray", reason="the extra lof[ray] is not installed")
    pruner = {"kind": "median", "startup": 1, "warmup": 0}
    study = load_study(write(pruner=pruner, enqueue=["base", HOPELESS]))
    local = study.model_copy(update={"name": "local"})
    run_study(local, trials=1)
    ended: list[Finished] = []
    try:
        summary = run_study(
            study,
            pool=make_pool(2, ray="local", threads=1),
            trials=5,
            on_event=lambda e: ended.append(e) if isinstance(e, Finished) else None,
        )
    finally:
        ray.shutdown()
    assert (summary.finished, summary.running) == (5, 0)
    held = open_storage(study.url)
    first = load_stored(held, "search")[1].get_trials()[0]
    assert first.value == load_stored(held, "local")[1].get_trials()[0].value
    status = study_status(held, "search")
    assert (status.complete + status.stopped, status.failed) == (5, [])
    assert status.stopped == sum(event.figures is None and event.reason is None for event in ended)
    assert run_study(study, trials=6).finished == 6
