"""What a training run shows: a line for each line of its log, on a terminal a bar below. All of it goes to stderr."""

from __future__ import annotations

from contextlib import AbstractContextManager

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lof.cli._consoles import make_console
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
        self.console = make_console(stderr=True, soft_wrap=True, quiet=quiet)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
            speed_estimate_period=600,  # lines of the log are minutes apart
        )
        self.steps = self.progress.add_task("", total=sum(rung.steps for rung in recipe.rung))

    def __enter__(self) -> TrainingDisplay:
        steps = sum(rung.steps for rung in self.recipe.rung)
        self.console.print(f"recipe {self.recipe.name}: {self.recipe.codec}, {steps} steps", markup=False)
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case Doing(text):
                self.console.print(f"{text} …", markup=False)
            case Started():
                self._started(event)
            case Logged(record):
                self.progress.update(
                    self.steps,
                    completed=record["total_step"],
                    description=self.recipe.title(record["rung"]),
                )
                self.console.print(self._line(record))
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
        else:
            self.console.print(f"training; a line every {self.recipe.log_every} steps")

    def _line(self, record: Record) -> str:
        values = [
            f"{label} {form.format(record[key])}"
            for key, label, form in _COLUMNS
            if record.get(key) is not None
        ]
        quality = record["quality"]
        title = self.recipe.title(record["rung"]) if quality is None else f"quality {quality:.10g}"
        return f"{title} {record['kind']} step {record['step']}: {', '.join(values)}"
