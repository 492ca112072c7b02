"""Pools: who does what, what is told, and what happens when a worker dies."""

from __future__ import annotations

import errno
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pool_tools import DiesAtOnce, DiesFirst, Refuses, Squares, Variables, outcomes, run

from lof.errors import UsageError, WorkerError
from lof.pools import Advanced, Event, Finished, Pool, Processes, Started, ThisProcess, make_pool
from lof.pools.processes import _Process


@pytest.mark.parametrize("pool", [ThisProcess(), Processes(2, threads=1)])
def test_every_item_ends_once_and_tools_are_opened_once_per_worker(pool: Pool, tmp_path: Path) -> None:
    events = run(pool, Squares(tmp_path), list(range(20)))
    assert outcomes(events) == {i: i * i for i in range(20)}
    assert [e.message for e in events if isinstance(e, Advanced) and e.item == 7] == ["about 7"]
    workers = {event.worker for event in events if isinstance(event, Started)}
    opened = {path.name.removeprefix("opened-") for path in tmp_path.glob("opened-*")}
    assert workers
    assert {worker.split()[-1] for worker in workers} <= opened  # one may be ready when all is done
    assert len(opened) <= 2
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("pool", [ThisProcess(), Processes(2, threads=1)])
def test_items_are_pulled_as_they_are_needed(pool: Pool, tmp_path: Path) -> None:
    pulled = 0

    def numbers() -> Iterator[int]:
        nonlocal pulled
        for i in range(30):
            pulled += 1
            yield i

    ahead = []
    ended = 0

    def on_event(event: Event) -> None:
        nonlocal ended
        ended += isinstance(event, Finished)
        ahead.append(pulled - ended)

    pool.run(numbers(), Squares(tmp_path), on_event)
    assert ended == 30
    assert max(ahead) <= 6


def test_no_items_open_no_tool(tmp_path: Path) -> None:
    for pool in (ThisProcess(), Processes(2, threads=1)):
        assert run(pool, Refuses(tmp_path), []) == []


def test_an_item_that_kills_its_workers_is_set_aside_with_the_reason(tmp_path: Path) -> None:
    events = run(Processes(2, threads=1), Squares(tmp_path), [1, "die", 2, "die once", 3])
    assert outcomes(events) == {
        1: 1,
        2: 4,
        3: 9,
        "die": "its worker process was killed (SIGKILL), 2 times",
        "die once": "survived",
    }
    assert [e.attempt for e in events if isinstance(e, Finished) and e.item == "die once"] == [2]
    assert (tmp_path / "cleaned").exists()


def test_a_batch_whose_worker_died_is_done_in_parts(tmp_path: Path) -> None:
    events = run(Processes(1, threads=1), Squares(tmp_path), [(1, "die", 3)])
    assert list(outcomes(events)) == [1, "die", 3]
    assert outcomes(events)[3] == 9


def test_a_tool_that_cannot_be_opened_ends_the_run(tmp_path: Path) -> None:
    for pool in (ThisProcess(), Processes(2, threads=1)):
        with pytest.raises(UsageError, match="no such tool"):
            run(pool, Refuses(tmp_path), [1, 2])
    with pytest.raises(WorkerError, match="ended with exit code 7 while it started"):
        run(Processes(2, threads=1), DiesAtOnce(tmp_path), [1, 2])
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_while_it_starts_is_replaced_and_its_item_not_blamed(tmp_path: Path) -> None:
    events = run(Processes(1, threads=1), DiesFirst(tmp_path), [2, 3])
    assert (tmp_path / "started").exists()
    assert outcomes(events) == {2: 4, 3: 9}
    assert [event.attempt for event in events if isinstance(event, Finished)] == [1, 1]


def test_what_stops_the_run_stops_its_workers(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Finished):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Processes(2, threads=1).run(iter(range(10)), Squares(tmp_path), stop)
    assert multiprocessing.active_children() == []


def test_workers_have_the_environment_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("one", "two"):
        monkeypatch.setenv("LOF_WEIGHTS_DIR", value)
        events = run(Processes(1, threads=1), Variables(tmp_path), ["LOF_WEIGHTS_DIR", "LOF_NO_SUCH"])
        assert outcomes(events) == {"LOF_WEIGHTS_DIR": value, "LOF_NO_SUCH": None}


def test_one_job_works_in_this_process_and_more_in_others() -> None:
    assert isinstance(make_pool(1), ThisProcess)
    assert isinstance(make_pool(2), Processes)
    assert isinstance(make_pool(1, threads=1), Processes)


def test_a_worker_has_as_many_threads_where_few_items_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lof.pools.processes.cores", lambda: 8)
    started: list[int] = []
    start = _Process.__init__

    def note(self: _Process, work: Any, threads: int) -> None:
        started.append(threads)
        start(self, work, threads)

    monkeypatch.setattr(_Process, "__init__", note)
    for items in ([1], [1, 2, 3]):
        run(Processes(2), Squares(tmp_path), items)
    assert set(started) == {4}


def test_a_worker_that_the_machine_refuses_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(_Process, "__init__", refuse)
    with pytest.raises(
        WorkerError, match=r"worker process cannot start \(.*Too many open files\); use fewer"
    ):
        run(Processes(2, threads=1), Squares(tmp_path), [1, 2, 3])
