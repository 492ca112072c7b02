"""``restore`` goes on where it was left, whatever folders it meets; what it does not bring back, it says."""

from __future__ import annotations

import fcntl
import json
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
from archives import archive, rows, without_privileges

from lof.archive import restore
from lof.archive.store import locked
from lof.errors import OutputError, UsageError
from lof.pools import ThisProcess

RESTORE = """
import json, sys
from pathlib import Path
from lof.archive import restore
from lof.pools import ThisProcess
found = [restore(Path(dst), Path(sys.argv[1]), ThisProcess()) for dst in sys.argv[2:]]
print(json.dumps([[restored.stored, restored.errors] for restored in found]))
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A tree of folders that nobody writes into, and one that nobody looks into."""
    photos = tmp_path / "photos"
    for name in ("fixed/a", "fixed/sub/b", "shut/sub/c"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_text(f"words of {name}")
    return photos


def close(photos: Path) -> None:
    for name, mode in (("fixed/sub", 0o555), ("fixed", 0o555), ("shut", 0o600)):
        (photos / name).chmod(mode)


def open_up(folder: Path) -> None:
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        path.chmod(0o755)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def restored(out: Path, *archives: Path) -> list[Any]:
    """Files that were written, and errors, of a restore of each archive into one folder."""
    noted: list[Any] = json.loads(without_privileges(RESTORE, out, *archives))
    return noted


def test_restore_goes_on_below_folders_that_are_read_only_or_shut(photos: Path, tmp_path: Path) -> None:
    first, second, out = tmp_path / "first", tmp_path / "second", tmp_path / "out"
    for dst in (first, second):
        close(photos)
        archive(photos, dst=dst)
        open_up(photos)
        for name in ("fixed/sub/new", "shut/sub/new"):
            (photos / name).write_text("new words")
    assert restored(out, first, second) == [[3, []], [2, []]]
    assert modes(out / "photos") == {"fixed": 0o555, "shut": 0o600}
    assert modes(out / "photos/fixed")["sub"] == 0o555
    open_up(out)
    assert (out / "photos/fixed/sub/new").is_file()
    assert (out / "photos/shut/sub/new").read_text() == "new words"


def test_what_may_not_be_written_is_said_to_be_so_and_not_to_have_a_bad_name(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("words")
    with tarfile.open(tmp_path / "scans.tar", "w") as scans:  # of whose folder the archive knows nothing
        scans.add(tmp_path / "words", "sub/words")
    archive(tmp_path / "scans.tar", dst=tmp_path / "dst")
    (tmp_path / "out/scans/sub").mkdir(parents=True)
    (tmp_path / "out/scans/sub").chmod(0o555)
    ((stored, errors),) = restored(tmp_path / "out", tmp_path / "dst")
    error = "cannot be written there (Permission denied); check permissions, or name another place"
    assert (stored, errors) == (0, [["scans/sub/words", error]])


def test_the_sticky_bit_of_folders_travels_and_setuid_and_setgid_never_do(
    photos: Path, tmp_path: Path
) -> None:
    (photos / "fixed/a").chmod(0o6755)
    (photos / "fixed").chmod(0o3775)
    archive(photos, dst=tmp_path / "dst")
    assert restore(tmp_path / "dst", tmp_path / "out", ThisProcess()).errors == []
    assert modes(tmp_path / "out/photos")["fixed"] == 0o1775
    assert modes(tmp_path / "out/photos/fixed")["a"] == 0o755


def test_a_second_restore_into_a_folder_waits_for_its_turn(photos: Path, tmp_path: Path) -> None:
    dst, out = tmp_path / "dst", tmp_path / "out"
    archive(photos, dst=dst)
    with locked(out, ".lof-restore"), pytest.raises(OutputError, match="out: another lof is at work there"):
        restore(dst, out, ThisProcess())
    assert restore(dst, out, ThisProcess()).stored == 3
    assert [path.name for path in out.iterdir()] == ["photos"]


def test_a_lock_that_was_removed_while_it_was_waited_for_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def late(handle: int, kind: int) -> None:
        (tmp_path / "private/lock").unlink()
        lock(handle, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(OutputError, match="another lof is at work there"), locked(tmp_path, "private"):
        pass


def test_damage_to_the_journal_costs_a_second_look_at_most(photos: Path, tmp_path: Path) -> None:
    archive(photos, dst=tmp_path / "dst")
    private = tmp_path / "out/.lof-restore"
    private.mkdir(parents=True)
    (private / "done").write_bytes(b"\xff\xfe\0\n" + b"\xe9" * 64)
    assert restore(tmp_path / "dst", tmp_path / "out", ThisProcess()).stored == 3


def test_what_would_lie_among_lofs_own_notes_is_named_and_can_be_renamed(tmp_path: Path) -> None:
    source, dst, out = tmp_path / ".lof-restore", tmp_path / "dst", tmp_path / "out"
    source.mkdir()
    (source / "a.txt").write_text("words")
    archive(source, dst=dst)
    failed = restore(dst, out, ThisProcess())
    assert failed.stored == 0
    assert dict(failed.errors)[".lof-restore/a.txt"] == (
        "lof keeps its own notes there; give it another name with --rename"
    )
    assert restore(dst, out, ThisProcess(), rename={".lof-restore": "notes"}).errors == []
    assert (out / "notes/a.txt").read_text() == "words"


def test_two_renames_to_one_path_are_refused(photos: Path, tmp_path: Path) -> None:
    archive(photos, dst=tmp_path / "dst")
    files = {row.path: "same" for row in rows(tmp_path / "dst").values() if row.kind == "file"}
    with pytest.raises(UsageError, match="same is in the archive, taken or no path; choose another one"):
        restore(tmp_path / "dst", tmp_path / "out", ThisProcess(), rename=files)
