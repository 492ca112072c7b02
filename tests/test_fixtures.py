"""What earlier versions wrote is read for ever: ``tests/fixtures``, which ``make.py`` wrote.

The fixture of a study stands beside its tests, as text: ``tests/study/format-1.sql``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lof
from lof.archive import Manifest, create, open_sources, restore, verify
from lof.codecs import codec_specs
from lof.containers import CONTAINERS, container_of, unpack
from lof.jobs import JobSettings
from lof.pools import ThisProcess
from lof.profiles import load_profile

VERSIONS = sorted(path for path in (Path(__file__).parent / "fixtures").iterdir() if path.is_dir())
STREAMS = [
    (version, stream)
    for version in VERSIONS
    for stream in json.loads((version / "streams.json").read_text(encoding="utf-8"))
]


def test_there_are_fixtures() -> None:
    assert [version.name for version in VERSIONS][:1] == ["v0.1"]
    assert len(STREAMS) >= 25


@pytest.mark.parametrize(("version", "stream"), STREAMS, ids=[f"{v.name}-{s['file']}" for v, s in STREAMS])
def test_a_stream_decodes_to_the_picture_that_it_did(version: Path, stream: dict[str, Any]) -> None:
    data = (version / stream["file"]).read_bytes()
    parsed = unpack(data, stream["file"])
    assert (parsed.codec, parsed.quality, parsed.metric) == tuple(
        stream[key] for key in ("codec", "quality", "metric")
    )
    # Whatever is read can be written, byte for byte.
    assert container_of(data).pack(parsed) == data
    decoded = lof.decode(data, name=stream["file"], weights=version / "weights" if stream["own"] else None)
    with Image.open(version / f"{stream['file']}.png") as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    # CPUs round differently: by one level, at few places.
    difference = np.abs(decoded.pixels.astype(int) - expected)
    assert difference.max() <= 1
    assert difference.mean() < 0.02
    if parsed.boxes:
        assert decoded.exif == parsed.boxes[b"exif"]


def test_every_numbered_codec_and_every_container_is_there() -> None:
    newest = {(s["codec"], Path(s["file"]).suffix) for version, s in STREAMS if version == VERSIONS[-1]}
    wanted = {
        (spec.name, container.suffix)
        for spec in codec_specs(hidden=True)
        for container in CONTAINERS.values()
        if container.holds(spec.name) and spec.source != "none"
        if not spec.name.startswith(("lapped", "jointiq", "jpeg-"))  # their weights are still in training
    }
    assert wanted <= newest


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_an_archive_verifies_and_restores(version: Path, tmp_path: Path) -> None:
    dst = tmp_path / "archive"
    shutil.copytree(version / "archive", dst, symlinks=True)
    assert not verify(dst, ThisProcess()).findings
    with Manifest(dst) as manifest:
        rows = {row.path: row for row in manifest.rows()}
    assert {Path(name).name for name in rows} >= {"a.png", "b.jpg", "notes.txt", "link"}
    assert sum(row.codec is not None for row in rows.values()) == 2
    restore(dst, tmp_path / "out", ThisProcess())
    (notes,) = (tmp_path / "out").rglob("notes.txt")
    assert notes.read_text(encoding="utf-8") == "words\n"
    (picture,) = (tmp_path / "out").rglob("a.png")
    with Image.open(picture) as image:
        assert image.size == (120, 96)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_an_archive_is_added_to(version: Path, tmp_path: Path) -> None:
    dst, more = tmp_path / "archive", tmp_path / "more"
    shutil.copytree(version / "archive", dst, symlinks=True)
    more.mkdir()
    (more / "later.txt").write_text("later\n", encoding="utf-8")
    settings = JobSettings("msp-tiny", load_profile("fast"), device="cpu")
    create(open_sources([str(more)], dst), dst, settings, ThisProcess())
    with Manifest(dst) as manifest:
        names = {Path(row.path).name for row in manifest.rows()}
    assert names >= {"a.png", "later.txt"}
