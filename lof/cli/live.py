"""What every long command shows while it works: a line per item in work, and lines about the whole; on stderr."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Any, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lof.cli import LOG
from lof.cli._consoles import make_console
from lof.pools import Advanced, Started, Workers
from lof.report import figures
from lof.report.records import to_json

_NAME = 28
_WORKER, _WIDE = 30, 110  # columns of a worker's name, shown where there is room for it
_OTHER_LINES = 4  # of a terminal: the job's, the workers', one about hidden items, the cursor's


class Display(AbstractContextManager["Display"]):
    """Takes the events of a job, and shows them in the way that fits.

    On a terminal: a line for each item in work, what :meth:`overall` says, and what the workers do; they vanish at the
    end. Elsewhere a line for each item that has ended.

    Args:
        json: in place of all that, a line of JSON on stdout for each item that has ended.
        quiet: failures only.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.console = make_console(stderr=True, soft_wrap=True)
        self.json, self.quiet = json, quiet
        self.moving = self.console.is_terminal and not (json or quiet)
        # By item: its worker; and a search's Progress, what looks like one, or None before the first.
        self.active: dict[Any, tuple[str, Any]] = {}
        self.workers = Workers(0, 0, 0)
        self.started = time.monotonic()

    def __enter__(self) -> Self:
        if self.moving:
            self.live = Live(
                console=self.console, get_renderable=self.render, refresh_per_second=5, transient=True
            )
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.moving:
            self.live.stop()

    def __call__(self, event: Any) -> None:
        """Note what is in work; whoever knows that an item has ended calls :meth:`ended`."""
        match event:
            case Started(item, worker):
                self.active[item] = worker, None
            case Advanced(item, progress):
                self.active[item] = self.active.get(item, ("", None))[0], progress
            case Workers():
                self.workers = event

    def ended(self, item: Any, record: dict[str, Any], line: str = "", error: str = "") -> None:
        """The item has ended.

        Args:
            record: what JSON says of it.
            line: what a log file says of it.
            error: one line about what went wrong, which all see.
        """
        self.active.pop(item, None)
        if self.json:
            print(to_json(record), flush=True)
        elif line and not (self.quiet or self.moving):
            self.say(line)
        if line or error:
            LOG.info("%s", figures.printable(f"failed {error}" if error else line))
        if error:
            self.say(error, mark="[bold red]failed[/] ")

    def say(self, text: str, *, mark: str = "") -> None:
        """One line of plain text on stderr, after a mark in Rich's markup."""
        self.console.print(f"{mark}{escape(figures.printable(text))}")

    def name(self, item: Any) -> str:
        """What the item is called."""
        return str(item)

    def overall(self, elapsed: float) -> list[str]:
        """What there is to say about the whole job, ``elapsed`` seconds after its start."""
        return []

    def render(self) -> RenderableType:
        """The lines of this moment."""
        wide = self.console.width >= _WIDE
        grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
        grid.add_column(width=_NAME, no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True, min_width=8)
        grid.add_column(justify="right", no_wrap=True, width=8)
        if wide:
            grid.add_column(no_wrap=True, width=_WORKER, style="dim")
        active = list(self.active.items())
        shown = active[: max(1, self.console.height - _OTHER_LINES)]
        for item, (worker, progress) in shown:
            name = Text(figures.shorten(figures.printable(self.name(item)), _NAME))
            bar, steps, gain = ProgressBar(total=None, pulse=True), Text("starts", style="dim"), Text("")
            if progress is not None:
                bar = ProgressBar(total=progress.budget, completed=progress.evaluations)
                steps = Text(f"{progress.evaluations}/{progress.budget}")
                if getattr(progress, "windows", 1) > 1:
                    steps = Text(f"window {progress.window}/{progress.windows}")
                gain = Text(figures.percent(min(progress.gain)), style="green")
            grid.add_row(name, bar, steps, gain, *([Text(worker)] if wide else []))
        overall = " · ".join(self.overall(time.monotonic() - self.started))
        lines = [overall, self._workers(len(active) - len(shown))]
        return Group(grid, *(Text(line, no_wrap=True, overflow="ellipsis") for line in lines if line))

    def _workers(self, hidden: int) -> str:
        """What the workers do; nothing where this process does the work."""
        at_work, workers = len({worker for worker, _ in list(self.active.values())}), self.workers
        counts = {
            "at work": at_work,
            "idle": workers.ready - at_work,
            "starting": workers.starting,
            "died": workers.lost,
        }
        parts = [f"{count} {state}" for state, count in counts.items() if count > 0]
        more = f" · {hidden} more in work" if hidden else ""
        return f"workers: {', '.join(parts)}{more}" if workers != Workers(0, 0, 0) and parts else ""


def time_left(elapsed: float, worked: float, total: float) -> list[str]:
    """``about 3m12s left``, once that can be told; at the end files are written and read back, which has no share."""
    if worked <= 0 or elapsed <= 2:
        return []
    if worked >= total:
        return ["almost done"]
    return [f"about {figures.duration((total - worked) * elapsed / worked)} left"]
