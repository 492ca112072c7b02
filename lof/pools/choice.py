"""The pool that the options of a command ask for."""

from __future__ import annotations

from lof.pools.base import Pool
from lof.pools.here import Here
from lof.pools.processes import Processes


def make_pool(jobs: int = 1, threads: int | None = None) -> Pool:
    """This process for one job, several processes for more.

    Args:
        jobs: workers.
        threads: of PyTorch in each worker; ``None`` shares out the cores, see
            :func:`lof.pools.threads_per_worker`.
    """
    return Here() if jobs == 1 and threads is None else Processes(jobs, threads)
