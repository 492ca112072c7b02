"""Sources of archives that are made to hurt: one clear error each, nothing outside the archive."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from archives import QUICK, findings, rows
from PIL import Image

from lof.archive import Limits, Manifest, Policy, Summary, create, open_sources, rebuild, restore, verify
from lof.archive.decide import Decider, Decision
from lof.archive.store import Store
from lof.errors import UsageError
from lof.files.atomic import Staged
from lof.pools import ThisProcess


def archive(source: Path, dst: Path, limits: Limits = Limits()) -> Summary:
    return create(open_sources([str(source)], dst, limits), dst, QUICK, ThisProcess())


def contents(dst: Path) -> dict[str, str]:
    """State of every file, or its error."""
    with Manifest(dst) as manifest:
        return {row.path: row.error or row.state for row in manifest.rows() if row.kind != "folder"}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def picture() -> bytes:
    small = Image.fromarray(np.random.default_rng(1).integers(0, 256, (4, 5, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((80, 64), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mtime, info.mode = len(content), kind, link, 10**9, 0o640
    return info, content


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for info, content in members:
            file.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".tar", bytes), (".tar.gz", gzip.compress), (".tar.bz2", bz2.compress), (".tar.xz", lzma.compress)],
)
def test_a_tar_comes_back_as_a_tree(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    plain = write_tar(
        tmp_path / "plain",
        member("./", kind=tarfile.DIRTYPE),
        member("./a/", kind=tarfile.DIRTYPE),
        member("a/b.png", picture()),
        member("a/text", b"words" * 999),
        member("again", kind=tarfile.LNKTYPE, link="a/text"),
        member("same picture", kind=tarfile.LNKTYPE, link="./a/b.png"),
        member("a/to", kind=tarfile.SYMTYPE, link="text"),
    )
    scans = tmp_path / f"scans{suffix}"
    scans.write_bytes(compress(plain.read_bytes()))
    assert archive(scans, tmp_path / "dst").errors == []
    assert archive(scans, tmp_path / "dst").unchanged == 7
    assert restore(tmp_path / "dst", tmp_path / "out", ThisProcess()).errors == []
    out = tmp_path / "out/scans"
    assert files(out) == {"a/b.png", "a/text", "again", "same picture", "a/to"}
    assert (out / "again").read_bytes() == b"words" * 999
    assert os.path.samefile(out / "same picture", out / "a/b.png")
    assert os.readlink(out / "a/to") == "text"
    assert ((out / "a/text").stat().st_mtime, (out / "a/text").stat().st_mode & 0o777) == (10**9, 0o640)


def test_a_zip_comes_back_as_a_tree(tmp_path: Path) -> None:
    scans = write_zip(tmp_path / "scans.zip", {"a/b.png": picture(), "text": b"words", "empty/": b""})
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(scans, "a") as file:
        file.writestr(link, "a/b.png")
    assert archive(scans, tmp_path / "dst").errors == []
    assert restore(tmp_path / "dst", tmp_path / "out", ThisProcess()).errors == []
    assert files(tmp_path / "out/scans") == {"a/b.png", "text", "link"}
    assert os.readlink(tmp_path / "out/scans/link") == "a/b.png"
    assert (tmp_path / "out/scans/empty").is_dir()


def test_hostile_members_of_a_tar_are_refused_and_the_rest_is_archived(tmp_path: Path) -> None:
    scans = write_tar(
        tmp_path / "scans.tar",
        member("../up", b"x"),
        member("/root", b"x"),
        member("a/../../up", b"x"),
        member("pipe", kind=tarfile.FIFOTYPE),
        member("disk", kind=tarfile.BLKTYPE),
        member("twice", b"first"),
        member("./twice", b"second"),
        member("hard", kind=tarfile.LNKTYPE, link="../../etc/passwd"),
        member("soft", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member("good", b"x"),
    )
    summary = archive(scans, tmp_path / "dst")
    found = contents(tmp_path / "dst")
    for name in ("../up", "/root", "a/../../up"):
        assert "leads out of the tree" in found[f"scans/{name}"]
    for name in ("pipe", "disk"):
        assert "device or pipe" in found[f"scans/{name}"]
    assert "more than once" in found["scans/twice#2"]
    assert "out of the tree" in found["scans/hard"]
    assert [found[f"scans/{name}"] for name in ("good", "soft", "twice")] == ["stored"] * 3
    assert len(summary.errors) == 7
    assert all(str(scans) in error and "\n" not in error for _, error in summary.errors)
    restored = restore(tmp_path / "dst", tmp_path / "out", ThisProcess())
    assert files(tmp_path / "out") == {"scans/good", "scans/twice"}
    assert (tmp_path / "out/scans/twice").read_bytes() == b"first"
    assert restored.left_out == ["scans/soft"]
    assert files(tmp_path / "dst/stored") == {"scans/good", "scans/twice"}


def test_hostile_members_of_a_zip_are_refused_and_the_rest_is_archived(tmp_path: Path) -> None:
    scans = write_zip(
        tmp_path / "scans.zip", {"../up": b"x", "/root": b"x", "good": b"x", "secret": b"x" * 99}
    )
    with zipfile.ZipFile(scans, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("good", "other")
    data = bytearray(scans.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):  # say that `secret` is encrypted
        at = data.index(b"secret") if offset == 6 else data.rindex(b"secret")
        data[data.rindex(signature, 0, at) + offset] |= 1
    scans.write_bytes(data)
    archive(scans, tmp_path / "dst")
    found = contents(tmp_path / "dst")
    assert "leads out of the tree" in found["scans/../up"]
    assert "leads out of the tree" in found["scans//root"]
    assert "encrypted" in found["scans/secret"]
    assert "more than once" in found["scans/good#2"]
    assert found["scans/good"] == "stored"
    assert files(tmp_path / "dst/stored") == {"scans/good"}


def test_a_zip_member_that_inflates_without_end_is_refused(tmp_path: Path) -> None:
    scans = write_zip(tmp_path / "scans.zip", {"bomb": bytes(1 << 22), "good": b"x"})
    archive(scans, tmp_path / "dst", Limits(free=1 << 20))
    assert "like a bomb" in contents(tmp_path / "dst")["scans/bomb"]
    assert contents(tmp_path / "dst")["scans/good"] == "stored"
    assert files(tmp_path / "dst/stored") == {"scans/good"}
    assert files(tmp_path / "dst/.lof/tmp") == set()
    archive(scans, tmp_path / "dst", Limits(free=1 << 20, ratio=10_000))
    assert contents(tmp_path / "dst")["scans/bomb"] == "stored"


def test_a_member_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    for source in (
        write_zip(tmp_path / "a.zip", {"big": bytes(9999)}),
        write_tar(tmp_path / "b.tar", member("big", bytes(9999))),
    ):
        archive(source, tmp_path / source.stem, Limits(member=9998))
        assert "--max-member" in contents(tmp_path / source.stem)[f"{source.stem}/big"]


def test_a_compressed_tar_that_inflates_without_end_is_refused(tmp_path: Path) -> None:
    plain = write_tar(tmp_path / "plain", member("good", b"x"), member("bomb", bytes(1 << 23)))
    scans = tmp_path / "scans.tgz"
    scans.write_bytes(gzip.compress(plain.read_bytes()))
    summary = archive(scans, tmp_path / "dst", Limits(free=1 << 20))
    assert any("like a bomb" in error for _, error in summary.errors)
    assert contents(tmp_path / "dst")["scans/good"] == "stored"
    assert not (tmp_path / "dst/stored/scans/bomb").exists()


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _damaged_header(data: bytes) -> bytes:
    at = data.index(b"second")
    return data[:at] + b"X" + data[at + 1 :]


def _data_behind(data: bytes) -> bytes:
    return data + b"\0" * 10240 + b"more"


def _no_end_mark(data: bytes) -> bytes:
    return data[: data.index(b"third")]


@pytest.mark.parametrize("harm", [_cut, _damaged_header, _data_behind, _no_end_mark])
def test_a_damaged_tar_is_an_error_and_never_a_shorter_archive(
    tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    scans = write_tar(
        tmp_path / "scans.tar",
        member("first", b"1" * 600),
        member("second", b"2" * 20_000),
        member("third", b"3" * 600),
    )
    whole = scans.read_bytes()
    scans.write_bytes(harm(whole))
    summary = archive(scans, tmp_path / "dst")
    assert summary.exit_code == 1
    assert contents(tmp_path / "dst")["scans/first"] == "stored"
    with Manifest(tmp_path / "dst") as manifest:
        assert manifest.sources()[0].error == summary.errors[-1][1]
    scans.write_bytes(whole)
    assert archive(scans, tmp_path / "dst").errors == []
    assert set(contents(tmp_path / "dst").values()) == {"stored"}
    with Manifest(tmp_path / "dst") as manifest:
        assert manifest.sources()[0].error == ""


def test_a_damaged_gzip_tail_is_an_error(tmp_path: Path) -> None:
    plain = write_tar(tmp_path / "plain", member("first", b"1" * 600))
    scans = tmp_path / "scans.tar.gz"
    data = bytearray(gzip.compress(plain.read_bytes()))
    data[-6] ^= 1  # of the checksum
    scans.write_bytes(data)
    assert archive(scans, tmp_path / "dst").exit_code == 1


def test_a_damaged_zip_member_is_one_error(tmp_path: Path) -> None:
    scans = tmp_path / "scans.zip"
    with zipfile.ZipFile(scans, "w") as file:
        file.writestr("bad", b"content" * 50)
        file.writestr("good", b"fine")
    data = bytearray(scans.read_bytes())
    data[data.index(b"content") + 3] ^= 1
    scans.write_bytes(data)
    archive(scans, tmp_path / "dst")
    assert "is damaged" in contents(tmp_path / "dst")["scans/bad"]
    assert contents(tmp_path / "dst")["scans/good"] == "stored"


def test_pipes_in_a_folder_are_named_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    os.mkfifo(tmp_path / "photos/pipe")
    summary = archive(tmp_path / "photos", tmp_path / "dst")
    assert [path for path, _ in summary.errors] == ["photos/pipe"]


def test_a_file_that_changes_while_it_is_read_is_one_error_and_done_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    grows = tmp_path / "photos/grows"
    grows.write_bytes(b"x" * 10)
    (tmp_path / "photos/still").write_bytes(b"y")
    stage = Store.stage

    def grow_first(store: Store, chunks: Iterable[bytes]) -> Staged:
        with grows.open("ab") as file:
            file.write(b"more")
        monkeypatch.undo()
        return stage(store, chunks)

    monkeypatch.setattr("lof.archive.store.Store.stage", grow_first)
    summary = archive(tmp_path / "photos", tmp_path / "dst")
    assert [path for path, _ in summary.errors] == ["photos/grows"]
    assert "changed while it was read" in summary.errors[0][1]
    assert files(tmp_path / "dst/stored") == {"photos/still"}
    assert files(tmp_path / "dst/.lof/tmp") == set()
    assert archive(tmp_path / "photos", tmp_path / "dst").errors == []
    assert (tmp_path / "dst/stored/photos/grows").read_bytes() == b"x" * 10 + b"more"


def test_an_error_leaves_what_the_archive_has_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a").write_bytes(b"kept")
    archive(tmp_path / "photos", tmp_path / "dst")
    (tmp_path / "photos/a").unlink()
    os.mkfifo(tmp_path / "photos/a")
    archive(tmp_path / "photos", tmp_path / "dst")
    assert "pipe" in contents(tmp_path / "dst")["photos/a"]
    assert (tmp_path / "dst/stored/photos/a").read_bytes() == b"kept"


def test_what_is_no_source_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    for name, message in (("missing", "does not exist"), ("a.txt", "is no folder, .tar")):
        with pytest.raises(UsageError, match=message):
            open_sources([str(tmp_path / name)], tmp_path / "dst")


def test_a_folder_is_walked_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    for name in ("a/x", "a.d", "a-b", "a b/y", "B", "é", "日本/z", os.fsdecode(b"\xff/w")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (source,) = open_sources([str(tmp_path / "photos")], tmp_path / "dst")
    paths = [os.fsencode(entry.path) for entry in source.entries()]
    assert paths == sorted(paths)
    assert len(paths) == 13


def test_a_tree_of_any_depth_is_archived_and_what_the_system_cannot_reach_is_a_failure(
    tmp_path: Path,
) -> None:
    """A thousand folders in one another, and a path that is longer than any system takes."""
    photos, dst = tmp_path / "photos", tmp_path / "dst"
    for part, depth in (("d", 1010), ("long" * 60, 18)):
        photos.mkdir(exist_ok=True)
        here = os.open(photos, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(part, dir_fd=here)
            below = os.open(part, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        with open("words", "w", opener=lambda name, flags, at=here: os.open(name, flags, dir_fd=at)) as file:
            file.write("deep words")
        os.close(here)
    try:
        (path, error), *more = archive(photos, dst).errors
        assert (path.startswith("photos/longlong"), more) == (True, [])
        assert "cannot be read (File name too long)" in error
        assert [finding.name for finding in verify(dst, ThisProcess()).findings] == [path]
        assert (dst / f"stored/photos/{'d/' * 1010}words").read_text() == "deep words"
        (dst / "manifest.sqlite").unlink()
        assert rebuild(dst, ThisProcess()).stored == 1
    finally:  # pytest gives up on such trees
        subprocess.run(["rm", "-rf", photos, dst], check=True)


def test_a_walk_whose_process_dies_is_an_error_and_never_a_shorter_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/text").write_text("words")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", shutil.which("false"))
        summary = archive(tmp_path / "photos", tmp_path / "dst")
    assert "cannot be walked to its end" in summary.errors[0][1]
    with Manifest(tmp_path / "dst") as manifest:
        assert manifest.sources()[0].error == summary.errors[0][1]
    assert archive(tmp_path / "photos", tmp_path / "dst").errors == []
    assert contents(tmp_path / "dst") == {"photos/text": "stored"}


def test_a_file_that_changes_before_its_turn_is_archived_as_it_is_then(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        (tmp_path / "photos" / name).write_text("x")
    (source,) = open_sources([str(tmp_path / "photos")], tmp_path / "dst")
    with Store(tmp_path / "dst", create=True) as store:
        found = {}
        for decision in Decider(store.manifest, "", Policy()).decide(source):
            assert isinstance(decision, Decision)
            found[decision.entry.path] = decision.entry
            if decision.entry.path == "photos/a":
                (tmp_path / "photos/b").write_text("longer")
    last = found["photos/b"]
    assert last.open is not None
    with last.open() as file:
        assert file.read() == b"longer"


@pytest.mark.parametrize("name", [".tar", "..tar", "...tar", ".tgz"])
def test_a_tar_whose_name_is_a_suffix_alone_gets_a_name_that_can_be_read_back(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "words").write_text("words")
    with tarfile.open(tmp_path / name, "w") as made:
        made.add(tmp_path / "words", "manifest.sqlite")
    archive(tmp_path / name, tmp_path / "dst")
    assert findings(tmp_path / "dst") == []
    assert [row.path for row in rows(tmp_path / "dst").values() if row.kind == "file"] == [
        f"{name}/manifest.sqlite"
    ]
