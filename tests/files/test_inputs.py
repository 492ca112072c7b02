"""Which files are worked on, and where their outputs go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest

from lof.errors import ImageError, UsageError
from lof.files.inputs import Found, Source, find, output_path
from lof.files.storage import open_read, read_bytes, sha256
from lof.pictures.reading import read_picture


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def mapping(found: Found) -> dict[str, str]:
    return {str(source.path): str(source.relative) for source in found.sources}


def refusal(*inputs: str) -> str:
    with pytest.raises(UsageError) as caught:
        find(inputs)
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_gives_its_images_sorted_with_their_structure() -> None:
    touch("in/b.jpg", "in/a.PNG", "in/sub/deep/c.webp", "in/sub/z.tiff", "in/notes.txt", "in/sub/README")
    found = find(["in"])
    assert [str(source.relative) for source in found.sources] == [
        "a.PNG",
        "b.jpg",
        "sub/deep/c.webp",
        "sub/z.tiff",
    ]
    assert [source.path for source in found.sources] == [Path("in") / s.relative for s in found.sources]
    assert found.ignored == {"": 1, ".txt": 1}


def test_hidden_files_and_folders_are_left_out() -> None:
    touch("in/a.jpg", "in/.b.jpg", "in/.cache/c.jpg", "in/.d.txt")
    assert find(["in"]) == Found([Source(Path("in/a.jpg"), PurePosixPath("a.jpg"))], {})


def test_a_named_file_is_taken_whatever_its_suffix() -> None:
    touch("scan", "in/.hidden.dat")
    assert mapping(find(["scan", "in/.hidden.dat"])) == {"scan": "scan", "in/.hidden.dat": ".hidden.dat"}


def test_other_suffixes_can_be_asked_for() -> None:
    touch("in/a.jpg", "in/a.jpg.lof")
    found = find(["in"], suffixes=frozenset({".lof"}))
    assert mapping(found) == {"in/a.jpg.lof": "a.jpg.lof"}
    assert found.ignored == {".jpg": 1}


def test_several_folders_keep_their_own_names() -> None:
    touch("x/one/a.jpg", "x/two/a.jpg", "b.jpg")
    expected = {"x/one/a.jpg": "one/a.jpg", "x/two/a.jpg": "two/a.jpg", "b.jpg": "b.jpg"}
    assert mapping(find(["x/one", "x/two/", "b.jpg"])) == expected


def test_the_current_folder_has_a_name_too(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("one/a.jpg", "two/a.jpg")
    monkeypatch.chdir("one")
    assert mapping(find([".", "../two"])) == {"a.jpg": "one/a.jpg", "../two/a.jpg": "two/a.jpg"}


def test_two_sources_with_one_output_are_refused_by_name() -> None:
    touch("one/a.jpg", "two/a.jpg", "one/photos/b.jpg", "two/photos/b.jpg")
    message = refusal("one/a.jpg", "two/a.jpg")
    assert "one/a.jpg and two/a.jpg" in message
    assert "one/photos/b.jpg and two/photos/b.jpg" in refusal("one/photos", "two/photos")


def test_a_file_given_twice_counts_once() -> None:
    touch("in/a.jpg", "in/b.txt")
    Path("link").symlink_to("in")
    found = find(["in", "in/a.jpg", "./in/../in/a.jpg", "link/a.jpg", "in/*", "in/b.txt"])
    assert mapping(found) == {"in/a.jpg": "a.jpg", "in/b.txt": "b.txt"}
    assert found.ignored == {}


def test_a_glob_selects_below_its_fixed_part() -> None:
    touch("in/a.jpg", "in/b.png", "in/x/c.jpg", "in/x/y/d.jpg", "in/x/.e.jpg", "in/f.txt")
    assert mapping(find(["in/*.jpg"])) == {"in/a.jpg": "a.jpg"}
    assert mapping(find(["in/[ab].*"])) == {"in/a.jpg": "a.jpg", "in/b.png": "b.png"}
    assert mapping(find(["in/*/?.jpg"])) == {"in/x/c.jpg": "x/c.jpg"}
    deep = {"in/a.jpg": "a.jpg", "in/x/c.jpg": "x/c.jpg", "in/x/y/d.jpg": "x/y/d.jpg"}
    assert mapping(find(["in/**/*.jpg"])) == deep
    assert mapping(find([f"{Path.cwd()}/in/**/d.jpg"])) == {f"{Path.cwd()}/in/x/y/d.jpg": "x/y/d.jpg"}
    assert find(["in/*"]).ignored == {".txt": 1}
    assert mapping(find(["in/**"])) == {**deep, "in/b.png": "b.png"}


def test_two_globs_of_one_folder_need_no_prefix() -> None:
    touch("in/a.jpg", "in/b.png")
    assert mapping(find(["in/*.jpg", "in/*.png"])) == {"in/a.jpg": "a.jpg", "in/b.png": "b.png"}


def test_an_existing_name_is_never_a_glob() -> None:
    touch("in/a[1].jpg", "in/a1.jpg", "in/[x]/b.jpg", "in/x/c.jpg")
    assert mapping(find(["in/a[1].jpg"])) == {"in/a[1].jpg": "a[1].jpg"}
    assert mapping(find(["in/[x]"])) == {"in/[x]/b.jpg": "b.jpg"}


@pytest.mark.parametrize("name", ["my photo.jpg", "Grüße 日本.jpg", "two\nlines.jpg", "-o.jpg", "*.jpg"])
def test_unusual_names_are_found_both_ways(name: str) -> None:
    touch(f"in/{name}")
    assert mapping(find([f"in/{name}"])) == {f"in/{name}": name}
    assert mapping(find(["in"])) == {f"in/{name}": name}


def test_a_name_that_is_no_utf_8_is_found() -> None:
    Path("in").mkdir()
    Path(os.fsdecode(b"in/\xff.jpg")).write_bytes(b"")
    assert [os.fsencode(source.path) for source in find(["in"]).sources] == [b"in/\xff.jpg"]


def test_the_output_folder_is_not_descended_into() -> None:
    touch("in/a.jpg", "in/out/b.jpg", "in/out/sub/c.jpg", "in/other/d.jpg")
    assert mapping(find(["in"], exclude=Path("in/out"))) == {
        "in/a.jpg": "a.jpg",
        "in/other/d.jpg": "other/d.jpg",
    }
    assert len(find(["in"], exclude=Path("in")).sources) == 4
    assert len(find(["in"], exclude=Path("elsewhere")).sources) == 4


def test_links_that_loop_end() -> None:
    touch("in/sub/a.jpg", "outside/b.jpg")
    Path("in/sub/up").symlink_to("..")
    Path("in/alias").symlink_to("sub")
    Path("in/self").symlink_to("self")
    Path("in/more").symlink_to("../outside")
    expected = {"in/more/b.jpg": "more/b.jpg", "in/sub/a.jpg": "sub/a.jpg"}
    assert mapping(find(["in"])) == expected
    assert mapping(find(["in/**/*.jpg"])) == expected


def test_a_broken_link_to_an_image_is_not_lost() -> None:
    touch("in/a.jpg")
    Path("in/b.jpg").symlink_to("nowhere.jpg")
    assert mapping(find(["in"])) == {"in/a.jpg": "a.jpg", "in/b.jpg": "b.jpg"}


def test_inputs_that_yield_nothing_are_refused() -> None:
    touch("in/a.txt", "full/a.jpg")
    Path("empty").mkdir()
    assert "no input" in refusal()
    assert "missing.jpg: does not exist" in refusal("missing.jpg")
    assert "missing/*.jpg: does not exist" in refusal("missing/*.jpg")
    assert "does not exist" in refusal("")
    assert "does not exist" in refusal("a\0b.jpg")
    assert "in: holds none" in refusal("full", "in")
    assert "empty: holds none" in refusal("empty")
    assert "full/*.png: holds none" in refusal("full/*.png")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """As a user who may not read the folder."""
    folder.chmod(0)
    root = os.geteuid() == 0
    if root:  # for whom permissions do not count
        Path.cwd().chmod(0o755)
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_an_input_that_cannot_be_read_is_one_clear_error() -> None:
    touch("in/a.jpg")
    with locked(Path("in")):
        assert "in: cannot be read (Permission denied)" in refusal("in")


@pytest.mark.parametrize("text", ["in", "in/**/*.jpg"])
def test_a_folder_below_an_input_that_cannot_be_read_stands_for_its_files(text: str) -> None:
    touch("in/a.jpg", "in/locked/b.jpg", "in/z.jpg")
    with locked(Path("in/locked")):
        sources = find([text]).sources
        assert [str(source.relative) for source in sources] == ["a.jpg", "locked", "z.jpg"]
        with pytest.raises(ImageError, match=r"in/locked: cannot be read \(Permission denied\); "):
            read_picture(sources[1].path)


def test_a_pipe_is_never_opened() -> None:
    os.mkfifo("x.png")
    (source,) = find(["x.png"]).sources
    for read in (open_read, read_bytes, sha256):
        with pytest.raises(OSError, match="not a regular file"):
            read(source.path)


def test_ten_thousand_mixed_files_are_sorted_into_images_and_others() -> None:
    suffixes = [".jpg", ".txt", ".PNG", ""]
    for folder in range(100):
        Path(f"in/{folder:02}/x").mkdir(parents=True)
        for number in range(100):
            Path(f"in/{folder:02}/x/{number:02}{suffixes[number % 4]}").touch()
    found = find(["in", "in/**/*.jpg"])
    assert len(found.sources) == len({source.relative for source in found.sources}) == 5000
    assert [source.relative for source in found.sources] == sorted(
        source.relative for source in found.sources
    )
    assert found.ignored == {"": 2500, ".txt": 2500}


def test_outputs_keep_structure_and_full_name() -> None:
    touch("in/sub/a.jpg", "in/sub/a.png", "in/b")
    sources = find(["in", "in/b"]).sources
    assert [output_path(source, Path("out"), ".lof") for source in sources] == [
        Path("out/sub/a.jpg.lof"),
        Path("out/sub/a.png.lof"),
        Path("out/b.lof"),
    ]
