"""Any picklable work over any number of items: in this process, in several, or on a Ray cluster.

>>> from lof.pools import make_pool
>>> make_pool(jobs=4).run(items, work, on_event)  # doctest: +SKIP
"""

from __future__ import annotations

from lof.errors import UsageError
from lof.pools.base import (
    ATTEMPTS,
    Advanced,
    Event,
    Finished,
    OnEvent,
    Pool,
    Started,
    ThisProcess,
    Work,
    Workers,
)
from lof.pools.processes import Processes, cores, threads_per_worker

__all__ = [
    "ATTEMPTS",
    "Advanced",
    "Event",
    "Finished",
    "OnEvent",
    "Pool",
    "Processes",
    "Started",
    "ThisProcess",
    "Work",
    "Workers",
    "cores",
    "make_pool",
    "threads_per_worker",
]


def make_pool(
    jobs: int | None = None,
    *,
    threads: int | None = None,
    ray: str | None = None,
    num_gpus: float | None = None,
) -> Pool:
    """This process for one job, several processes for more, a Ray cluster where one is named.

    Args:
        jobs: workers; ``None`` is 1, and on Ray as many as the cluster has room for.
        threads: of PyTorch in each worker; ``None`` shares out the cores, see
            :func:`lof.pools.threads_per_worker`.
        ray: ``local``, ``auto`` or ``HOST:PORT``, see :class:`lof.pools.ray.RayCluster`.
        num_gpus: of each worker of a Ray cluster, fractions too.

    Raises:
        UsageError: ``jobs`` below 1, or ``num_gpus`` without ``ray`` or below 0.
        MissingExtraError: Ray is not installed.
        WorkerError: no Ray answers at that address.
    """
    if num_gpus is not None and not (ray and 0 <= num_gpus < float("inf")):
        raise UsageError(f"--num-gpus {num_gpus:g}: must be 0 or more, and goes with --ray only")
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs}: must be 1 or more")
    if ray is not None:
        from lof.pools.ray import RayCluster

        return RayCluster(ray, jobs, num_gpus, threads)
    jobs = 1 if jobs is None else jobs
    return ThisProcess() if jobs == 1 and threads is None else Processes(jobs, threads)
