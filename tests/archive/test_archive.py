"""Archives: what goes in comes back, and a second call does no more than it has to."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from archives import MORE, archive, findings, rows, save, tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import lof
from lof.archive import Floors, Manifest, Policy, Row, open_sources, restore, verify
from lof.archive.names import is_safe, object_name, safe_parts, stays_inside
from lof.archive.store import Store
from lof.errors import ArchiveError, OutputError, UsageError
from lof.pictures.picture import Picture
from lof.pictures.writing import image_bytes
from lof.pools import ThisProcess


def test_a_tree_becomes_streams_and_stored_files_with_one_row_each(first_made: Path) -> None:
    found = rows(first_made / "dst")
    assert {path: (row.kind, row.state, row.object) for path, row in found.items()} == {
        "photos": ("folder", "stored", ""),
        "photos/a.png": ("file", "streamed", "streams/photos/a.png.lof"),
        "photos/empty": ("folder", "stored", ""),
        "photos/notes.txt": ("file", "stored", "stored/photos/notes.txt"),
        "photos/out": ("link", "stored", ""),
        "photos/sub": ("folder", "stored", ""),
        "photos/sub/b.jpg": ("file", "streamed", "streams/photos/sub/b.jpg.lof"),
        "photos/sub/link": ("link", "stored", ""),
    }
    row = found["photos/a.png"]
    stream = (first_made / "dst" / row.object).read_bytes()
    decoded = lof.decode(stream).pixels
    original = np.asarray(Image.open(first_made / "photos/a.png"))
    assert row.sha256 == hashlib.sha256((first_made / "photos/a.png").read_bytes()).hexdigest()
    assert (row.object_size, row.object_sha256) == (len(stream), hashlib.sha256(stream).hexdigest())
    assert row.bpp == 8 * len(stream) / (64 * 80)
    assert row.psnr == pytest.approx(
        10 * np.log10(255**2 / np.square(original - decoded.astype(float)).mean())
    )
    assert (row.codec, row.quality_64, row.profile, row.format) == ("tiny", 4 * 64, "quick", "PNG")
    assert (row.container, row.suffix) == ("lof", ".lof")
    assert findings(first_made / "dst") == []


def test_restore_gives_the_decoded_images_and_everything_else_as_it_was(
    first_made: Path, tmp_path: Path
) -> None:
    result = restore(first_made / "dst", tmp_path / "out", ThisProcess(), form="source", all_links=True)
    assert (result.images, result.stored, result.errors) == (2, 1, [])
    before, after = tree(first_made / "photos"), tree(tmp_path / "out/photos")
    assert {name: value[1:] for name, value in after.items() if not value[0].startswith("->")} == {
        name: value[1:] for name, value in before.items() if not value[0].startswith("->")
    }
    assert {name for name in before if before[name] != after[name]} == {"a.png", "sub/b.jpg"}
    stream = (first_made / "dst/streams/photos/a.png.lof").read_bytes()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/photos/a.png")), lof.decode(stream).pixels)
    with Image.open(tmp_path / "out/photos/sub/b.jpg") as image:
        assert image.format == "JPEG"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["photos"]


def test_restore_to_png_names_links_out_of_the_tree_and_makes_only_those_inside(
    first_made: Path, tmp_path: Path
) -> None:
    result = restore(first_made / "dst", tmp_path / "out", ThisProcess())
    assert result.left_out == ["photos/out"]
    assert sorted(tree(tmp_path / "out/photos")) == [
        "a.png",
        "empty",
        "notes.txt",
        "sub",
        "sub/b.jpg.png",
        "sub/link",
    ]
    again = restore(first_made / "dst", tmp_path / "out", ThisProcess())
    assert (again.images, again.stored, again.there, again.errors) == (0, 0, 3, [])


def test_restore_never_overwrites_what_differs_unless_told_to(first_made: Path, tmp_path: Path) -> None:
    mine = tmp_path / "out/photos/a.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    result = restore(first_made / "dst", tmp_path / "out", ThisProcess())
    assert [path for path, _ in result.errors] == ["photos/a.png"]
    assert "--overwrite" in result.errors[0][1]
    assert mine.read_text() == "mine"
    assert restore(first_made / "dst", tmp_path / "out", ThisProcess(), overwrite=True).errors == []
    assert mine.read_bytes().startswith(b"\x89PNG")


def test_a_file_that_was_changed_before_restore_continues_is_not_taken_for_the_restored_one(
    first_made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    mine, notes = out / "photos/a.png", out / "photos/notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")  # so that the first call fails at it, and the second one continues
    restore(first_made / "dst", out, ThisProcess())
    restored = notes.read_bytes()
    notes.write_text("changed")
    again = restore(first_made / "dst", out, ThisProcess())
    assert [path for path, _ in again.errors] == ["photos/a.png", "photos/notes.txt"]
    assert notes.read_text() == "changed"
    assert restore(first_made / "dst", out, ThisProcess(), overwrite=True).errors == []
    assert notes.read_bytes() == restored


def test_restore_writes_nothing_through_a_link_in_its_target(first_made: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/photos").symlink_to(tmp_path / "elsewhere")
    result = restore(first_made / "dst", tmp_path / "out", ThisProcess())
    assert len(result.errors) >= 3
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    "error", [struct.error("5 bytes"), SyntaxError("not a TIFF"), KeyError("x"), MemoryError()]
)
def test_an_image_that_a_library_cannot_write_is_named_and_the_rest_is_restored(
    first_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(picture: Picture, form: str, **options: object) -> bytes:
        if form == "JPEG":
            raise error
        return image_bytes(picture, form, **options)

    monkeypatch.setattr("lof.archive.work.image_bytes", fails)
    result = restore(first_made / "dst", tmp_path / "out", ThisProcess(), form="source")
    ((path, message),) = result.errors
    assert path == "photos/sub/b.jpg"
    assert ("--jobs" if isinstance(error, MemoryError) else "cannot be encoded as JPEG (") in message
    assert "\n" not in message
    assert (result.images, result.stored, result.exit_code) == (1, 1, 1)


@pytest.mark.parametrize("path", ["../evil", "/evil", "photos/../../evil", "photos//evil"])
def test_a_crafted_manifest_that_leads_out_of_the_tree_is_refused(made: Path, path: str) -> None:
    with Store(made / "dst") as store:
        store.manifest.put(Row(path, "link", "folder", "stored", link="x"))
    for call in (
        lambda: restore(made / "dst", made / "out", ThisProcess()),
        lambda: verify(made / "dst", ThisProcess()),
    ):
        with pytest.raises(ArchiveError, match="leads out of the tree"):
            call()
    assert not (made / "out").exists()


def test_icc_profile_exif_and_orientation_travel(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "maker"
    save(tmp_path / "photos/a.jpg", quality=95, icc_profile=profile, exif=exif, size=(160, 128))
    archive(tmp_path / "photos", dst=tmp_path / "dst")
    assert rows(tmp_path / "dst")["photos/a.jpg"].state == "streamed"
    for form, name in (("png", "a.jpg.png"), ("source", "a.jpg")):
        restore(tmp_path / "dst", tmp_path / form, ThisProcess(), form=form)  # type: ignore[arg-type]
        with Image.open(tmp_path / form / "photos" / name) as image:
            assert image.info["icc_profile"] == profile
            assert image.getexif()[0x010F] == "maker"


NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: name not in (".", "..", ".lof"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.dictionaries(
        st.lists(NAMES, min_size=1, max_size=3).map(tuple), st.binary(max_size=40), max_size=5
    ),
    other=st.binary(max_size=9),
)
def test_any_tree_without_images_comes_back_byte_for_byte(
    tmp_path: Path, files: dict[tuple[str, ...], bytes], other: bytes
) -> None:
    work = Path(tempfile.mkdtemp(dir=tmp_path))
    source = work / "tree"
    source.mkdir()
    (source / os.fsdecode(b"no utf-8 \xff")).write_bytes(other)
    for parts, content in files.items():
        place = source.joinpath(*parts)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        except OSError:  # a file where a folder is, or the reverse: not a tree
            continue
    archive(source, dst=work / "dst")
    assert archive(source, dst=work / "dst").stored == 0
    assert restore(work / "dst", work / "out", ThisProcess()).errors == []
    assert tree(work / "out/tree") == tree(source)
    assert findings(work / "dst") == []


def test_what_cannot_or_should_not_be_a_stream_is_stored_with_the_reason(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    Image.new("RGBA", (32, 32), (255, 0, 0, 100)).save(save(photos / "clear.png"))
    save(photos / "cut.jpg", quality=95, size=(320, 240)).write_bytes(
        (photos / "cut.jpg").read_bytes()[:-4000]
    )
    Image.new("RGB", (8, 8)).save(photos / "tiny.png")
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(photos / "deep.png")
    save(photos / "good.png")
    before = tree(photos)
    summary = archive(photos, dst=tmp_path / "dst", floors=Floors(psnr=60))
    assert (summary.streamed, summary.stored, summary.errors) == (0, 5, [])
    found = {path.removeprefix("photos/"): row for path, row in rows(tmp_path / "dst").items()}
    assert {
        name: found[name].why for name in ("clear.png", "cut.jpg", "deep.png", "good.png", "tiny.png")
    } == {
        "clear.png": "image not taken",
        "cut.jpg": "image not taken",
        "deep.png": "image not taken",
        "good.png": "below the quality floor",
        "tiny.png": "stream not smaller",
    }
    assert "60 dB" in found["good.png"].detail
    assert "transparent" in found["clear.png"].detail
    restore(tmp_path / "dst", tmp_path / "out", ThisProcess())
    assert tree(tmp_path / "out/photos") == before
    assert tree(photos) == before

    again = archive(photos, dst=tmp_path / "dst")  # without a floor: only what missed it is done again
    assert (again.streamed, again.stored, again.unchanged) == (1, 1, 6 - 2)


def test_an_image_too_small_for_ms_ssim_misses_a_floor_on_it(tmp_path: Path) -> None:
    save(tmp_path / "photos/a.png")
    archive(tmp_path / "photos", dst=tmp_path / "dst", floors=Floors(ms_ssim=0.1))
    assert rows(tmp_path / "dst")["photos/a.png"].detail == "too small for MS-SSIM"


def test_a_second_call_does_nothing_and_changes_nothing(made: Path) -> None:
    before = tree(made / "dst/streams")
    summary = archive(made / "photos", dst=made / "dst", moved=True)
    assert (summary.streamed, summary.stored, summary.unchanged) == (0, 0, 8)
    os.utime(made / "photos/a.png")
    touched = archive(made / "photos", dst=made / "dst")
    assert (touched.streamed, touched.stored, touched.unchanged) == (0, 0, 8)
    assert rows(made / "dst")["photos/a.png"].mtime_ns == (made / "photos/a.png").stat().st_mtime_ns
    assert tree(made / "dst/streams") == before


def test_what_has_changed_is_done_again_alone_and_what_is_gone_stays(made: Path) -> None:
    save(made / "photos/a.png", seed=9)
    shutil.rmtree(made / "photos/sub")
    (made / "photos/notes.txt").unlink()
    (made / "photos/notes.txt").mkdir()
    (made / "photos/notes.txt/inside").write_text("a folder now")
    summary = archive(made / "photos", dst=made / "dst", moved=True)
    assert (summary.streamed, summary.stored, summary.errors) == (1, 1, [])
    found = rows(made / "dst")
    assert found["photos/sub/b.jpg"].state == "streamed"
    assert (found["photos/notes.txt"].kind, found["photos/notes.txt"].object) == ("folder", "")
    assert findings(made / "dst") == []


def test_other_settings_leave_streams_alone_until_redo(made: Path) -> None:
    summary = archive(made / "photos", dst=made / "dst", settings=MORE, moved=True)
    assert (summary.streamed, summary.other_settings) == (0, 2)
    summary = archive(made / "photos", dst=made / "dst", settings=MORE, policy=Policy(redo=True))
    assert (summary.streamed, summary.other_settings) == (2, 0)
    assert rows(made / "dst")["photos/a.png"].profile == "more"


def test_totals_follow_every_change_of_the_rows(made: Path) -> None:
    def counted() -> dict[tuple[str, str], tuple[int, int, int, float]]:
        found: dict[tuple[str, str], tuple[int, int, int, float]] = {}
        for row in rows(made / "dst").values():
            files, size, stored, bits = found.get((row.kind, row.state), (0, 0, 0, 0.0))
            found[row.kind, row.state] = (
                files + 1,
                size + row.size,
                stored + row.object_size,
                bits + (row.bpp or 0),
            )
        return found

    def kept() -> dict[tuple[str, str], tuple[int, int, int, float]]:
        with Manifest(made / "dst") as manifest:
            return {
                (t.kind, t.state): (t.files, t.size, t.object_size, pytest.approx(t.bpp))
                for t in manifest.totals()
            }

    assert counted() == kept()
    save(made / "photos/a.png", seed=3, size=(96, 96))
    (made / "photos/new.txt").write_text("new")
    archive(made / "photos", dst=made / "dst", moved=True)
    assert counted() == kept()


def test_two_sources_of_one_name_are_one_error(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        save(tmp_path / folder / "photos/a.png")
    with pytest.raises(UsageError, match="both would be photos"):
        open_sources([str(tmp_path / "one/photos"), str(tmp_path / "two/photos")], tmp_path / "dst")
    archive(tmp_path / "one/photos", dst=tmp_path / "dst")
    with pytest.raises(UsageError, match="/one/photos already"):
        archive(tmp_path / "two/photos", dst=tmp_path / "dst")
    assert findings(tmp_path / "dst") == []


def test_an_archive_inside_its_source_is_left_out_and_around_it_refused(tmp_path: Path) -> None:
    save(tmp_path / "photos/a.png")
    for _ in range(2):
        archive(tmp_path / "photos", dst=tmp_path / "photos/dst")
    assert sorted(rows(tmp_path / "photos/dst")) == ["photos", "photos/a.png"]
    with pytest.raises(UsageError, match="lies in the archive"):
        open_sources([str(tmp_path / "photos/dst/streams")], tmp_path / "photos/dst")


def test_names_are_safe_or_refused() -> None:
    assert safe_parts("./a//b/") == ("a", "b")
    assert [safe_parts(name) for name in ("../a", "/a", "a/../b", "", ".", "a\0b")] == [None] * 6
    assert is_safe("photos/a")
    assert not any(map(is_safe, ("photos/./a", "photos/", "/photos", "..")))
    assert stays_inside("photos/sub/link", "../a")
    assert not any(stays_inside("photos/sub/link", to) for to in ("../../a", "/a", "../../photos/a"))
    assert len(object_name("streams", "photos/" + "é" * 126, ".lof").rsplit("/", 1)[1]) < 80


def test_a_folder_that_is_no_archive_is_left_alone(tmp_path: Path) -> None:
    save(tmp_path / "photos/a.png")
    (tmp_path / "dst").mkdir()
    (tmp_path / "dst/mine").write_text("mine")
    with pytest.raises(OutputError, match="no archive and not empty"):
        archive(tmp_path / "photos", dst=tmp_path / "dst")
    for call in (
        lambda: verify(tmp_path / "dst", ThisProcess()),
        lambda: restore(tmp_path / "dst", tmp_path / "o", ThisProcess()),
    ):
        with pytest.raises(ArchiveError, match="holds no archive"):
            call()
