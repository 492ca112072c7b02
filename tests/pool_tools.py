"""Work for the tests of pools: it squares numbers, and dies where it is told to."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lof.errors import UsageError
from lof.pools import Event, Finished, Pool, Work


@dataclass(frozen=True)
class Squares(Work[Any, str, Any]):
    """Squares numbers; ``die`` kills the worker, a tuple is a batch, a path in ``folder`` counts the opened."""

    folder: Path

    def open(self) -> str:
        (self.folder / f"opened-{os.getpid()}").touch(exist_ok=False)
        return "tool"

    def do(self, tool: str, item: Any, report: Callable[[Any], None]) -> Any:
        assert tool == "tool"
        report(f"about {item}")
        for part in item if isinstance(item, tuple) else [item]:
            if part == "die" or (part == "die once" and not (self.folder / "died").exists()):
                (self.folder / ("died" if part == "die once" else "dead")).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return item * item if isinstance(item, int) else "survived"

    def lost(self, item: Any, reason: str) -> Any:
        return reason

    def clean_up(self, item: Any) -> None:
        (self.folder / "cleaned").touch()

    def split(self, item: Any) -> list[Any]:
        return list(item) if isinstance(item, tuple) else [item]


@dataclass(frozen=True)
class Endless(Squares):
    """Says its process, and never ends; cleaning up keeps note of whether the process of the item is still there."""

    def do(self, tool: str, item: Any, report: Callable[[Any], None]) -> Any:
        (self.folder / f"doing-{item}").write_text(str(os.getpid()))
        report(os.getpid())
        threading.Event().wait()

    def clean_up(self, item: Any) -> None:
        doing = self.folder / f"doing-{item}"
        alive = psutil.pid_exists(int(doing.read_text()))
        doing.rename(doing.with_name(f"{'alive' if alive else 'gone'}-{item}"))


@dataclass(frozen=True)
class Variables(Squares):
    """Reads variables of the environment."""

    def do(self, tool: str, item: Any, report: Callable[[Any], None]) -> Any:
        return os.environ.get(item)


@dataclass(frozen=True)
class Refuses(Squares):
    def open(self) -> str:
        raise UsageError("no such tool")


@dataclass(frozen=True)
class DiesAtOnce(Squares):
    def open(self) -> str:
        os._exit(7)


@dataclass(frozen=True)
class DiesFirst(Squares):
    def open(self) -> str:
        try:
            (self.folder / "started").touch(exist_ok=False)
        except FileExistsError:
            return super().open()
        os._exit(7)


def run(pool: Pool, work: Squares, items: Any) -> list[Event]:
    events: list[Event] = []
    pool.run(items, work, events.append)
    return events


def outcomes(events: list[Event]) -> dict[Any, Any]:
    return {event.item: event.outcome for event in events if isinstance(event, Finished)}
