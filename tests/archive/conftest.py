"""Archives that tests start from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from archives import archive, save


@pytest.fixture(scope="session")
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
