"""A second look at a manifest, while a job writes it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lof.errors import OutputError
from lof.jobs.manifest import Manifest, Row

ROWS = 20
LONG = 30_000  # bytes of a record: a hundred of them fill a log, which is then begun anew


@contextmanager
def writer(out: Path) -> Iterator[Callable[[], None]]:
    """A job of another process, which writes every row some times more when the function is called."""
    asked, answered = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with Manifest(out) as manifest:
            number = 0
            while os.read(asked[0], 1):
                for _ in range(200):
                    record = {"text": f"{number:06}" * (LONG // 6)}
                    manifest.put(Row(f"{number % ROWS}.png", number, 1, "digest", "done", record))
                    number += 1
                os.write(answered[1], b"x")
        os._exit(0)

    def write() -> None:
        os.write(asked[1], b"x")
        os.read(answered[0], 1)

    try:
        write()
        yield write
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for end in (*asked, *answered):
            os.close(end)


def test_a_copy_shows_one_moment_whatever_is_written_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, times = Path.open, [0]
    with writer(tmp_path) as write:

        def open_late(path: Path, *arguments: Any, **options: Any) -> Any:
            if path.name.endswith("-wal") and times[0] < 4:
                times[0] += 1
                write()
            return real(path, *arguments, **options)

        monkeypatch.setattr(Path, "open", open_late)
        with Manifest.snapshot(tmp_path) as copy:
            assert copy is not None
            rows = [copy.get(f"{i}.png") for i in range(ROWS)]
    assert times[0] > 0
    numbers = sorted(row.size for row in rows if row is not None)
    assert numbers == list(range(numbers[-1] - ROWS + 1, numbers[-1] + 1))
    assert all(row and row.record["text"] == f"{row.size:06}" * (LONG // 6) for row in rows)


def test_nobody_is_told_to_delete_what_a_job_is_writing(tmp_path: Path) -> None:
    def look() -> None:
        with Manifest.snapshot(tmp_path):
            pass

    with writer(tmp_path):
        for path in (tmp_path / ".lof").iterdir():
            path.write_bytes(b"no database at all" * 100)
        with pytest.raises(OutputError, match=r"manifest\.sqlite: another lof is at work there; wait for it"):
            look()
    with pytest.raises(OutputError, match=r"manifest\.sqlite: damaged \(.*\); delete it"):
        look()
