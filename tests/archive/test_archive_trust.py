"""What an archive says is so: failures stay known, a bad entry costs itself alone, strangers harm nobody."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import QUICK, archive, findings, rows, save, tree, without_privileges

from lof.archive import Manifest, Planned, Policy, Unchanged, open_sources, plan, restore, verify
from lof.errors import ArchiveError, LofError, UsageError
from lof.pools import ThisProcess

MANIFEST = "manifest.sqlite"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """Three files that are no images, one of them in a folder."""
    (tmp_path / "photos/sub").mkdir(parents=True)
    for name in ("a", "sub/b", "z"):
        (tmp_path / "photos" / name).write_text(f"words of {name}")
    return tmp_path / "photos"


def edit(dst: Path, query: str, *values: object) -> None:
    database = sqlite3.connect(dst / MANIFEST, isolation_level=None)
    database.execute(query, values)
    database.close()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def files(dst: Path) -> dict[str, tuple[str, int, int]]:
    """:func:`tree` without the index that SQLite makes beside a database that is read."""
    return {name: found for name, found in tree(dst).items() if not name.startswith(f"{MANIFEST}-")}


# Archives twice; after each time it notes the exit code, the failures that the manifest has, and what verify finds.
TWICE = """
import json, sys
from pathlib import Path
from archives import findings
from lof.archive import Manifest
from lof.cli import main
source, dst, notes = map(Path, sys.argv[1:])
sys.argv[1:] = ["archive", "create", str(source), str(dst), "--codec", "tiny"]
found = []
for _ in range(2):
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code
    with Manifest(dst) as manifest:
        found.append([code, list(manifest.failures()), findings(dst)])
notes.write_text(json.dumps(found))
"""


def create_twice_without_privileges(source: Path, dst: Path) -> list[Any]:
    """What ``TWICE`` notes when run by somebody to whom permissions apply."""
    notes = dst.with_name("notes.json")
    without_privileges(TWICE, source, dst, notes)
    noted: list[Any] = json.loads(notes.read_text())
    return noted


def test_a_subfolder_that_cannot_be_read_is_a_failure_until_it_can(words: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    (words / "sub").chmod(0)
    noted = create_twice_without_privileges(words, dst)
    assert len(noted) == 2
    for code, failures, found in noted:
        assert code == 1
        ((path, error),) = failures
        assert (path, "cannot be read (Permission denied)" in error) == ("photos/sub", True)
        assert found == [["failed", "photos/sub"]]
    assert findings(dst) == [("failed", "photos/sub")]
    assert verify(dst, ThisProcess()).exit_code == 1
    restored = restore(dst, tmp_path / "out", ThisProcess())
    assert (restored.exit_code, restored.errors, restored.stored) == (1, [], 2)
    assert [path for path, _ in restored.never_in] == ["photos/sub"]
    (words / "sub").chmod(0o755)
    archive(words, dst=dst)
    assert findings(dst) == []
    assert restore(dst, tmp_path / "whole", ThisProcess()).exit_code == 0
    assert tree(tmp_path / "whole/photos") == tree(words)


def test_a_failure_is_forgotten_when_its_cause_is_gone_or_left_out_and_not_before(
    words: Path, tmp_path: Path
) -> None:
    dst = tmp_path / "dst"
    for name in ("one", "sub/two"):
        os.mkfifo(words / name)
    archive(words, dst=dst)
    assert findings(dst) == [("failed", "photos/one"), ("failed", "photos/sub/two")]
    (words / "one").unlink()
    archive(words, dst=dst)
    assert findings(dst) == [("failed", "photos/sub/two")]
    assert archive(words, dst=dst, exclude=["two"]).exit_code == 0
    assert findings(dst) == []
    assert {"photos/one", "photos/sub/two"}.isdisjoint(rows(dst))


def test_a_file_that_became_unreadable_keeps_its_older_content_and_is_named(
    words: Path, tmp_path: Path
) -> None:
    dst = tmp_path / "dst"
    archive(words, dst=dst)
    (words / "a").unlink()
    os.mkfifo(words / "a")
    archive(words, dst=dst)
    restored = restore(dst, tmp_path / "out", ThisProcess())
    assert (restored.exit_code, [path for path, _ in restored.never_in]) == (1, ["photos/a"])
    assert (tmp_path / "out/photos/a").read_text() == "words of a"
    (words / "a").unlink()
    archive(words, dst=dst)  # gone from the source, kept in the archive
    assert findings(dst) == []


LONG = "n" * 300


def test_entries_that_no_file_system_takes_cost_themselves_alone_and_can_be_renamed(tmp_path: Path) -> None:
    files = {"a": b"1", LONG: b"2", f"{LONG}s/x": b"3", "dirfile": b"4", "dirfile/x": b"5", "z": b"6"}
    dst, out = tmp_path / "dst", tmp_path / "out"
    archive(write_tar(tmp_path / "scans.tar", files), dst=dst)
    assert findings(dst) == []
    restored = restore(dst, out, ThisProcess())
    assert (restored.exit_code, restored.stored) == (1, 3)
    wrong = {f"scans/{name}" for name in (LONG, f"{LONG}s/x", "dirfile/x")}
    assert {path for path, error in restored.errors if "--rename" in error} == wrong
    names = {
        f"scans/{LONG}": "scans/long",
        f"scans/{LONG}s": "scans/folder",
        "scans/dirfile/x": "scans/dirfile.x",
    }
    restored = restore(dst, out, ThisProcess(), rename=names)
    assert (restored.exit_code, restored.stored, restored.there) == (0, 3, 3)
    found = {
        path.relative_to(out / "scans").as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file()
    }
    assert found == {"a": b"1", "long": b"2", "folder/x": b"3", "dirfile": b"4", "dirfile.x": b"5", "z": b"6"}


@pytest.mark.parametrize(
    "pair", [("photos/no", "photos/x"), ("photos/a", "photos/z"), ("photos/a", "../a"), ("photos/a", "")]
)
def test_a_rename_of_nothing_or_to_what_is_taken_or_outside_is_wrong_usage(
    words: Path, tmp_path: Path, pair: tuple[str, str]
) -> None:
    archive(words, dst=tmp_path / "dst")
    with pytest.raises(UsageError, match="--rename"):
        restore(tmp_path / "dst", tmp_path / "out", ThisProcess(), rename=dict([pair]))


def _to_a_device(dst: Path, _: Path) -> None:
    (dst / "stored/photos/a").symlink_to("/dev/zero")


def _to_a_file(dst: Path, secret: Path) -> None:
    (dst / "stored/photos/a").symlink_to(secret)


def _to_a_folder(dst: Path, secret: Path) -> None:
    shutil.rmtree(dst / "stored/photos")
    (dst / "stored/photos").symlink_to(secret.parent)


def _a_pipe(dst: Path, _: Path) -> None:
    os.mkfifo(dst / "stored/photos/a")


def _longer(dst: Path, secret: Path) -> None:
    (dst / "stored/photos/a").write_bytes(secret.read_bytes() * 2)


@pytest.mark.parametrize("harm", [_to_a_device, _to_a_file, _to_a_folder, _a_pipe, _longer])
def test_an_object_that_is_no_file_of_the_archive_is_never_content(
    words: Path, tmp_path: Path, harm: Callable[[Path, Path], None]
) -> None:
    dst, secret = tmp_path / "dst", tmp_path / "secrets/a"
    archive(words, dst=dst)
    secret.parent.mkdir()
    secret.write_text("a secret!!")
    (dst / "stored/photos/a").unlink()
    harm(dst, secret)
    digest = hashlib.sha256(
        secret.read_bytes()
    ).hexdigest()  # a stranger may write any hash into the manifest
    query = "UPDATE files SET sha256 = ?, object_sha256 = ?, object_size = ? WHERE path = 'photos/a'"
    edit(dst, query, digest, digest, secret.stat().st_size)
    assert ("damaged", "photos/a") in findings(dst) or ("missing", "photos/a") in findings(dst)
    restored = restore(dst, tmp_path / "out", ThisProcess())
    assert "photos/a" in dict(restored.errors)
    assert not (tmp_path / "out/photos/a").exists()


def test_links_that_climb_out_by_way_of_other_links_are_left_out(words: Path, tmp_path: Path) -> None:
    (words / "self").symlink_to(".")
    (words / "esc").symlink_to("self/self/../../secret")
    (words / "sub/up").symlink_to("../sub/b")
    archive(words, dst=tmp_path / "dst")
    restored = restore(tmp_path / "dst", tmp_path / "out", ThisProcess())
    assert restored.left_out == ["photos/esc"]
    assert os.readlink(tmp_path / "out/photos/sub/up") == "../sub/b"
    assert not os.path.lexists(tmp_path / "out/photos/esc")


def test_a_tar_that_claims_a_terabyte_is_one_error_at_once(tmp_path: Path) -> None:
    info = tarfile.TarInfo("huge")
    info.size = 2**40
    (tmp_path / "scans.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    summary = archive(tmp_path / "scans.tar", dst=tmp_path / "dst")
    assert any("ends before the size that a header claims" in error for _, error in summary.errors)
    assert ("failed", "scans") in findings(tmp_path / "dst")


def test_times_that_no_manifest_can_hold_become_the_nearest_ones(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "scans.tar", "w", format=tarfile.PAX_FORMAT) as file:
        for name, time in (("inf", "inf"), ("late", "1e300"), ("early", "-1e300")):
            info = tarfile.TarInfo(name)
            info.pax_headers = {"mtime": time}
            file.addfile(info)
    assert archive(tmp_path / "scans.tar", dst=tmp_path / "dst").errors == []
    found = rows(tmp_path / "dst")
    assert found["scans/inf"].mtime_ns == found["scans/late"].mtime_ns
    assert found["scans/late"].mtime_ns == -found["scans/early"].mtime_ns == 92 * 10**17


COLUMNS = [
    ("mode", "many"),
    ("mtime_ns", "late"),
    ("size", b"big"),
    ("object_size", -1),
    ("origin", 7),
    ("link", b"x"),
]


@pytest.mark.parametrize(("column", "value"), COLUMNS)
def test_a_value_of_another_kind_is_one_error_that_names_the_manifest(
    words: Path, tmp_path: Path, column: str, value: object
) -> None:
    dst = tmp_path / "dst"
    archive(words, dst=dst)
    edit(dst, f"UPDATE files SET {column} = ? WHERE path = 'photos/a'", value)
    for call in (lambda: verify(dst, ThisProcess()), lambda: restore(dst, tmp_path / "out", ThisProcess())):
        with pytest.raises(ArchiveError, match=MANIFEST):
            call()
    assert not (tmp_path / "out").exists()


def test_no_damage_to_a_manifest_is_anything_but_one_error(words: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    archive(words, dst=dst)
    with Manifest(dst, write=True):
        pass
    whole, chance, said = (dst / MANIFEST).read_bytes(), random.Random(0), list[str]()
    for number in range(60):
        data = bytearray(whole[: chance.choice((len(whole), chance.randrange(len(whole))))])
        for _ in range(chance.choice((1, 4, 200))):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        (dst / MANIFEST).write_bytes(data)
        for call in (
            lambda: verify(dst, ThisProcess()),
            lambda n=number: restore(dst, tmp_path / f"out{n}", ThisProcess()),
        ):  # type: ignore[misc]
            try:
                call()
            except LofError as error:
                said.append(str(error))
        for name in (f"{MANIFEST}-wal", f"{MANIFEST}-shm"):
            (dst / name).unlink(missing_ok=True)
    assert len(said) > 60
    assert not [text for text in said if "\n" in text]


def test_what_is_left_out_is_not_looked_at_and_noted(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in (
        "a.txt",
        "a.tmp",
        "sub/b.tmp",
        "sub/b.txt",
        "cache/c",
        "sub/cache/d",
        "out/.lof/crops/x.png",
    ):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_text(name)
    kept = {"photos/a.txt", "photos/sub/b.txt", "photos/sub/cache/d"}
    archive(photos, dst=tmp_path / "dst", exclude=["*.tmp", "/cache"])
    assert {path for path, row in rows(tmp_path / "dst").items() if row.kind == "file"} == kept
    assert "photos/cache" not in rows(tmp_path / "dst")
    with Manifest(tmp_path / "dst") as manifest:
        assert manifest.sources()[0].exclude == '["*.tmp", "/cache"]'
    packed = shutil.make_archive(str(tmp_path / "scans"), "tar", photos)
    archive(Path(packed), dst=tmp_path / "second", exclude=["*.tmp", "/cache"])
    assert {path for path, row in rows(tmp_path / "second").items() if row.kind == "file"} == {
        path.replace("photos", "scans") for path in kept
    }


def test_a_dry_run_says_what_a_run_does_and_writes_nothing(words: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    save(words / "b.png")
    os.mkfifo(words / "pipe")

    def planned() -> dict[str, str]:
        found = plan(open_sources([str(words)], dst), dst, QUICK, policy=Policy())
        return {item.path: item.do for item in found if isinstance(item, Planned)}

    stored = dict.fromkeys(("photos/a", "photos/sub/b", "photos/z"), "store")
    assert planned() == stored | {"photos/b.png": "search", "photos/pipe": "fail"}
    assert not dst.exists()
    archive(words, dst=dst)
    before = files(dst)
    (words / "z").write_text("new")
    assert planned() == {"photos/pipe": "fail", "photos/z": "store"}
    unchanged = plan(open_sources([str(words)], dst), dst, QUICK)
    assert sum(item.files for item in unchanged if isinstance(item, Unchanged)) == 3
    assert files(dst) == before


def test_what_is_done_to_a_picture_is_noted_in_its_row_and_in_the_summary(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "photos/a.jpg", quality=95, exif=exif, size=(160, 128))
    summary = archive(tmp_path / "photos", dst=tmp_path / "dst")
    assert rows(tmp_path / "dst")["photos/a.jpg"].notes.split("\n") == ["orientation 6 applied"]
    assert summary.notes == {"orientation 6 applied": (1, "photos/a.jpg")}


def test_a_manifest_with_a_broken_list_of_free_pages_is_one_line(tmp_path: Path) -> None:
    archive = Path(__file__).parents[1] / "fixtures" / "v0.1" / "archive"
    shutil.copytree(archive, tmp_path / "a")
    data = bytearray((archive / "manifest.sqlite").read_bytes())
    data[32:40] = (251658250).to_bytes(4, "big") + (1).to_bytes(4, "big")  # its first page, and how many
    (tmp_path / "a" / "manifest.sqlite").write_bytes(data)
    with pytest.raises(ArchiveError, match="freelist") as caught:
        verify(tmp_path / "a", ThisProcess())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("exclude", ["no JSON", "{}", "[1]"])
def test_a_list_of_what_was_left_out_that_is_none_is_damage(made: Path, exclude: str) -> None:
    with contextlib.closing(sqlite3.connect(made / "dst/manifest.sqlite", isolation_level=None)) as database:
        database.execute("UPDATE sources SET exclude = ?", (exclude,))
    with Manifest(made / "dst") as manifest, pytest.raises(ArchiveError, match=r"damaged .what was left out"):
        manifest.sources()
