"""The items that wait: pulled lazily, and given back by workers that died."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from lof.pools.base import ATTEMPTS, Ended, Work


@dataclass(frozen=True)
class Task:
    """An item and which attempt at it this is."""

    item: Any
    attempt: int = 1


class Queue:
    """Hands out tasks, the retried ones first. True while there may be more."""

    def __init__(self, items: Iterable[Any], work: Work[Any, Any, Any]) -> None:
        self.work = work
        self._items = iter(items)
        self._ready: deque[Task] = deque()

    def __bool__(self) -> bool:
        return self.count_up_to(1) > 0

    def count_up_to(self, most: int) -> int:
        """How many tasks wait; no more than ``most`` items are pulled to find out."""
        missing = max(0, most - len(self._ready))
        self._ready.extend(Task(item) for item in islice(self._items, missing))
        return min(most, len(self._ready))

    def take(self) -> Task | None:
        """The next task, or ``None`` where nothing waits."""
        return self._ready.popleft() if self else None

    def give_back(self, task: Task, reason: str) -> Ended | None:
        """A worker died with a task: it waits again, in parts if it has them, or has ended."""
        parts = self.work.split(task.item)
        if len(parts) > 1:
            self._ready.extendleft(Task(part, task.attempt + 1) for part in reversed(parts))
        elif task.attempt < ATTEMPTS:
            self._ready.appendleft(Task(task.item, task.attempt + 1))
        else:
            outcome = self.work.lost(task.item, f"{reason}, {task.attempt} times")
            return Ended(task.item, outcome, task.attempt)
        return None
