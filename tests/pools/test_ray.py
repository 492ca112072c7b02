"""The pool of Ray actors, with a real cluster of two cores and workers that are really killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from job_tools import SLOW, Killer, save, temporaries
from pool_tools import DiesAtOnce, Endless, Refuses, Squares, outcomes, run

import lof
from lof.errors import MissingExtraError, UsageError, WorkerError
from lof.files.inputs import find
from lof.files.storage import parse
from lof.jobs import Started, run_job
from lof.pools import Advanced, Event, Finished, Workers, make_pool

pytestmark = pytest.mark.long

ray = pytest.importorskip("ray", reason="the extra lof[ray] is not installed")


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # for the workers
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        ray.init(
            "local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _system_config={"kill_worker_timeout_milliseconds": 9000},  # before it forces one that hangs
        )
        yield
        ray.shutdown()


def test_deaths_cost_what_was_in_hand_and_the_rest_goes_on(tmp_path: Path) -> None:
    pool = make_pool(2, ray="auto", threads=1)
    events = run(pool, Squares(tmp_path), iter(["die once", (5, "die", 6), 7]))
    reason = outcomes(events)["die"]
    assert reason.startswith("its Ray worker died (")
    assert reason.endswith("), 2 times")
    assert outcomes(events) == {"die": reason, "die once": "survived", 5: 25, 6: 36, 7: 49}
    attempts = {e.item: e.attempt for e in events if isinstance(e, Finished)}
    assert attempts == {"die once": 2, "die": 2, 5: 2, 6: 2, 7: 1}
    assert [e.message for e in events if isinstance(e, Advanced) and e.item == 7] == ["about 7"]
    assert (tmp_path / "cleaned").exists()
    workers = {event.worker.split()[-1] for event in events if isinstance(event, Started)}
    assert {path.name.removeprefix("opened-") for path in tmp_path.glob("opened-*")} >= workers
    assert [event for event in events if isinstance(event, Workers)][-1].lost == 3


def test_items_have_names_of_any_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    assert outcomes(run(make_pool(1, ray="auto", threads=1), Squares(tmp_path), [name])) == {name: "survived"}


def test_a_tool_that_cannot_be_opened_ends_the_run(tmp_path: Path) -> None:
    pool = make_pool(1, ray="auto")
    with pytest.raises(UsageError, match="no such tool"):
        run(pool, Refuses(tmp_path), [1, 2])
    with pytest.raises(WorkerError, match=r"a Ray worker died \(.*\) while it started"):
        run(pool, DiesAtOnce(tmp_path), [1, 2])


def test_what_stops_the_run_leaves_no_actors(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Finished):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_pool(2, ray="auto", threads=1).run(iter(range(10)), Squares(tmp_path), stop)
    assert ray.util.list_named_actors(all_namespaces=True) == []


@pytest.mark.parametrize("hangs", [False, True])
def test_what_a_worker_was_doing_is_cleaned_up_once_its_process_is_gone(tmp_path: Path, hangs: bool) -> None:
    seen: list[int] = []

    def stop(event: Event) -> None:
        if isinstance(event, Advanced):
            seen.append(event.message)
        if len(seen) == 2:
            for process in seen if hangs else ():
                os.kill(process, signal.SIGSTOP)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_pool(2, ray="auto", threads=1).run(iter(range(10)), Endless(tmp_path), stop)
    assert {path.name for path in tmp_path.iterdir() if "opened" not in path.name} == {"gone-0", "gone-1"}


def test_a_worker_that_fits_no_node_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no node of the Ray cluster has 3 cores"):
        run(make_pool(1, ray="auto", threads=3), Squares(tmp_path), [1])
    with pytest.raises(UsageError, match=r"1 cores and 0\.5 GPUs for one worker"):
        run(make_pool(2, ray="auto", num_gpus=0.5), Squares(tmp_path), [1])


def test_addresses_that_nobody_answers_are_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:  # listens, but is no Ray
        port = other.getsockname()[1]
        other.settimeout(0)
        with pytest.raises(WorkerError, match=f"--ray 127.0.0.1:{port}: no Ray head node answers there"):
            make_pool(ray=f"127.0.0.1:{port}")
    with pytest.raises(WorkerError, match="no Ray head node answers there"):
        make_pool(ray=f"127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "somewhere", "host:port", ":6379"])
def test_what_is_no_address_is_wrong_usage(address: str) -> None:
    with pytest.raises(UsageError, match=f"--ray {address}: "):
        make_pool(ray=address)


def test_gpus_without_ray_are_wrong_usage() -> None:
    for options in ({"num_gpus": 1.0}, {"num_gpus": -1.0, "ray": "local"}):
        with pytest.raises(UsageError, match="--num-gpus"):
            make_pool(2, **options)  # type: ignore[arg-type]


def test_without_ray_installed_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"--ray needs ray.*pip install 'lof\[ray\]'"):
        make_pool(ray="local")


def test_a_killed_worker_of_a_job_costs_nothing_but_time(tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / f"in/{number}.png", seed=number)
    killer = Killer("1.png", most=1)
    sources = find([f"file://{tmp_path}/in"]).sources
    out = parse(f"file://{tmp_path}/out")
    summary = run_job(sources, out, SLOW, pool=make_pool(2, ray="auto", threads=1), on_event=killer)
    assert len(killer.killed) == 1
    assert not psutil.pid_exists(killer.killed[0])
    attempts = [e.attempt for e in killer.events if isinstance(e, Started) and e.item == sources[1]]
    assert attempts == [1, 2]
    assert summary.records[1]["notes"] == ["done at the second attempt, its first worker process died"]
    assert temporaries(tmp_path) == []
    for number in range(2):
        stream = (tmp_path / f"out/{number}.png.lof").read_bytes()
        assert lof.decode(stream).pixels.shape == (80, 96, 3)


def test_ctrl_c_ends_a_local_cluster_with_its_actors_and_json_stays_clean(tmp_path: Path) -> None:
    for number in range(12):
        save(tmp_path / f"in/{number}.png", seed=number)
    (tmp_path / "long.toml").write_text('[[stage]]\nkind = "relax"\nevaluations = 60\n')
    # Shells start background jobs with Ctrl-C ignored, and that is inherited.
    code = "from signal import *; signal(SIGINT, default_int_handler); import lof.cli.optimize as o; o.app()"
    options = [
        "--codec",
        "lapped-tiny",
        "--profile",
        "long.toml",
        "--ray",
        "local",
        "--jobs",
        "2",
        "--threads",
        "1",
    ]
    with subprocess.Popen(
        [sys.executable, "-c", code, "optimize", "in", "--json", *options],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        start_new_session=True,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        workers = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
        os.killpg(process.pid, signal.SIGINT)
        rest = [json.loads(line) for line in process.stdout.read().splitlines()]
        assert process.wait() == 130
    assert first["state"] == "done"
    assert len(rest) < 11
    assert workers
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)], 20)
    assert alive == []
    assert temporaries(tmp_path) == []
