"""Reaching a Ray cluster, or starting one on this machine, without waiting for what will not come.

Ray itself waits minutes for an address that nobody answers, and prints about workers that die on stdout.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lof.errors import UsageError, WorkerError, one_line, require
from lof.pools.processes import cores

LOCAL, AUTO = "local", "auto"
_PATIENCE = 15.0  # seconds for an address to answer; Ray's own program takes some to start
_OBJECT_STORE = 2**28  # bytes; outcomes are small


@dataclass(frozen=True)
class Share:
    """What each worker takes of a cluster, and how many workers there are to be."""

    workers: int
    threads: int
    num_gpus: float


def require_ray(address: str) -> None:
    """Check what can be checked before anything is done.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: the address is none that a driver can use.
        WorkerError: nobody answers there.
    """
    require("ray", "ray", "--ray")
    if address in (LOCAL, AUTO):
        return
    if "://" in address:
        raise UsageError(
            f"--ray {address}: a Ray client cannot follow the work; run the command inside the cluster: "
            "ray job submit -- lof optimize … --ray auto"
        )
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 2**16):
        raise UsageError(
            f"--ray {address}: give local, auto or HOST:PORT of the head node, e.g. 10.0.0.1:6379"
        )
    if not _answers(host.strip("[]"), int(port)):
        raise WorkerError(
            f"--ray {address}: no Ray head node answers there; start one with `ray start --head` or check it"
        )


@contextmanager
def connected(address: str, workers: int | None, threads: int | None) -> Iterator[Any]:
    """The module ``ray``, connected; an existing connection of this process is used and stays.

    Raises:
        WorkerError: there is no such cluster.
    """
    # Ray would otherwise rebuild the caller's environment for each worker when the driver runs under uv,
    # warn about a change of defaults, and mix its own lines into ours.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    import ray

    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options["num_cpus"] = max(cores(), (workers or 1) * (threads or 1))
        options["object_store_memory"] = _OBJECT_STORE
    try:
        ray.init(address, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise WorkerError(f"--ray {address}: {_why_not(address, error)}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def share_out(ray: Any, workers: int | None, threads: int | None, num_gpus: float | None) -> Share:
    """How much each worker takes: of what is left open, as much as the cluster has.

    Without GPUs and without a number of workers, there is one worker of one thread per core: the most images
    per minute. A worker takes one GPU where there are any, and its share of the cores beside it.

    Raises:
        UsageError: no node is large enough for one worker.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    all_cores = sum(int(node.get("CPU", 0)) for node in nodes)
    largest = max((int(node.get("CPU", 0)) for node in nodes), default=0)
    gpus = 1.0 if num_gpus is None and any(node.get("GPU") for node in nodes) else num_gpus or 0.0
    if threads is None:
        sharing = workers or (sum(_room(node, 1, gpus) for node in nodes) if gpus else all_cores)
        threads = min(max(1, all_cores // max(1, sharing)), max(1, largest))
    room = sum(_room(node, threads, gpus) for node in nodes)
    if room == 0:
        wanted = f"{threads} cores" + (f" and {gpus:g} GPUs" if gpus else "")
        raise UsageError(
            f"no node of the Ray cluster has {wanted} for one worker; use smaller --threads or --num-gpus"
        )
    return Share(workers or room, threads, gpus)


def _room(node: dict[str, float], threads: int, gpus: float) -> int:
    """Workers that fit onto a node."""
    by_cores = int(node.get("CPU", 0)) // threads
    if not gpus:
        return by_cores
    # A GPU is shared by whole fractions, and a worker of several takes whole ones.
    devices = int(node.get("GPU", 0))
    by_gpus = devices * math.floor(1 / gpus + 1e-9) if gpus <= 1 else devices // math.ceil(gpus)
    return min(by_cores, by_gpus)


def _answers(host: str, port: int) -> bool:
    """Whether a Ray head node speaks there. One that refuses us is left to :func:`connected` to explain."""
    try:
        socket.create_connection((host, port), timeout=_PATIENCE).close()
        asking = [sys.executable, "-P", "-m", "ray.scripts.scripts", "status", "--address", f"{host}:{port}"]
        subprocess.run(asking, timeout=_PATIENCE, capture_output=True, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return True


def _why_not(address: str, error: BaseException) -> str:
    if isinstance(error, ConnectionError) and address == AUTO:
        return "no Ray runs on this machine; start it with `ray start --head`, or use --ray local"
    # Ray takes its token along to a cluster that it finds by itself, to a named one only if told so.
    asks = isinstance(error, ConnectionError) and address != LOCAL and "RAY_AUTH_MODE" not in os.environ
    hint = "; if the cluster asks for a token, set RAY_AUTH_MODE=token" if asks else ""
    return f"{one_line(error)}{hint}"
