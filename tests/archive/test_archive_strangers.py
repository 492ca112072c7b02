"""Archives from strangers: nothing outside is touched, nothing is waited for or computed without end."""

from __future__ import annotations

import gzip
import io
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from archives import archive, rows, tree

from lof.archive import Manifest, rebuild, restore
from lof.errors import ArchiveError, OutputError
from lof.pools import ThisProcess

OBJECT = "stored/photos/note.txt"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/note.txt").write_text("words")
    return tmp_path / "photos"


@pytest.fixture
def dst(tmp_path: Path, source: Path) -> Path:
    archive(source, dst=tmp_path / "dst")
    return tmp_path / "dst"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """What nobody may touch."""
    (tmp_path / "elsewhere/rebuild").mkdir(parents=True)
    (tmp_path / "elsewhere/weights").mkdir()
    for name in ("note.txt", "rebuild/note.txt", "weights/note.txt"):
        (tmp_path / "elsewhere" / name).write_text("mine")
    return tmp_path / "elsewhere"


def edit(dst: Path, *queries: str) -> None:
    database = sqlite3.connect(dst / "manifest.sqlite", isolation_level=None)
    for query in queries:
        database.execute(query)
    database.close()


def put_link(place: Path, target: Path) -> None:
    if place.is_dir():
        place.rename(place.with_name("aside"))
    place.symlink_to(target)


@pytest.mark.parametrize("name", [".lof", ".lof/tmp", "stored", "weights"])
def test_links_in_place_of_an_archives_own_folders_are_refused(
    dst: Path, source: Path, elsewhere: Path, name: str
) -> None:
    before = tree(elsewhere)
    put_link(dst / name, elsewhere)
    with pytest.raises(OutputError, match=rf"{name}: is a link; put the folder itself"):
        archive(source, dst=dst)
    assert tree(elsewhere) == before


def test_a_rebuild_goes_through_no_link(dst: Path, elsewhere: Path) -> None:
    before = tree(elsewhere)
    (dst / "manifest.sqlite").unlink()
    put_link(dst / ".lof", elsewhere)
    with pytest.raises(OutputError, match=r"\.lof: is a link"):
        rebuild(dst, ThisProcess())
    assert tree(elsewhere) == before


def test_what_a_crafted_manifest_calls_an_older_object_has_to_be_one(
    dst: Path, source: Path, elsewhere: Path
) -> None:
    with Manifest(dst) as manifest:
        row = manifest.get("photos/note.txt")
    with sqlite3.connect(dst / "manifest.sqlite") as database:
        database.execute(
            "INSERT INTO pending VALUES (?, ?, ?)",
            ("photos/note.txt", json.dumps(vars(row)), str(elsewhere / "note.txt")),
        )
    with pytest.raises(ArchiveError, match="leads out of the tree"):
        archive(source, dst=dst)
    assert (elsewhere / "note.txt").exists()


def test_an_older_object_is_not_removed_through_a_link(dst: Path, source: Path, elsewhere: Path) -> None:
    (dst / "stored/out").symlink_to(elsewhere)
    edit(dst, "UPDATE files SET object = 'stored/out/note.txt', error = 'x' WHERE object != ''")
    with pytest.raises(OutputError, match="cannot be written"):
        archive(source, dst=dst)
    assert (elsewhere / "note.txt").exists()


def test_an_object_is_not_written_through_a_link(dst: Path, source: Path, elsewhere: Path) -> None:
    before = tree(elsewhere)
    (dst / "stored/photos").rename(dst / "aside")
    (dst / "stored/photos").symlink_to(elsewhere)
    (dst / "stored/~").symlink_to(elsewhere)
    (source / "note.txt").write_text("other words")
    with pytest.raises(OutputError, match="~: is a link"):
        archive(source, dst=dst)
    assert tree(elsewhere) == before


def test_a_pipe_in_place_of_the_lock_is_not_waited_for(dst: Path, source: Path) -> None:
    (dst / ".lof/lock").unlink()
    os.mkfifo(dst / ".lof/lock")
    program = (
        "import sys; from lof.cli import main; sys.argv[1:] = ['archive', 'verify', sys.argv[1]]; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, dst], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "lock: is no file, so lof did not make it; remove it" in done.stderr
    with pytest.raises(OutputError, match="is no file"):
        archive(source, dst=dst)


VIEW = (
    "CREATE VIEW totals AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
    "SELECT 'file' AS kind, 'stored' AS state, '' AS why, x AS files FROM c"
)
TRIGGER = "CREATE TRIGGER added AFTER INSERT ON files BEGIN DELETE FROM sources; END"


@pytest.mark.parametrize(
    "queries",
    [("DROP TABLE totals", VIEW), ("DROP TRIGGER added", TRIGGER), ("DROP TRIGGER added",)],
    ids=["view", "another-trigger", "no-trigger"],
)
def test_a_manifest_of_other_tables_is_refused(dst: Path, queries: tuple[str, ...]) -> None:
    edit(dst, *queries)
    with pytest.raises(ArchiveError, match="its tables are not those that lof makes"):
        Manifest(dst)


@pytest.mark.parametrize("change", ["psnr = 9e999", "bpp = -9e999", "seconds = 'long'", "why = x'41'"])
def test_totals_that_cannot_be_shown_are_damage(dst: Path, change: str) -> None:
    edit(dst, f"UPDATE totals SET {change}")
    with Manifest(dst) as manifest, pytest.raises(ArchiveError, match=r"a total (is no number|has no name)"):
        manifest.totals()


def test_names_that_are_no_utf_8_may_stand_in_errors(tmp_path: Path, source: Path) -> None:
    pipe, cut = os.fsdecode(b"p\xff"), os.fsdecode(b"cut\xff.tar")
    os.mkfifo(source / pipe)
    (tmp_path / cut).write_bytes(b"no tar" * 200)
    dst = tmp_path / "dst"
    for _ in range(2):
        summary = archive(source, tmp_path / cut, dst=dst)
        assert {name for name, _ in summary.errors} == {f"photos/{pipe}", cut.removesuffix(".tar")}
        with Manifest(dst) as manifest:
            assert {name for name, _ in manifest.failures()} == {f"photos/{pipe}", cut.removesuffix(".tar")}
            assert pipe in dict(manifest.failures())[f"photos/{pipe}"]
    assert rows(dst)["photos/note.txt"].state == "stored"


def pax(path: Path, size: int) -> Path:
    """A compressed tar of one header with so many digits, which older versions of Python read ever more slowly."""
    digits = b"1" * size
    header, member = tarfile.TarInfo("header"), tarfile.TarInfo("member")
    header.type, header.size = tarfile.XHDTYPE, size
    blocks = header.tobuf(tarfile.USTAR_FORMAT) + digits + bytes(-size % 512) + member.tobuf() + bytes(1024)
    path.write_bytes(gzip.compress(blocks))
    return path


def test_a_tars_header_is_held_to_a_size(tmp_path: Path) -> None:
    summary = archive(pax(tmp_path / "a.tar.gz", 1_000_000), dst=tmp_path / "dst")
    ((name, error),) = summary.errors
    assert name == "a"
    assert "a header of 1000000 bytes, where 65536 are allowed" in error


def test_a_long_name_and_attributes_are_within_that_size(tmp_path: Path) -> None:
    info = tarfile.TarInfo("folder/" * 300 + "a.txt")
    info.size, info.pax_headers = 2, {"SCHILY.xattr.user.note": "x" * 30_000}
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as file:
        file.addfile(info, io.BytesIO(b"hi"))
    assert archive(tmp_path / "a.tar", dst=tmp_path / "dst").errors == []


def test_members_of_a_zip_are_held_to_the_ratio_together(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(4):
            file.writestr(str(number), bytes(40 << 20))  # each within what may always come out
    summary = archive(tmp_path / "a.zip", dst=tmp_path / "dst")
    assert [name for name, _ in summary.errors] == ["a/1", "a/2", "a/3"]
    assert all("a.zip: inflates to more than 200 times its size" in error for _, error in summary.errors)


def test_a_renamed_link_is_judged_where_it_will_stand(tmp_path: Path, source: Path) -> None:
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/link").symlink_to("../../note.txt")
    archive(source, dst=tmp_path / "dst")
    renamed = restore(tmp_path / "dst", tmp_path / "deep/out", ThisProcess(), rename={"photos/a/b": "b"})
    assert renamed.left_out == ["photos/a/b/link"]
    assert not os.path.lexists(tmp_path / "deep/out/b/link")
    assert restore(tmp_path / "dst", tmp_path / "as-it-was", ThisProcess()).left_out == []
