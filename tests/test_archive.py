"""Archives: what goes in comes back, what is wrong is named, a kill costs nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file as save_weights

import lof
import lof.stream
from lof.archive import Floors, Manifest, Policy, Row, create, improve, open_sources, restore, verify
from lof.archive.create import Summary
from lof.archive.names import is_safe, object_name, safe_parts, stays_inside
from lof.archive.store import Store
from lof.codecs import load_codec
from lof.errors import ArchiveError, OutputError, UsageError
from lof.jobs import JobSettings
from lof.pools import Here
from lof.profiles import parse_profile

QUICK = JobSettings(
    "tiny", parse_profile({"name": "quick", "stage": [{"kind": "greedy-flip", "evaluations": 1}]})
)
MORE = JobSettings(
    "tiny",
    parse_profile({"name": "more", "stage": [{"kind": "mean-field", "evaluations": 12, "check_every": 4}]}),
)


def save(path: Path, seed: int = 0, size: tuple[int, int] = (80, 64), **options: Any) -> Path:
    """A smooth picture, so that its stream is smaller than it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    Image.Image.save(small.resize(size, Image.Resampling.BICUBIC), path, **options)
    return path


def archive(*sources: Path, dst: Path, settings: JobSettings = QUICK, **options: Any) -> Summary:
    pool = options.pop("pool", Here())
    return create(open_sources([str(source) for source in sources], dst), dst, settings, pool, **options)


def rows(dst: Path) -> dict[str, Row]:
    with Manifest(dst) as manifest:
        return {row.path: row for row in manifest.rows()}


def findings(dst: Path) -> list[tuple[str, str]]:
    return [(finding.wrong, finding.name) for finding in verify(dst, Here()).findings]


def tree(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Content, permission bits and time of everything below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if path.is_symlink():
            content = f"-> {os.readlink(path)}"
        else:
            content = "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        found[path.relative_to(folder).as_posix()] = (
            content,
            stat.S_IMODE(status.st_mode),
            status.st_mtime_ns,
        )
    return found


@pytest.fixture(scope="module")
def first_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tree in ``photos`` and its archive in ``dst``."""
    folder = tmp_path_factory.mktemp("archive")
    photos = folder / "photos"
    save(photos / "a.png", 1)
    save(photos / "sub/b.jpg", 2, quality=95)
    (photos / "notes.txt").write_text("words\n")
    (photos / "empty").mkdir()
    (photos / "sub/link").symlink_to("b.jpg")
    (photos / "out").symlink_to("/etc/hosts")
    os.chmod(photos / "notes.txt", 0o640)
    for path in (photos / "a.png", photos / "sub/b.jpg", photos / "empty", photos / "sub", photos):
        os.utime(path, ns=(10**18 + 123, 10**18 + 123))
    archive(photos, dst=folder / "dst")
    return folder


@pytest.fixture
def made(first_made: Path, tmp_path: Path) -> Path:
    """A copy of its own; the manifest still names the place of the original sources."""
    shutil.copytree(first_made, tmp_path / "made", symlinks=True)
    return tmp_path / "made"


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
    assert (row.codec, row.quality, row.profile, row.format) == ("tiny", 4, "quick", "PNG")
    assert findings(first_made / "dst") == []


def test_restore_gives_the_decoded_images_and_everything_else_as_it_was(
    first_made: Path, tmp_path: Path
) -> None:
    result = restore(first_made / "dst", tmp_path / "out", Here(), form="source", all_links=True)
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
    result = restore(first_made / "dst", tmp_path / "out", Here())
    assert result.left_out == ["photos/out"]
    assert sorted(tree(tmp_path / "out/photos")) == [
        "a.png",
        "empty",
        "notes.txt",
        "sub",
        "sub/b.jpg.png",
        "sub/link",
    ]
    again = restore(first_made / "dst", tmp_path / "out", Here())
    assert (again.images, again.stored, again.there, again.errors) == (0, 0, 3, [])


def test_restore_never_overwrites_what_differs_unless_told_to(first_made: Path, tmp_path: Path) -> None:
    mine = tmp_path / "out/photos/a.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    result = restore(first_made / "dst", tmp_path / "out", Here())
    assert [path for path, _ in result.errors] == ["photos/a.png"]
    assert "--overwrite" in result.errors[0][1]
    assert mine.read_text() == "mine"
    assert restore(first_made / "dst", tmp_path / "out", Here(), overwrite=True).errors == []
    assert mine.read_bytes().startswith(b"\x89PNG")


def test_restore_writes_nothing_through_a_link_in_its_target(first_made: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/photos").symlink_to(tmp_path / "elsewhere")
    result = restore(first_made / "dst", tmp_path / "out", Here())
    assert len(result.errors) >= 3
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("path", ["../evil", "/evil", "photos/../../evil", "photos//evil"])
def test_a_crafted_manifest_that_leads_out_of_the_tree_is_refused(made: Path, path: str) -> None:
    with Store(made / "dst") as store:
        store.manifest.put(Row(path, "link", "folder", "stored", link="x"))
    with pytest.raises(ArchiveError, match="nothing was restored"):
        restore(made / "dst", made / "out", Here())
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
        restore(tmp_path / "dst", tmp_path / form, Here(), form=form)  # type: ignore[arg-type]
        with Image.open(tmp_path / form / "photos" / name) as image:
            assert image.info["icc_profile"] == profile
            assert image.getexif()[0x010F] == "maker"


NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: name not in (".", ".."))


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
    assert restore(work / "dst", work / "out", Here()).errors == []
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
    restore(tmp_path / "dst", tmp_path / "out", Here())
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


def test_verify_names_damaged_missing_and_unexpected_files_and_create_repairs(made: Path) -> None:
    dst = made / "dst"
    stream = dst / "streams/photos/a.png.lof"
    data = bytearray(stream.read_bytes())
    data[-6] ^= 1
    stream.write_bytes(data)
    (dst / "streams/photos/sub/b.jpg.lof").unlink()
    (dst / "stored/photos/notes.txt").write_text("w0rds\n")
    (dst / "stored/surprise").write_text("?")
    assert sorted(findings(dst)) == [
        ("damaged", "photos/a.png"),
        ("damaged", "photos/notes.txt"),
        ("missing", "photos/sub/b.jpg"),
        ("unexpected", "stored/surprise"),
    ]
    summary = archive(made / "photos", dst=dst, moved=True)
    assert (summary.streamed, summary.stored) == (1, 0)  # a look tells what is missing, not what is damaged
    summary = archive(made / "photos", dst=dst, policy=Policy(recheck=True))
    assert (summary.streamed, summary.stored) == (1, 1)
    assert findings(dst) == [("unexpected", "stored/surprise")]


def test_a_stream_that_decodes_to_other_pixels_is_damaged(made: Path) -> None:
    other = lof.encode(Image.open(made / "photos/sub/b.jpg"), codec="tiny")
    with Store(made / "dst") as store:
        row = store.manifest.get("photos/a.png")
        assert row is not None
        store.commit(row, store.stage([other]))
    assert findings(made / "dst") == [("damaged", "photos/a.png")]


def test_what_is_damaged_does_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    for seed in range(12):
        save(tmp_path / f"photos/{seed}.png", seed, (160, 128))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert archive(tmp_path / "photos", dst=tmp_path / "two").streamed == 12
        torch.set_num_threads(1)
        assert archive(tmp_path / "photos", dst=tmp_path / "one").streamed == 12
        assert findings(tmp_path / "two") == []
        torch.set_num_threads(2)
        assert findings(tmp_path / "one") == []
    finally:
        torch.set_num_threads(threads)


def test_a_stream_of_other_weights_is_unchecked_and_not_called_damaged(made: Path) -> None:
    stream = (made / "dst/streams/photos/a.png.lof").read_bytes()
    parsed = lof.stream.read(stream)
    other = lof.stream.write(replace(parsed, fingerprint=b"\0\0\0\0"))
    with Store(made / "dst") as store:
        row = store.manifest.get("photos/a.png")
        assert row is not None
        store.commit(row, store.stage([other]))
    (finding,) = verify(made / "dst", Here()).findings
    assert (finding.wrong, finding.name) == ("unchecked", "photos/a.png")
    assert "other weights" in finding.error


def test_an_archive_keeps_the_weights_that_its_streams_need(tmp_path: Path) -> None:
    shipped = load_codec("tiny", device="cpu")
    state = {name: tensor.clone() for name, tensor in shipped.state().items()}
    state["g_s.0.bias"] += 0.1
    (tmp_path / "others").mkdir()
    save_weights(state, tmp_path / "others" / "tiny-4.safetensors")
    save(tmp_path / "photos" / "a.png")
    dst = tmp_path / "dst"
    archive(tmp_path / "photos", dst=dst, settings=replace(QUICK, weights=tmp_path / "others"))
    shutil.rmtree(tmp_path / "others")
    (row,) = [row for row in rows(dst).values() if row.state == "streamed"]
    assert row.fingerprint != shipped.fingerprint.hex()
    assert findings(dst) == []
    assert improve(dst, open_sources([str(tmp_path / "photos")], dst), MORE, Here()).replaced == 1
    assert findings(dst) == []
    shutil.rmtree(dst / "weights")
    assert [wrong for wrong, _ in findings(dst)] == ["unchecked"]


def test_improve_replaces_what_gets_better_keeps_the_rest_and_continues(made: Path) -> None:
    before = rows(made / "dst")["photos/a.png"]
    save(made / "photos/sub/b.jpg", seed=77)
    sources = open_sources([str(made / "photos")], made / "dst")
    first = improve(made / "dst", sources, MORE, Here())
    assert (first.replaced, first.missing) == (1, 0)
    assert [path for path, _ in first.errors] == ["photos/sub/b.jpg"]
    assert "original has changed" in first.errors[0][1]
    after = rows(made / "dst")["photos/a.png"]
    assert before.cost is not None
    assert after.cost is not None
    assert after.cost < before.cost
    assert first.gain == pytest.approx(after.cost / before.cost - 1)
    assert after.profile == "more"
    assert after.seconds > before.seconds
    second = improve(made / "dst", sources, MORE, Here())
    assert (second.replaced, second.kept, second.tried) == (0, 0, 1)
    plain = improve(made / "dst", sources, QUICK, Here())
    assert plain.replaced + plain.kept == 1
    assert findings(made / "dst") == []


def test_improve_keeps_a_stream_that_no_search_makes_better(made: Path) -> None:
    sources = open_sources([str(made / "photos")], made / "dst")
    nothing = JobSettings(
        "tiny",
        parse_profile(
            {"name": "none", "stage": [{"kind": "relax", "evaluations": 1, "learning_rate": 1e-9}]}
        ),
    )
    before = tree(made / "dst/streams")
    result = improve(made / "dst", sources, nothing, Here())
    assert (result.replaced, result.kept) == (0, 2)
    assert tree(made / "dst/streams") == before


def test_improve_leaves_streams_whose_original_is_gone(made: Path) -> None:
    (made / "photos/a.png").unlink()
    result = improve(made / "dst", open_sources([str(made / "photos")], made / "dst"), MORE, Here())
    assert (result.replaced, result.missing) == (1, 1)


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
        lambda: verify(tmp_path / "dst", Here()),
        lambda: restore(tmp_path / "dst", tmp_path / "o", Here()),
    ):
        with pytest.raises(ArchiveError, match="holds no archive"):
            call()
