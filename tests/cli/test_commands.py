"""The commands around streams and lists: what they print, what they write, how they exit."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

import lof
from lof.cli import main
from lof.codecs import codec_specs, load_codec
from lof.pictures.picture import Picture
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

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Run = Callable[..., Outcome]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """The whole command line, in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["lof", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        code = stop.value.code
        return Outcome(code if isinstance(code, int) else 0, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def picture(crop: NDArray[np.uint8]) -> Picture:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    return Picture(crop[:100, :90], {b"iccp": ICC, b"exif": exif.tobytes().removeprefix(b"Exif\0\0")})


@pytest.fixture(scope="module")
def stream(picture: Picture) -> bytes:
    return lof.encode(picture, codec="tiny")


@pytest.fixture(scope="module")
def zoo_stream(crop: NDArray[np.uint8], zoo_weights: Path) -> bytes:
    codec = load_codec("mbt2018-mean", 1, weights=zoo_weights, device="cpu")
    return lof.encode(crop, codec=codec, format="compressai")


@pytest.fixture
def folder(tmp_path: Path, stream: bytes) -> Path:
    """Two good streams, a damaged one between them, and something else."""
    put(tmp_path / "in/a.jpg.lof", stream)
    put(tmp_path / "in/deep/c.jpg.lof", stream)
    put(tmp_path / "in/b.jpg.lof", stream[:-30])
    put(tmp_path / "in/notes.txt", b"no stream")
    return tmp_path


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


DAMAGED = "b.jpg.lof: is damaged or cut short (its checksum does not match); copy it again from its source"


def test_verbose_tells_where_an_error_arose(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    details = logging.getLogger("lof")
    monkeypatch.setattr(details, "handlers", [])
    monkeypatch.setattr(details, "level", details.level)
    assert "Traceback" not in run("decode", "missing.lof").err
    told = run("-v", "decode", "missing.lof")
    assert told.code == 2
    assert "Traceback" in told.err
    assert "missing.lof" in told.err.splitlines()[-1]


def test_decoding_gives_the_pixels_and_metadata_of_the_api(run: Run, folder: Path, stream: bytes) -> None:
    assert run("decode", "in/a.jpg.lof") == (0, "in/a.jpg.lof → in/a.jpg.png\n", "")
    with Image.open(folder / "in/a.jpg.png") as image:
        assert np.array_equal(np.asarray(image), lof.decode(stream).pixels)
        assert image.info["icc_profile"] == ICC
        assert image.getexif()[0x010F] == "Maker"


def test_a_folder_is_decoded_but_for_what_is_damaged(run: Run, folder: Path) -> None:
    outcome = run("decode", "in", "-o", "out")
    assert outcome.code == 1
    assert outcome.lines == [
        "in/a.jpg.lof → out/a.jpg.png",
        "in/deep/c.jpg.lof → out/deep/c.jpg.png",
    ]
    assert outcome.err.splitlines() == [f"failed: in/{DAMAGED}", "1 of 3 streams not decoded"]
    assert files(folder / "out") == ["a.jpg.png", "deep/c.jpg.png"]


def test_one_stream_can_become_one_named_file(run: Run, folder: Path) -> None:
    assert run("decode", "in/a.jpg.lof", "-o", "new/x.PNG").code == 0
    assert files(folder / "new") == ["x.PNG"]
    outcome = run("decode", "in", "-o", "y.png")
    assert (outcome.code, outcome.err) == (2, "lof: -o y.png: one file for 3 streams; name a folder\n")
    assert not (folder / "y.png").exists()


def test_another_picture_is_not_overwritten_unless_forced(run: Run, folder: Path) -> None:
    target = folder / "in/a.jpg.png"
    target.write_bytes(b"mine")
    outcome = run("decode", "in/a.jpg.lof")
    assert outcome.code == 1
    assert (
        "in/a.jpg.png: is another file already; choose another place with -o, or add --force" in outcome.err
    )
    assert target.read_bytes() == b"mine"
    assert run("decode", "--force", "in/a.jpg.lof").code == 0
    written = target.stat().st_mtime_ns
    assert run("decode", "in/a.jpg.lof").out == "in/a.jpg.lof → in/a.jpg.png (there already)\n"
    assert target.stat().st_mtime_ns == written


def test_streams_that_would_become_the_same_file_are_refused(run: Run, folder: Path, stream: bytes) -> None:
    put(folder / "in/a.jpg.bin", stream)
    outcome = run("decode", "in", "-o", "out")
    assert outcome.code == 2
    assert "in/a.jpg.bin and in/a.jpg.lof: both would become out/a.jpg.png" in outcome.err
    assert not (folder / "out").exists()


def test_a_stream_of_any_name_is_decoded(run: Run, folder: Path, stream: bytes) -> None:
    put(folder / "photo.jpg", stream)
    assert run("decode", "photo.jpg").out == "photo.jpg → photo.jpg.png\n"


def test_an_output_folder_that_cannot_be_is_one_line(run: Run, folder: Path) -> None:
    outcome = run("decode", "in/a.jpg.lof", "-o", "in/notes.txt")
    assert outcome.code == 1
    assert outcome.err.startswith("failed: in/notes.txt/a.jpg.png: cannot be written (")


def test_both_formats_are_decoded_with_the_weights_at_hand(
    run: Run, folder: Path, zoo_stream: bytes, zoo_weights: Path
) -> None:
    put(folder / "zoo.bin", zoo_stream)
    assert run("decode", "zoo.bin", "--weights", str(zoo_weights)).code == 0
    with Image.open(folder / "zoo.png") as image:
        assert np.array_equal(np.asarray(image), lof.decode(zoo_stream, weights=zoo_weights).pixels)


def test_verify_names_every_stream_and_fails_at_the_end(run: Run, folder: Path) -> None:
    outcome = run("verify", "in")
    assert outcome.code == 1
    assert outcome.lines == [
        "ok         in/a.jpg.lof",
        f"damaged    in/{DAMAGED}",
        "ok         in/deep/c.jpg.lof",
    ]
    assert outcome.err == "2 ok, 1 damaged, 0 unchecked\n"
    assert files(folder / "in") == ["a.jpg.lof", "b.jpg.lof", "deep/c.jpg.lof", "notes.txt"]


def test_verify_tells_missing_weights_from_damage(
    run: Run, folder: Path, zoo_stream: bytes, zoo_weights: Path
) -> None:
    put(folder / "zoo/good.bin", zoo_stream)
    put(folder / "zoo/short.bin", zoo_stream[:-4])
    (folder / "empty").mkdir()
    outcome = run("verify", "zoo", "--weights", str(zoo_weights))
    assert outcome.code == 1
    assert outcome.lines[0] == "ok         zoo/good.bin: it decodes; this format has no checksum"
    assert outcome.lines[1].startswith("damaged    zoo/short.bin: is cut short (")
    outcome = run("verify", "zoo/good.bin", "--weights", "empty")
    assert outcome.code == 3
    assert outcome.lines[0].startswith("unchecked  ")
    assert "no weights of mbt2018-mean quality 1" in outcome.lines[0]
    assert outcome.err == "0 ok, 0 damaged, 1 unchecked\n"


def test_streams_of_more_pixels_than_asked_for_are_refused_before_any_work(run: Run, folder: Path) -> None:
    for command in ("verify", "decode"):
        outcome = run(command, "in/a.jpg.lof", "--max-pixels", "100")
        assert outcome.code == 1
        assert "pixels" in outcome.out + outcome.err
    assert not (folder / "in/a.jpg.png").exists()


def test_verify_of_good_streams_succeeds_quietly(run: Run, folder: Path) -> None:
    assert run("verify", "in/a.jpg.lof") == (0, "ok         in/a.jpg.lof\n", "")


def test_verify_decode_and_profiles_speak_json(run: Run, folder: Path) -> None:
    (folder / "bad.lof").write_bytes(b"no stream")
    outcome = run("verify", str(folder), "--json")
    verdicts = {Path(row["file"]).name: row["verdict"] for row in map(json.loads, outcome.lines)}
    assert outcome.code == 1
    assert verdicts["bad.lof"] == "damaged"
    assert "ok" in verdicts.values()

    outcome = run("decode", str(folder), "-o", "out", "--json")
    rows = {Path(row["file"]).name: row for row in map(json.loads, outcome.lines)}
    assert outcome.code == 1
    assert rows["bad.lof"]["output"] is None
    assert rows["bad.lof"]["error"].startswith(str(folder / "bad.lof"))
    written = [row["output"] for row in rows.values() if row["error"] is None]
    assert written
    assert all(Path(path).is_file() for path in written)

    assert [profile["name"] for profile in json.loads(run("profiles", "--json").out)] == list(BUILT_IN)
    assert "stage" in json.loads(run("profiles", "--schema", "--json").out)["properties"]


def test_quiet_commands_name_only_what_is_wrong(run: Run, folder: Path) -> None:
    assert run("verify", "in", "--quiet").lines == [f"damaged    in/{DAMAGED}"]
    assert run("verify", "in/a.jpg.lof", "--quiet") == (0, "", "")
    assert run("decode", "in/a.jpg.lof", "--quiet") == (0, "", "")


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


def test_inspect_accounts_for_every_byte(run: Run, folder: Path, stream: bytes, picture: Picture) -> None:
    found = json.loads(run("inspect", "--json", "in/a.jpg.lof").out)
    codec = load_codec("tiny", device="cpu")
    strings = {string["name"]: string["bytes"] for string in found["strings"]}
    assert list(strings) == ["y", "z"]
    assert found["boxes"] == {"exif": len(picture.exif or b""), "iccp": len(ICC)}
    total = sum(strings.values()) + sum(found["boxes"].values()) + found["overhead_bytes"]
    assert total == found["bytes"] == len(stream)
    assert found["bpp"] == pytest.approx(8 * len(stream) / 9000)
    assert (found["height"], found["width"]) == (100, 90)
    assert codec.fingerprint.hex().startswith(found["fingerprint"])
    assert 0 < found["scale_margin"] < 1
    assert found["problem"] is None


def test_inspect_explains_itself_in_80_columns(run: Run, folder: Path) -> None:
    outcome = run("inspect", "in/a.jpg.lof")
    assert outcome.code == 0
    assert max(map(len, outcome.lines)) <= 80
    text = " ".join(outcome.out.split())
    assert text.startswith(
        "in/a.jpg.lof format lof's own format codec tiny, quality 4, trained for mse weights fingerprint "
    )
    assert "image 90 × 100 pixels" in text
    assert "bytes of header, lengths and checksum" in text
    assert f"box iccp {len(ICC)} bytes" in text
    assert "a decoder reads this file right if it computes every σ within this share of ours" in text


def test_inspect_without_weights_shows_what_the_file_says(
    run: Run, folder: Path, zoo_stream: bytes, zoo_weights: Path
) -> None:
    put(folder / "zoo.bin", zoo_stream)
    (folder / "empty").mkdir()
    known = json.loads(run("inspect", "--json", "zoo.bin", "--weights", str(zoo_weights)).out)
    outcome = run("inspect", "--json", "zoo.bin", "--weights", "empty")
    unknown = json.loads(outcome.out)
    assert outcome.code == 0
    assert (known["format"], known["codec"], known["fingerprint"]) == ("compressai", "mbt2018-mean", None)
    assert known["scale_margin"] > 0
    assert unknown["scale_margin"] is None
    assert "no weights of mbt2018-mean quality 1" in unknown["problem"]
    assert [string["name"] for string in unknown["strings"]] == ["string 1", "string 2"]
    differing = {"problem", "scale_margin", "strings"}
    assert {k: v for k, v in known.items() if k not in differing} == {
        k: v for k, v in unknown.items() if k not in differing
    }
    text = " ".join(run("inspect", "zoo.bin", "--weights", "empty").out.split())
    assert "not stated in this format; not at hand, so less is shown: " in text
    assert "bytes of header and lengths" in text
    assert "checksum" not in text
    assert "σ" not in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("in/b.jpg.lof", f"lof: in/{DAMAGED}\n"),
        ("nowhere", "lof: nowhere: does not exist; check the name\n"),
        ("in", "lof: in: is a folder; name a file in it\n"),
    ],
)
def test_inspect_of_no_stream_is_one_line(run: Run, folder: Path, name: str, message: str) -> None:
    assert run("inspect", name) == (1, "", message)


def test_hostile_file_names_stay_on_their_line(run: Run, folder: Path, stream: bytes) -> None:
    put(folder / "odd/\x1b[31m[bold]\n\udce9.lof", stream)
    shown = "odd/\ufffd[31m[bold]\ufffd\ufffd"
    assert run("verify", "odd").lines == [f"ok         {shown}.lof"]
    assert run("inspect", *(str(path) for path in Path("odd").iterdir())).lines[0] == f"{shown}.lof"
    assert run("decode", "odd").lines == [f"{shown}.lof → {shown}.png"]


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
