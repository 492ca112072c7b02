"""A manifest that is lost or damaged is made anew from what lies in the archive."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import archive, findings, rows, save
from PIL import Image

import lof.api
from lof.archive import rebuild, restore
from lof.archive.store import Store, locked
from lof.containers import Stream
from lof.errors import ArchiveError, OutputError
from lof.pools import ThisProcess

LONG = "long" * 60 + ".txt"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of two pictures, a text and a text whose object has a hash for a name."""
    folder = tmp_path_factory.mktemp("made")
    save(folder / "photos/a.png")
    save(folder / "photos/below/b.jpg", seed=1, quality=97)
    (folder / "photos/notes.txt").write_text("words")
    (folder / f"photos/{LONG}.text").write_text("more words")
    archive(folder / "photos", dst=folder / "dst")
    return folder


@pytest.fixture
def dst(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "dst", tmp_path / "dst")
    return tmp_path / "dst"


@pytest.mark.parametrize("damage", ["lost", "emptied", "overwritten"])
def test_the_new_manifest_names_all_that_is_there(dst: Path, made: Path, tmp_path: Path, damage: str) -> None:
    before = rows(dst)
    manifest = dst / "manifest.sqlite"
    match damage:
        case "lost":
            manifest.unlink()
        case "emptied":
            manifest.write_bytes(b"")
        case "overwritten":
            manifest.write_bytes(manifest.read_bytes()[:4096] + os.urandom(8192))
    result = rebuild(dst, ThisProcess())
    assert (result.streams, result.stored, result.errors) == (2, 2, [])
    after = rows(dst)
    assert set(before) - set(after) == {"photos", "photos/below"}
    for path, row in after.items():
        old = before[path]
        same = ("object", "object_sha256", "symbols_sha256", "pixels_sha256", "fingerprint", "bpp", "format")
        assert [getattr(row, name) for name in same] == [getattr(old, name) for name in same]
        assert row.why == "rebuilt"
    assert findings(dst) == []
    if damage != "lost":
        assert (dst / result.aside / "manifest.sqlite").stat().st_size == (
            0 if damage == "emptied" else 12288
        )
    restored = restore(dst, tmp_path / "out", ThisProcess())
    assert (restored.images, restored.stored, restored.errors) == (2, 2, [])
    assert (tmp_path / "out/photos/notes.txt").read_text() == "words"
    with Image.open(tmp_path / "out/photos/below/b.jpg.png") as image:
        stream = (dst / "streams/photos/below/b.jpg.lof").read_bytes()
        assert np.array_equal(np.asarray(image), lof.decode(stream).pixels)


def test_an_archive_without_its_manifest_names_the_command_that_makes_one(dst: Path, made: Path) -> None:
    (dst / "manifest.sqlite").unlink()
    for use in (lambda: archive(made / "photos", dst=dst), lambda: findings(dst), lambda: Store(dst).close()):
        with pytest.raises(ArchiveError, match="`lof archive rebuild` makes a new one"):
            use()


def test_what_is_damaged_gets_no_row_and_all_else_does(dst: Path) -> None:
    (dst / "manifest.sqlite").unlink()
    broken = dst / "streams/photos/a.png.lof"
    broken.write_bytes(broken.read_bytes()[:-3])
    (dst / "stored/photos/link").symlink_to("notes.txt")
    result = rebuild(dst, ThisProcess())
    assert (result.streams, result.stored, result.exit_code) == (1, 2, 1)
    assert sorted(path for path, _ in result.errors) == ["stored/photos/link", "streams/photos/a.png.lof"]
    assert sorted(findings(dst)) == [
        ("unexpected", "stored/photos/link"),
        ("unexpected", "streams/photos/a.png.lof"),
    ]


def test_a_whole_manifest_one_of_another_version_and_a_strange_folder_are_refused(
    dst: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArchiveError, match="is whole; nothing is to be rebuilt"):
        rebuild(dst, ThisProcess())
    with contextlib.closing(sqlite3.connect(dst / "manifest.sqlite")) as database:
        database.execute("PRAGMA user_version = 9")
    before = (dst / "manifest.sqlite").read_bytes()
    with pytest.raises(ArchiveError, match="upgrade lof"):
        rebuild(dst, ThisProcess())
    with pytest.raises(ArchiveError, match="holds nothing of an archive"):
        rebuild(tmp_path, ThisProcess())
    with locked(dst), pytest.raises(OutputError, match="another lof is at work there"):
        rebuild(dst, ThisProcess())
    assert (dst / "manifest.sqlite").read_bytes() == before


def test_what_a_killed_rebuild_put_down_counts_while_its_object_is_the_same(dst: Path) -> None:
    (dst / "manifest.sqlite").unlink()
    one, other = (dst / f"streams/photos/{name}.lof" for name in ("a.png", "below/b.jpg"))

    def die(event: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(dst, ThisProcess(), on_event=die)
    shutil.copy(other, one)
    (dst / "stored/photos/notes.txt").unlink()
    assert rebuild(dst, ThisProcess()).errors == []
    after = rows(dst)
    assert after["photos/a.png"].symbols_sha256 == after["photos/below/b.jpg"].symbols_sha256
    assert findings(dst) == []


def test_create_and_a_second_rebuild_go_on_from_there(dst: Path, made: Path) -> None:
    (dst / "manifest.sqlite").unlink()

    class Killed(Exception):
        pass

    def die(event: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        rebuild(dst, ThisProcess(), on_event=die)
    assert not (dst / "manifest.sqlite").exists()
    assert (dst / ".lof/rebuild/manifest.sqlite").exists()
    assert rebuild(dst, ThisProcess()).streams == 2
    assert not (dst / ".lof/rebuild").exists()
    again = archive(made / "photos", dst=dst)
    assert (again.streamed, again.stored, again.unchanged, again.errors) == (2, 0, 2, [])
    assert findings(dst) == []
    assert all(row.psnr for row in rows(dst).values() if row.state == "streamed")


def test_a_stream_on_which_a_library_fails_gets_no_row(dst: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (dst / "manifest.sqlite").unlink()
    whole = lof.api.decode_stream

    def fail(stream: Stream, *, name: str, **options: Any) -> Any:
        if name.endswith("a.png"):
            raise KeyError("unheard of")
        return whole(stream, name=name, **options)

    monkeypatch.setattr("lof.api.decode_stream", fail)
    result = rebuild(dst, ThisProcess())
    assert (result.streams, result.stored) == (1, 2)
    ((path, error),) = result.errors
    assert "a.png" in path
    assert "cannot be decoded ('unheard of'); report this" in error


def test_a_rebuild_that_missed_something_can_be_repeated(dst: Path) -> None:
    (dst / "manifest.sqlite").unlink()
    stream = dst / "streams/photos/a.png.lof"
    whole = stream.read_bytes()
    stream.write_bytes(whole[:-3])
    assert (rebuild(dst, ThisProcess()).streams, len(rows(dst))) == (1, 3)
    stream.write_bytes(whole)
    assert rebuild(dst, ThisProcess()).errors == []
    assert findings(dst) == []
    with pytest.raises(ArchiveError, match="is whole; nothing is to be rebuilt"):
        rebuild(dst, ThisProcess())


def test_a_file_of_others_in_a_whole_archive_is_no_reason_to_rebuild_it(dst: Path) -> None:
    (dst / "stored/photos/mine").write_text("mine")
    with pytest.raises(ArchiveError, match="is whole; nothing is to be rebuilt"):
        rebuild(dst, ThisProcess())
