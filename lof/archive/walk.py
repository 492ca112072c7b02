"""The walk over a folder. As a program it writes what it sees to a pipe, for :mod:`lof.archive.folder`.

To start quickly, this imports nothing else of lof.
"""

from __future__ import annotations

import errno
import os
import pickle
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from fnmatch import translate
from itertools import islice

Seen = tuple[str, int, int, int, str]
"""Path, type and permission bits, size, time in nanoseconds; instead of these, what went wrong."""

OWN = ".lof"
"""What lof keeps for itself beside its outputs; never part of a source."""
_PAGE = 500


def matcher(globs: Sequence[str]) -> Callable[[str], bool]:
    """Whether an archive's path is left out, not counting the folders above it.

    A glob with a slash is compared with the path below the source, any other one with the last name alone.
    """
    anchored = [glob.strip("/") for glob in globs if "/" in glob.rstrip("/")]
    loose = [glob.rstrip("/") for glob in (*globs, OWN) if "/" not in glob.rstrip("/")]
    path_fits, name_fits = (
        re.compile("|".join(map(translate, some)) or "(?!)") for some in (anchored, loose)
    )

    def fits(path: str) -> bool:
        _, _, below = path.partition("/")
        return bool(name_fits.match(below.rpartition("/")[2]) or path_fits.match(below))

    return fits


def walk(folder: str, path: str, fits: Callable[[str], bool]) -> Iterator[Seen]:
    """All that is below ``folder`` and called ``path`` in the archive, sorted by the bytes of the paths.

    However deep the tree is, one folder is open at a time.
    """
    # Paths below, with their steps once they are listed.
    left: list[tuple[str, Iterator[str] | None]] = [("", None)]
    while left:
        place, steps = left.pop()
        try:
            # By its handle, the files of a folder are looked up without walking their paths again.
            handle = os.open(f"{folder}{place}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            # A folder whose path is too long has been named already: its status could not be had either.
            if error.errno != errno.ENAMETOOLONG:
                yield _unseen(f"{path}{place}", error)
            continue
        try:
            steps = steps or iter(_steps(handle, f"{path}{place}", fits))
            for step in steps:
                below = f"{place}/{step}"
                if step[-1] == "/":
                    left += [(place, steps), (below[:-1], None)]
                    break
                try:
                    status = os.stat(step, dir_fd=handle, follow_symlinks=False)
                except OSError as error:
                    yield _unseen(f"{path}{below}", error)
                    continue
                yield f"{path}{below}", status.st_mode, status.st_size, status.st_mtime_ns, ""
        except OSError as error:
            yield _unseen(f"{path}{place}", error)
        finally:
            os.close(handle)


def _steps(handle: int, path: str, fits: Callable[[str], bool]) -> list[str]:
    """The names in a folder, in order; those of folders come twice, with a slash for what is in them."""
    with os.scandir(handle) as found:
        listed = [item for item in found if not fits(f"{path}/{item.name}")]
    steps = [item.name for item in listed]
    steps += [f"{item.name}/" for item in listed if item.is_dir(follow_symlinks=False)]
    # What is ASCII sorts like its bytes, and faster.
    return sorted(steps, key=None if "".join(steps).isascii() else _to_bytes)


def _to_bytes(step: str) -> bytes:
    return step.encode("utf-8", "surrogateescape")


def _unseen(path: str, error: OSError) -> Seen:
    return path, 0, 0, 0, error.strerror or str(error)


def _main(folder: str, path: str, *globs: str) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # to end with whoever reads
    seen = walk(folder, path, matcher(globs))
    while page := list(islice(seen, _PAGE)):
        pickle.dump(page, sys.stdout.buffer)
    pickle.dump(None, sys.stdout.buffer)  # the end, and not a process that died


if __name__ == "__main__":
    _main(*sys.argv[1:])
