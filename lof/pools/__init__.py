"""Any picklable work over any number of items: in this process, in several, or on a Ray cluster.

>>> from lof.pools import make_pool
>>> make_pool(jobs=4).run(items, work, on_event)  # doctest: +SKIP
"""

from __future__ import annotations

from lof.pools.base import ATTEMPTS, Began, Ended, Event, OnEvent, Pool, Staff, Told, Work
from lof.pools.choice import make_pool
from lof.pools.here import Here
from lof.pools.processes import Processes, cores, threads_per_worker

__all__ = [
    "ATTEMPTS",
    "Began",
    "Ended",
    "Event",
    "Here",
    "OnEvent",
    "Pool",
    "Processes",
    "Staff",
    "Told",
    "Work",
    "cores",
    "make_pool",
    "threads_per_worker",
]
