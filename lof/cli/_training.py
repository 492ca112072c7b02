"""What a training run shows: a live view on a terminal, plain lines elsewhere. All of it goes to stderr."""

from __future__ import annotations

from contextlib import AbstractContextManager

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lof.training.journal import Record
from lof.training.loop import Doing, Event, Finished, Logged, Started
from lof.training.recipe import Recipe

_COLUMNS = (
    ("loss", "loss", "{:.4f}"),
    ("bpp", "bpp", "{:.4f}"),
    ("psnr", "PSNR", "{:.2f} dB"),
    ("learning_rate", "rate", "{:.1e}"),
    ("steps_per_second", "steps/s", "{:.2f}"),
)
_MOST_NAMES = 10


class TrainingDisplay(AbstractContextManager["TrainingDisplay"]):
    """Takes the events of a run."""

    def __init__(self, recipe: Recipe, *, quiet: bool = False) -> None:
        self.recipe, self.quiet = recipe, quiet
        self.console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
        self.latest: Record | None = None
        self.measured: dict[float, Record] = {}
        live = self.console.is_terminal and not quiet
        self.live = Live(console=self.console, refresh_per_second=2, transient=True) if live else None

    def __enter__(self) -> TrainingDisplay:
        self.console.print(
            f"recipe {self.recipe.name}: {self.recipe.codec}, {sum(r.steps for r in self.recipe.rung)} steps",
            markup=False,
        )
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case Doing(text):
                self.console.print(f"{text} …", markup=False)
            case Started():
                self._started(event)
            case Logged(record):
                self._logged(record)
            case Finished(path):
                self.console.print(f"trained: {escape(str(path))}")

    def _started(self, event: Started) -> None:
        self.console.print(
            f"{event.pictures} pictures, {event.pixels / 1e6:.0f} megapixels on {event.device}; "
            f"{len(event.skipped)} skipped"
        )
        for skipped in event.skipped[:_MOST_NAMES]:
            self.console.print(f"  skipped {escape(skipped.reason)}")
        if len(event.skipped) > _MOST_NAMES:
            self.console.print(f"  and {len(event.skipped) - _MOST_NAMES} more")
        if event.resumed:
            rung, step = event.resumed
            self.console.print(f"continues {self.recipe.title(rung)} at step {step}")
        elif not self.live:
            self.console.print(f"training; a line every {self.recipe.log_every} steps")

    def _logged(self, record: Record) -> None:
        if record["kind"] == "validation":
            self.measured[record["quality"]] = record
        else:
            self.latest = record
        if self.live:
            self.live.update(self._view())
        else:
            self.console.print(self._line(record))

    def _line(self, record: Record) -> str:
        values = [
            f"{label} {form.format(record[key])}"
            for key, label, form in _COLUMNS
            if record.get(key) is not None
        ]
        quality = record["quality"]
        title = self.recipe.title(record["rung"]) if quality is None else f"quality {quality:.10g}"
        return f"{title} {record['kind']} step {record['step']}: {', '.join(values)}"

    def _view(self) -> Group:
        table = Table(box=None, pad_edge=False)
        table.add_column("")
        for _, label, _ in _COLUMNS:
            table.add_column(label, justify="right")
        rows = {"training": self.latest} if self.latest else {}
        rows |= {f"real files, quality {quality:.10g}": record for quality, record in self.measured.items()}
        for name, record in rows.items():
            cells = ("" if record.get(key) is None else form.format(record[key]) for key, _, form in _COLUMNS)
            table.add_row(name, *cells)
        if not rows:
            return Group(table)
        record = next(iter(rows.values()))
        rung = self.recipe.rung[record["rung"]]
        total = sum(rung.steps for rung in self.recipe.rung)
        return Group(
            Text(f"{self.recipe.title(record['rung'])}: step {record['step']} of {rung.steps}"),
            ProgressBar(total=total, completed=record["total_step"], width=60),
            table,
        )
