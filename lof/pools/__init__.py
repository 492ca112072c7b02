"""Any picklable work over any number of items: in this process, in several, or on a Ray cluster.

>>> from lof.pools import make_pool
>>> make_pool(jobs=4).run(items, work, on_event)  # doctest: +SKIP
"""

from __future__ import annotations

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
from lof.pools.choice import make_pool
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
