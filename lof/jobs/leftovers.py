"""Temporary files of processes that were killed while they wrote."""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

# How lof.files.write_atomically names them: the start of the name, then eight characters of tempfile's.
_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.tmp", re.DOTALL)
_KEPT_OF_NAME = 100


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove what unfinished writes of ``paths`` left beside them. Nobody may be writing them now."""
    names: defaultdict[Path, set[str]] = defaultdict(set)
    for path in paths:
        names[path.parent].add(path.name[:_KEPT_OF_NAME])
    for folder, wanted in names.items():
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                match = _TEMPORARY.fullmatch(entry.name)
                if match and match[1] in wanted:
                    os.unlink(entry.path)
