"""What the tests of archives share: pictures, quick searches, and looks at what was made."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lof.archive import Manifest, Row, Summary, create, open_sources, verify
from lof.jobs import JobSettings
from lof.pools import ThisProcess
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
    opened = open_sources([str(source) for source in sources], dst, exclude=options.pop("exclude", ()))
    return create(opened, dst, settings, options.pop("pool", ThisProcess()), **options)


def rows(dst: Path) -> dict[str, Row]:
    with Manifest(dst) as manifest:
        return {row.path: row for row in manifest.rows()}


def findings(dst: Path) -> list[tuple[str, str]]:
    return [(finding.wrong, finding.name) for finding in verify(dst, ThisProcess()).findings]


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
