"""The photographs to start with."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from lof.errors import OutputError
from lof.files.inputs import find
from lof.pictures.reading import read_picture
from lof.pictures.samples import CREDITS_NAME, SAMPLES, write_samples


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_samples_are_the_photographs_of_scikit_image(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "samples"
    paths = write_samples(folder)
    assert [path.name for path in paths] == ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"]
    for path in paths:
        assert path.read_bytes() == resources.files("skimage").joinpath("data", path.name).read_bytes()
    assert np.array_equal(read_picture(paths[1]).pixels, data.chelsea())
    assert [source.path for source in find([str(folder)]).sources] == paths


def test_every_photograph_is_credited(tmp_path: Path) -> None:
    write_samples(tmp_path)
    text = (tmp_path / CREDITS_NAME).read_text(encoding="utf-8")
    for sample in SAMPLES:
        assert f"{sample.name}: " in text
        assert "CC0" in sample.credit or "public domain" in sample.credit


def test_a_second_call_touches_nothing_and_fills_gaps(tmp_path: Path) -> None:
    paths = write_samples(tmp_path)
    before = content(tmp_path)
    assert write_samples(tmp_path) == paths
    assert content(tmp_path) == before
    paths[2].unlink()
    write_samples(tmp_path)
    assert {name: data for name, (_, data) in content(tmp_path).items()} == {
        name: data for name, (_, data) in before.items()
    }


@pytest.mark.parametrize("name", ["coffee.png", CREDITS_NAME])
def test_another_file_of_that_name_is_kept_and_nothing_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(OutputError, match=rf"{name}: is another file already; "):
        write_samples(tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"mine")]


def test_a_folder_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot be written"):
        write_samples(tmp_path / "file")
    (tmp_path / "rocket.jpg").mkdir()
    with pytest.raises(OutputError, match=r"rocket.jpg: cannot be read"):
        write_samples(tmp_path)
