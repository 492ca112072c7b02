"""Fitting a profile to a codec: what is kept is better, what is written can be searched with."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from lof.cli import main
from lof.codecs import load_codec
from lof.errors import UsageError
from lof.profiles import MeanFieldStage, load_profile, parse_profile
from lof.search.tuning import half_bits, tune
from pipelines.variants import variant

TIMID = {"kind": "mean-field", "evaluations": 3, "learning_rate": 0.02, "fraction": 1.0}


@pytest.fixture
def images(photograph: NDArray[np.uint8]) -> torch.Tensor:
    parts = [photograph[64:128, 160:224], photograph[300:364, 200:264]]
    return torch.stack([torch.from_numpy(p.copy()).permute(2, 0, 1).float() / 255 for p in parts])


def test_steps_that_are_too_short_grow_until_they_no_longer_help(images: torch.Tensor) -> None:
    codec = load_codec("tiny", device="cpu", precision="fp32")
    trials = tune(parse_profile({"name": "timid", "stage": [TIMID]}), [codec], [images])
    first, shorter, *longer = islice(trials, 5)
    assert (first.change, shorter.change, shorter.kept) == ("", "steps ÷ 1.6", False)
    kept = [trial for trial in longer if trial.kept]
    assert {trial.change for trial in kept} == {"steps × 1.6"}
    costs = [first.cost, *(trial.cost for trial in kept)]
    assert costs == sorted(costs, reverse=True)
    assert kept[-1].cost < 1.4 * first.cost < 0
    (stage,) = kept[-1].profile.stage
    assert isinstance(stage, MeanFieldStage)
    assert stage.learning_rate > 0.03


@pytest.mark.parametrize(("codec", "kind"), [("tiny", "greedy-flip"), ("jpeg", "mean-field")])
def test_where_no_such_stage_runs_there_is_nothing_to_tune(
    images: torch.Tensor, codec: str, kind: str
) -> None:
    profile = parse_profile({"name": "short", "stage": [{"kind": kind, "evaluations": 2}]})
    with pytest.raises(UsageError, match="nothing to tune"):
        next(tune(profile, [load_codec(codec, device="cpu")], [images]))


def test_a_finer_grid_of_z_makes_half_a_bit_a_longer_step_of_z_alone(images: torch.Tensor) -> None:
    own, finer = (half_bits(variant(name, device="cpu"), images) for name in ("tiny:4", "tiny:4:z*8"))
    assert finer["z"] / own["z"] == pytest.approx(8, rel=0.6)
    assert finer["y"] / own["y"] == pytest.approx(1, rel=0.3)


def test_the_command_writes_a_profile_once(
    tmp_path: Path,
    photograph: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*more: str) -> tuple[object, str, str]:
        monkeypatch.setattr(
            sys, "argv", ["lof", "tune", "tiny", "a.png", "--profile", "timid.toml", "--crop", "64", *more]
        )
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code or 0, *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    Image.fromarray(photograph[64:128, 160:224]).save("a.png")
    stage = "\n".join(f"{key} = {json.dumps(value)}" for key, value in TIMID.items())
    Path("timid.toml").write_text(f"[[stage]]\n{stage}\n")
    code, out, _ = run("--json", "-o", "found.toml")
    assert code == 0
    trials = [line for line in map(json.loads, out.splitlines()) if "cost" in line]
    tuned = load_profile("found.toml")
    assert tuned.name == "timid-tiny"
    assert f"{100 * trials[0]['cost']:.1f}".replace("-", "−") in tuned.summary
    assert tuned.summary.endswith(" on 1 crop with tiny")  # of the four that there may be
    before = Path("found.toml").read_bytes()
    code, _, err = run("-o", "found.toml")
    assert (code, err.count("\n")) == (2, 1)
    assert Path("found.toml").read_bytes() == before
