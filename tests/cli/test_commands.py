"""The command line as a whole, lists, profiles, samples, repack: what they print, what they write, how they exit."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from command_line import Run, files
from numpy.typing import NDArray
from PIL import Image

from lof.codecs import codec_specs, load_codec
from lof.profiles import (
    BUILT_IN,
    STAGE_KINDS,
    MeanFieldStage,
    Profile,
    RelaxStage,
    Schedule,
    load_profile,
    parse_profile,
)


def test_verbose_tells_where_an_error_arose(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    details = logging.getLogger("lof")
    monkeypatch.setattr(details, "handlers", [])
    monkeypatch.setattr(details, "level", details.level)
    assert "Traceback" not in run("decode", "missing.lof").err
    told = run("-v", "decode", "missing.lof")
    assert told.code == 2
    assert "Traceback" in told.err
    assert "missing.lof" in told.err.splitlines()[-1]


def test_one_mistake_in_a_profile_counts_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[[stage]]\nkind = "relax"\nevaluations = "many"\n')
    outcome = run("profiles", "mine.toml")
    assert outcome.code == 2
    assert outcome.err.strip().endswith("mine.toml: stage[0].evaluations: must be a whole number")


def test_h_is_help(run: Run) -> None:
    for command in ((), ("decode",), ("archive", "create")):
        assert run(*command, "-h") == run(*command, "--help")


def test_shells_complete_commands(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--install-completion" in run("--help").out
    for name, value in {"_LOF_COMPLETE": "complete_bash", "COMP_WORDS": "lof arc", "COMP_CWORD": "1"}.items():
        monkeypatch.setenv(name, value)
    assert run().out.split() == ["archive"]


def test_passwords_in_urls_are_not_shown(run: Run) -> None:
    outcome = run("optimize", "nowhere://me:secret@host/photos")
    assert outcome.code == 2
    assert "nowhere://me:***@host/photos" in outcome.err
    assert "secret" not in outcome.err


def test_a_terminal_that_knows_ascii_alone_gets_question_marks() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "lof", "codecs"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert b"?" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["decode"],
        ["decode", "nowhere"],
        ["verify", "empty"],
        ["verify", "--fast"],
        ["inspect"],
        ["inspect", "a", "b"],
        ["samples"],
        ["codecs", "extra"],
        ["profiles", "fats"],
        ["profiles", "fast", "--schema"],
        ["nothing"],
    ],
)
def test_wrong_usage_exits_with_2(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err


def test_codecs_lists_what_is_registered_and_where_weights_go(run: Run) -> None:
    outcome = run("codecs")
    assert outcome.code == 0
    for spec in codec_specs():
        source = "no weights" if spec.source == "none" else spec.source
        assert f"{spec.name}  {source}" in outcome.out
        assert spec.summary in outcome.out
    assert "tiny" not in outcome.out
    assert "msp  msp-fast, msp-base, msp-high: the one that suits the profile" in outcome.lines
    assert "lapped  bundled, the default" in outcome.lines
    assert "  mse      quality 2, 4, 5, 6  λ 0.0035–0.0483" in outcome.lines
    assert "  ms-ssim  quality 1–8         λ 2.4–220" in outcome.lines
    for word in ("--weights DIR", "LOF_WEIGHTS_DIR", "CODEC-QUALITY.safetensors", "CODEC-ms-ssim-QUALITY"):
        assert word in outcome.out
    found = json.loads(run("codecs", "--json").out)
    assert {codec["name"]: len(codec["rate_points"]) for codec in found} == {
        spec.name: len(spec.rate_points) for spec in codec_specs()
    }
    assert [codec["name"] for codec in found if codec["default"]] == ["lapped"]


def test_the_file_names_that_codecs_states_are_found(zoo_weights: Path) -> None:
    for metric, name in (("mse", "mbt2018-mean-1"), ("ms-ssim", "mbt2018-mean-ms-ssim-1")):
        assert (zoo_weights / f"{name}.safetensors").is_file()
        assert (
            load_codec("mbt2018-mean", 1, metric=metric, weights=zoo_weights, device="cpu").metric == metric
        )


def test_profiles_lists_each_with_its_budget(run: Run) -> None:
    outcome = run("profiles")
    assert max(map(len, outcome.lines)) <= 80
    for name in BUILT_IN:
        (row,) = [line.split() for line in outcome.lines if line.startswith(f"{name} ")]
        assert row[1] == str(load_profile(name).evaluations)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_printed_profile_is_the_same_profile(run: Run, name: str) -> None:
    printed = tomllib.loads(run("profiles", name).out)
    assert parse_profile(printed) == load_profile(name)
    for stage, parsed in zip(load_profile(name).stage, printed["stage"], strict=True):
        unset = {key for key, value in stage if value is None}
        assert parsed.keys() == type(stage).model_fields.keys() - unset


def test_a_profile_of_ones_own_is_printed_too(run: Run, tmp_path: Path) -> None:
    Path("mine.toml").write_text('summary = "a \\"quoted\\" ü"\n[[stage]]\nkind = "relax"\nevaluations = 3\n')
    printed = tomllib.loads(run("profiles", "mine.toml").out)
    assert (printed["name"], printed["summary"]) == ("mine", 'a "quoted" ü')
    assert printed["stage"][0]["temperature"]["shape"] == "exponential"


def test_the_schema_has_every_key_with_default_and_range(run: Run) -> None:
    outcome = run("profiles", "--schema")
    assert outcome.code == 0
    schema = json.loads(outcome.out)
    models = schema["$defs"] | {"Profile": schema}
    for model in (Profile, RelaxStage, Schedule):
        assert models[model.__name__]["properties"].keys() == model.model_fields.keys()
    hold = models["Schedule"]["properties"]["hold"]
    assert (hold["default"], hold["minimum"], hold["exclusiveMaximum"]) == (0, 0, 1)
    assert models["Schedule"]["properties"]["shape"]["enum"] == ["linear", "cosine", "exponential"]
    rates = models["MeanFieldStage"]["properties"]["learning_rate_of"]
    assert rates["default"] == MeanFieldStage(kind="mean-field", evaluations=1).learning_rate_of
    assert rates["description"]
    assert schema["properties"]["stage"]["items"]["discriminator"]["mapping"].keys() == set(STAGE_KINDS)


def test_samples_are_written_with_credits_and_the_next_step(run: Run, tmp_path: Path) -> None:
    outcome = run("samples", "some")
    assert outcome.code == 0
    assert outcome.lines[0].startswith("some/astronaut.png  Astronaut Eileen Collins. NASA")
    assert outcome.lines[-1] == "Now: lof optimize some"
    assert len(files(tmp_path / "some")) == 5
    (tmp_path / "some/coffee.png").write_bytes(b"mine")
    outcome = run("samples", "some")
    assert outcome.code == 1
    assert outcome.err.startswith("lof: some/coffee.png: is another file already; ")


def test_help_and_lists_of_profiles_need_no_torch() -> None:
    script = (
        "import sys; from lof.cli import main\n"
        "try: main()\n"
        "except SystemExit: print('torch' in sys.modules, 'matplotlib' in sys.modules, file=sys.stderr)"
    )
    for arguments in (["--help"], ["profiles"], ["decode", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], check=False, capture_output=True, text=True
        )
        assert done.stderr == "False False\n"
        assert done.stdout


def test_repack_keeps_the_picture_touches_no_source_and_names_what_it_cannot_do(
    run: Run, tmp_path: Path, crop: NDArray[np.uint8]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(crop).save(photos / "a.jpg", quality=80)
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0no")
    before = (photos / "a.jpg").read_bytes()
    outcome = run("repack", str(photos), "-o", str(tmp_path / "out"))
    packed = tmp_path / "out" / "a.jpg"
    assert outcome.code == 1
    assert f"failed: {photos / 'bad.jpg'}: is no JPEG, or one cut short; replace" in outcome.err
    assert packed.stat().st_size < len(before)
    assert np.array_equal(np.asarray(Image.open(packed)), np.asarray(Image.open(photos / "a.jpg")))
    again = run("repack", str(photos / "a.jpg"), "-o", str(photos), "--force")
    assert again.code == 1
    assert "is the source itself; choose another place with -o" in again.err
    assert (photos / "a.jpg").read_bytes() == before
