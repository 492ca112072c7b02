"""What the tests of archives share: pictures, quick searches, and looks at what was made."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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


def without_privileges(program: str, *arguments: object) -> str:
    """What a program in Python prints when run by somebody to whom permissions apply, which they do not to root."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root without setpriv reads everything")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
