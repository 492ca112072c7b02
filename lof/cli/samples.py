"""``lof samples``: a few photographs to start with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from lof.cli import _options as options
from lof.cli import app


@app.command("samples")
def samples(
    folder: Annotated[Path, options.folder("DIR", "Where to put them.")],
) -> None:
    """Write four sample photographs and their credits; nothing is downloaded."""
    from lof.pictures.samples import CREDITS_NAME, SAMPLES, write_samples
    from lof.report.figures import printable

    for path, sample in zip(write_samples(folder), SAMPLES, strict=True):
        typer.echo(printable(f"{path}  {sample.credit}"))
    typer.echo(printable(f"{folder / CREDITS_NAME}"))
    typer.echo(f"\nNow: lof optimize {printable(shlex.quote(str(folder)))}")
