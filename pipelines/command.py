"""How every command of this package starts and ends, and what many of them can be told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lof.errors import LofError, UsageError
from lof.profiles import Profile, load_profile

Folder = Annotated[str, typer.Argument(help="Folder of pictures.")]
Results = Annotated[Path, typer.Option("-o", "--out", help="Folder of results; a second call continues it.")]
CodecName = Annotated[str, typer.Option(help="See `lof codecs`.")]
ProfileName = Annotated[str, typer.Option(help="Name or TOML file.")]
Count = Annotated[int | None, typer.Option(min=1, help="Pictures, evenly over the folder; all if left out.")]
Crop = Annotated[
    int | None, typer.Option(min=16, help="Side of centre crops, in pixels; else whole pictures.")
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
DeviceName = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="Of the search: auto, bf16 or fp32.")]


def run(command: Callable[..., Any]) -> None:
    """Run a function, or a Typer application, with the arguments of the command line.

    Exit code 0, or that of the error, whose one line goes to stderr.
    """
    try:
        if isinstance(command, typer.Typer):
            command()
        else:
            app = typer.Typer(add_completion=False, rich_markup_mode=None)
            app.command(help=_about(command))(command)
            app()
    except LofError as error:
        print(f"lof: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)


def _about(command: Callable[..., Any]) -> str:
    """What the module of a command does: the first paragraph of its docstring."""
    paragraphs = (sys.modules[command.__module__].__doc__ or "").split("\n\n")
    return " ".join(paragraphs[0].split())


def qualities_of(text: str) -> list[float]:
    """Rate points from ``2,4,6``, sorted.

    Raises:
        UsageError: something between the commas is no number.
    """
    try:
        return sorted({float(quality) for quality in text.split(",")})
    except ValueError:
        raise UsageError(f"--qualities {text}: give numbers by commas, as 2,4,6") from None


def profiles_of(text: str) -> list[Profile]:
    """Profiles from ``fast,mine.toml``; none from an empty text."""
    return [load_profile(name.strip()) for name in text.split(",") if name.strip()]


def device_name(device: torch.device) -> str:
    """What the device is called: ``cpu``, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def bar() -> Progress:
    """The progress of many measurements, on stderr."""
    return Progress(
        BarColumn(24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
    )
