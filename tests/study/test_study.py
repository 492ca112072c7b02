"""Studies: their files, spaces and figures; resumed, shared and pruned; what they hand out."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from PIL import Image

import lof
from lof.cli import main
from lof.errors import StudyError
from lof.profiles import load_profile
from lof.report.rate_distortion import bjontegaard_deltas
from lof.study import Bench, Ended, best_profiles, load_study, open_storage, read_images, run_study
from lof.study.schema import Study
from lof.study.shared import FIGURES, OWNER, SharedStudy, load_shared
from lof.study.space import profile_at
from lof.study.status import study_status

BASE = {"kind": "mean-field", "evaluations": 3, "learning_rate": 0.2, "steps": 1}
RATE = {"path": "stage.0.learning_rate", "low": 0.05, "high": 10.0, "log": True}


@pytest.fixture
def photos(tmp_path: Path, photograph: NDArray[np.uint8]) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(2):
        Image.fromarray(photograph[index * 100 :][:64, 150:214]).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def write(tmp_path: Path, photos: Path) -> Callable[..., Path]:
    def write_study(**changes: Any) -> Path:
        content: dict[str, Any] = {
            "codec": "tiny",
            "images": ["photos"],
            "crops": {"size": 64},
            "pruner": {"kind": "none"},
            "sampler": {"startup": 3},
            "base": {"stage": [BASE]},
            "enqueue": ["base"],
            "space": [RATE],
        }
        content |= changes
        path = tmp_path / "search.toml"
        pairs = (f"{key} = {toml(value)}" for key, value in content.items() if value is not None)
        path.write_text("\n".join(pairs), encoding="utf-8")
        return path

    return write_study


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The whole command line, in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["lof", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return call


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value)


def trials_of(study: Study) -> list[Any]:
    assert study.storage is not None
    return load_shared(open_storage(study.storage), None)[1].get_trials()


def finished(trials: list[Any]) -> dict[int, Any]:
    return {t.number: (t.params, t.values) for t in trials if t.state.name in ("COMPLETE", "PRUNED")}


def start(path: Path, trials: int) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "lof", "study", "run", path, "--trials", str(trials)]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_finished(study: Study, count: int, process: subprocess.Popen[bytes]) -> None:
    file = Path(str(study.storage).removeprefix("sqlite:///"))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the process ended too early"
        try:
            if file.exists() and len(finished(trials_of(study))) >= count:
                return
        except StudyError:  # not made yet
            pass
        time.sleep(0.2)
    raise AssertionError("no trial was finished in two minutes")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, "colour: unknown key; allowed: name, codec"),
        ({"space": [RATE | {"lo": 1}]}, "space[0].lo: unknown key; allowed: path, split, low"),
        ({"space": []}, "space: tuple should have at least 1 item"),
        ({"space": [RATE | {"low": 20.0}]}, "low < high"),
        (
            {"space": [RATE | {"high": 11.0}]},
            "stage.0.learning_rate = 11.0: stage[0].learning_rate: input should",
        ),
        (
            {"space": [RATE | {"path": "stage.0.rate"}]},
            "stage.0.rate: not in the profile; it has evaluations",
        ),
        ({"space": [RATE | {"path": "stage.3.rate"}]}, "'3' is not in the profile; it has 0 to 0 there"),
        ({"space": [RATE, RATE]}, "each parameter once"),
        ({"space": [{"path": "stage.0.kind", "choices": ["relax"]}]}, "two or more different values"),
        ({"enqueue": [{"stage.0.learning_rate": 0.01}]}, "0.01 is outside of 0.05…10.0; widen the space"),
        ({"enqueue": [{"rate": 0.1}]}, "enqueue[0]: rate is not in the space; it has stage.0.learning_rate"),
        ({"enqueue": ["fast"]}, "enqueue[0]: fast differs from base outside of the space"),
        ({"objectives": ["seconds"]}, "objectives: cost or bd-rate, then"),
        ({"objectives": ["bd-rate"]}, "bd-rate needs two qualities or more"),
        ({"codec": "tinny"}, "did you mean tiny?"),
        ({"qualities": [4, 9]}, "no quality 9"),
        ({"base": "fasst"}, "did you mean fast?"),
        ({"base": {"stage": [BASE | {"steps": 0}]}}, "base: stage[0].steps: input should be greater"),
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


def test_a_trial_is_worth_what_its_files_are(write: Callable[..., Path], photos: Path) -> None:
    study = load_study(write())
    ended: list[Any] = []
    summary = run_study(study, trials=2, on_event=lambda e: ended.append(e) if isinstance(e, Ended) else None)
    assert (summary.finished, summary.running, summary.limit) == (2, 0, 2)
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
    path = write(codec="mean-scale-96", qualities=[6, 2], objectives=["bd-rate", "gradient-evaluations"])
    study = load_study(str(path))  # as a notebook would
    (photos / "1.png").unlink()
    run_study(study, trials=1)
    (trial,) = trials_of(study)
    picture = np.asarray(Image.open(photos / "0.png"))
    results = [lof.optimize(picture, quality=quality, profile=study.profile) for quality in (2, 6)]
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


EVALUATIONS = {"path": "stage.0.evaluations", "low": 1, "high": 6}


def test_trials_that_fall_behind_are_stopped(write: Callable[..., Path]) -> None:
    hopeless = {"stage.0.learning_rate": 10.0}
    pruner = {"kind": "median", "startup": 1, "warmup": 2}
    study = load_study(write(pruner=pruner, enqueue=["base", hopeless], crops={"size": 32}))
    ended: list[Ended] = []
    run_study(study, trials=2, on_event=lambda e: ended.append(e) if isinstance(e, Ended) else None)
    assert [trial.state.name for trial in trials_of(study)] == ["COMPLETE", "COMPLETE"]
    study = study.model_copy(update={"pruner": study.pruner.model_copy(update={"warmup": 0})})
    again = study.model_copy(update={"name": "again", "objectives": ("cost", "gradient-evaluations")})
    for one in (study.model_copy(update={"name": "other"}), again):
        ended.clear()
        run_study(one, trials=2, on_event=lambda e: ended.append(e) if isinstance(e, Ended) else None)
        assert [(event.figures is None, event.steps) for event in ended] == [(False, 2), (True, 1)]


@pytest.mark.filterwarnings("error::optuna.exceptions.ExperimentalWarning")  # a terminal would show it
def test_a_killed_study_keeps_its_finished_trials_and_tries_the_rest_again(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write(storage=str(tmp_path / "search.log"), base={"stage": [BASE | {"evaluations": 10}]})
    study = load_study(path)
    process = start(path, 1000)
    try:
        wait_for_finished(study, 2, process)
        while not any(
            trial.state.name == "RUNNING" and OWNER in trial.user_attrs for trial in trials_of(study)
        ):
            time.sleep(0.05)  # a trial that nobody claims yet is only given up after minutes
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = trials_of(study)
    done = finished(before)
    assert len(done) >= 2
    left = [trial for trial in before if trial.state.name == "RUNNING"]
    joined: list[Any] = []
    limit = len(done) + 2
    summary = run_study(study, trials=limit, on_event=joined.append)
    assert joined[0].finished == len(done)
    assert joined[0].retired == [trial.number for trial in left]
    assert (summary.finished, summary.running) == (limit, 0)
    after = trials_of(study)
    assert {number: value for number, value in finished(after).items() if number in done} == done
    new = [trial.params for trial in after if trial.number not in done and trial.state.name == "COMPLETE"]
    assert all(trial.params in new for trial in left)
    assert study_status(open_storage(str(study.storage))).interrupted == [trial.number for trial in left]


def test_two_processes_share_a_study_and_do_not_overshoot(write: Callable[..., Path]) -> None:
    path = write(base={"stage": [BASE | {"evaluations": 100}]})
    study = load_study(path)
    process = start(path, 9)
    try:
        wait_for_finished(study, 1, process)
        run_study(study, trials=9)
        assert process.wait(120) == 0
    finally:
        process.kill()
    trials = trials_of(study)
    assert len(finished(trials)) == 9
    assert not [trial for trial in trials if trial.state.name in ("RUNNING", "WAITING")]
    assert len({trial.user_attrs[OWNER]["pid"] for trial in trials if trial.number in finished(trials)}) == 2
    assert len({json.dumps(trial.params) for trial in trials}) == len(trials)


def test_processes_that_make_the_same_study_at_once_try_its_points_once(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_study(write(enqueue=["base", {RATE["path"]: RATE["low"]}]))
    storage = open_storage(str(study.storage))
    add = optuna.Study.add_trial

    def add_late(found: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        time.sleep(0.3)
        add(found, trial)

    monkeypatch.setattr(optuna.Study, "add_trial", add_late)
    with ThreadPoolExecutor(3) as makers:
        made = list(makers.map(SharedStudy, [study] * 3, [storage] * 3, [{"images": []}] * 3))
    assert len({shared.optuna.study_name for shared in made}) == 1
    assert [trial.state.name for trial in trials_of(study)] == ["WAITING", "WAITING"]


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
    storage = open_storage(str(study.storage))
    with pytest.raises(StudyError, match="it holds none"):
        study_status(storage)
    for name in ("a", "b"):
        run_study(study.model_copy(update={"name": name}), trials=1)
    with pytest.raises(StudyError, match="it holds a, b; choose one with --name"):
        study_status(storage)
    assert study_status(storage, "b").complete == 1
    with pytest.raises(StudyError, match="study 'c': not in the storage; it holds a, b"):
        best_profiles(storage, "c")


def test_a_trial_without_images_or_with_a_bad_one_says_so(
    write: Callable[..., Path], command: Callable[..., tuple[int, str, str]], photos: Path
) -> None:
    path = write(images=None)
    assert "names no images; set images = [...] or give --images" in command("study", "run", path)[2]
    (photos / "1.png").write_bytes(b"nothing")
    code, _, error = command("study", "run", path, "--images", photos)
    assert code == 1
    assert "1.png" in error


def test_a_torn_line_of_a_journal_is_dropped(write: Callable[..., Path], tmp_path: Path) -> None:
    study = load_study(write(storage=str(tmp_path / "search.log")))
    run_study(study, trials=1)
    with (tmp_path / "search.log").open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    assert run_study(study, trials=2).finished == 2


def test_a_study_on_ray_ends_in_the_same_storage(write: Callable[..., Path]) -> None:
    ray = pytest.importorskip("ray", reason="the extra lof[ray] is not installed")
    from lof.study.distributed import run_study_on_ray

    hopeless = {"stage.0.learning_rate": 10.0}
    pruner = {"kind": "median", "startup": 1, "warmup": 0}
    study = load_study(write(pruner=pruner, enqueue=["base", hopeless]))
    local = study.model_copy(update={"name": "local"})
    run_study(local, trials=1)
    ended: list[Ended] = []
    try:
        summary = run_study_on_ray(
            study,
            "local",
            workers=2,
            trials=5,
            on_event=lambda e: ended.append(e) if isinstance(e, Ended) else None,
        )
    finally:
        ray.shutdown()
    assert (summary.finished, summary.running) == (5, 0)
    storage = open_storage(str(study.storage))
    first = load_shared(storage, "search")[1].get_trials()[0]
    assert first.value == load_shared(storage, "local")[1].get_trials()[0].value
    status = study_status(storage, "search")
    assert (status.complete + status.stopped, status.failed) == (5, [])
    assert status.stopped == sum(event.figures is None for event in ended)
    assert run_study(study, trials=6).finished == 6
