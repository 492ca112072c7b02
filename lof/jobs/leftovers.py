"""Temporary files of processes that were killed while they wrote."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Iterable

from lof.files.storage import Location, names_in, remove

# How lof.files.atomic.write_atomically names them: the start of the name, then eight characters of tempfile's.
_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.tmp", re.DOTALL)
_KEPT_OF_NAME = 100


def remove_leftovers(paths: Iterable[Location]) -> None:
    """Remove what unfinished writes of ``paths`` left beside them. Nobody may be writing them now."""
    names: defaultdict[Location, set[str]] = defaultdict(set)
    for path in paths:
        names[path.parent].add(path.name[:_KEPT_OF_NAME])
    for folder, wanted in names.items():
        for name in names_in(folder):
            match = _TEMPORARY.fullmatch(name)
            if match and match[1] in wanted:
                with contextlib.suppress(OSError):
                    remove(folder / name)
