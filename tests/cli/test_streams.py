"""decode, verify and inspect: what they print, what they write, how they exit."""

from __future__ import annotations

import json
import struct
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import DAMAGED, ICC, Run, files, put
from PIL import Image

import lof
from lof.codecs import Codec, load_codec
from lof.containers import container, unpack
from lof.files.storage import parse
from lof.pictures.picture import Picture
from lof.profiles import (
    BUILT_IN,
)


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


def test_what_a_library_raises_about_one_stream_does_not_stop_the_others(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = iter((struct.error("unpack requires\na buffer"), b"a picture"))

    def fails_once(picture: Picture) -> bytes:
        result = next(results)
        if isinstance(result, bytes):
            return result
        raise result

    monkeypatch.setattr("lof.pictures.writing.png_bytes", fails_once)
    outcome = run("decode", "in/a.jpg.lof", "in/deep/c.jpg.lof")
    assert (outcome.code, outcome.out) == (1, "in/deep/c.jpg.lof → in/deep/c.jpg.png\n")
    assert outcome.err.splitlines() == [
        "failed: in/a.jpg.lof: cannot be decoded (unpack requires a buffer); leave it out or report this",
        "1 of 2 streams not decoded",
    ]


def test_a_stream_with_damaged_metadata_is_named(run: Run, folder: Path, stream: bytes) -> None:
    damaged = container("lof").pack(replace(unpack(stream), boxes={b"reso": b"12345"}))
    (folder / "in/reso.lof").write_bytes(damaged)
    outcome = run("decode", "in/reso.lof")
    words = "its metadata are damaged (resolution); copy it again from its source"
    assert (outcome.code, outcome.err.splitlines()[0]) == (1, f"failed: in/reso.lof: {words}")
    assert not (folder / "in/reso.png").exists()


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


def test_a_jpeg_with_damaged_descriptors_is_shown_plain_with_a_warning(
    run: Run, tmp_path: Path, picture: Picture
) -> None:
    good = lof.encode(picture.pixels, codec="jpeg-descriptors-tiny")
    broken = bytearray(good)
    broken[broken.index(b"lof\0") + 30] ^= 1
    put(tmp_path / "a.jpg", good)
    put(tmp_path / "b.jpg", bytes(broken))
    why = "b.jpg: what lof added to this JPEG is damaged; this is the plain picture"
    assert run("decode", "a.jpg", "b.jpg", "--quiet") == (0, "", f"warning: {why}\n")
    with Image.open("b.jpg") as plain, Image.open("b.jpg.png") as decoded:
        assert np.array_equal(np.asarray(plain), np.asarray(decoded))
    outcome = run("verify", "a.jpg", "b.jpg")
    assert (outcome.code, outcome.lines[1]) == (1, f"damaged    {why}")


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


def test_verify_goes_on_after_what_a_decoder_raises(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(load_codec("tiny", device="cpu"))
    decompress, errors = kind.decompress, [RuntimeError("my\ndecoder failed")]

    def fails_once(codec: Codec, *arguments: Any) -> Any:
        if errors:
            raise errors.pop()
        return decompress(codec, *arguments)

    monkeypatch.setattr(kind, "decompress", fails_once)
    outcome = run("verify", "in/a.jpg.lof", "in/deep/c.jpg.lof")
    assert outcome.code == 1
    assert outcome.lines == [
        "damaged    in/a.jpg.lof: cannot be decoded (my decoder failed); report this",
        "ok         in/deep/c.jpg.lof",
    ]
    assert outcome.err == "1 ok, 1 damaged, 0 unchecked\n"


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


def test_decode_and_inspect_go_through_stores(run: Run, folder: Path, stream: bytes) -> None:
    store = f"memory://{uuid.uuid4().hex}"
    parse(f"{store}/a.lof").write_bytes(stream)
    assert run("decode", f"{store}/a.lof", "-o", f"{store}/out").lines == [
        f"{store}/a.lof → {store}/out/a.png"
    ]
    assert parse(f"{store}/out/a.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(run("inspect", "--json", f"{store}/a.lof").out)["bytes"] == len(stream)
    assert not (folder / "memory:").exists()


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")]
)
def test_too_little_memory_for_a_decoder_is_no_damage(
    run: Run, folder: Path, stream: bytes, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(type(load_codec("tiny")), "_read", fail)
    put(folder / "one/a.lof", stream)
    outcome = run("verify", "one")
    assert outcome.code == 3
    assert outcome.out.startswith("unchecked  one/a.lof: the tiny decoder has too little memory")
    assert "failed: one/a.lof: the tiny decoder has too little memory" in run("decode", "one").err


@pytest.mark.parametrize("url", ["nonsense://x/y.png", "generic://x/y.png", "ftp://127.0.0.1:1/y.png"])
def test_a_picture_for_a_store_that_is_none_is_one_line(run: Run, folder: Path, url: str) -> None:
    outcome = run("decode", "in/a.jpg.lof", "-o", url)
    assert outcome.code in (1, 2)
    assert outcome.out == ""
    assert "y.png" in outcome.err
    assert "standard output" not in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "command", [("verify", "in"), ("repack", "in", "-o", "out"), ("inspect", "in/huge.jpg")]
)
def test_files_larger_than_the_memory_are_one_line_each(
    run: Run, folder: Path, command: tuple[str, ...]
) -> None:
    with (folder / "in/huge.jpg").open("wb") as file:  # sparse; it begins like a JPEG
        file.write(b"\xff\xd8\xff\xe0")
        file.truncate(200 << 30)
    with (folder / "in/text.jpg").open("wb") as file:
        file.write(b"text")
        file.truncate(200 << 30)
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        folder / "in/z.jpg"
    )
    outcome = run(*command)
    said = outcome.out + outcome.err
    assert outcome.code == (3 if command[0] == "inspect" else 1)
    assert "in/huge.jpg needs about 214.7 GB of memory" in said
    assert "Traceback" not in said
    if command[0] != "inspect":
        assert "in/text.jpg: is no stream" in said
        assert "z.jpg" in said  # the others are looked at


def test_a_comparison_with_a_file_larger_than_the_memory_is_one_line(run: Run, folder: Path) -> None:
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(folder / "a.png")
    with (folder / "hole.bin").open("wb") as file:
        file.truncate(200 << 30)
    outcome = run("compare", "a.png", "hole.bin", "a.png", "--no-page")
    assert outcome.code == 1
    assert "hole.bin needs about 214.7 GB of memory" in outcome.err
    assert "a.png" in outcome.out
