"""One item after the other in this process."""

from __future__ import annotations

import os
from collections.abc import Iterable

from lof.pools.base import Began, Ended, Item, OnEvent, Outcome_co, Told, Tool, Work


class Here:
    """A :class:`lof.pools.Pool` without workers. Threads are those of this process."""

    def run(self, items: Iterable[Item], work: Work[Item, Tool, Outcome_co], on_event: OnEvent) -> None:
        """Do the items in their order; nothing is opened where there are none."""
        tool: Tool | None = None
        worker = f"process {os.getpid()}"
        for item in items:
            if tool is None:
                tool = work.open()
            on_event(Began(item, worker, attempt=1))
            outcome = work.do(tool, item, lambda message, i=item: on_event(Told(i, message)))  # type: ignore[misc]
            on_event(Ended(item, outcome, attempt=1))
