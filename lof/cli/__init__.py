"""The command line: parsing and printing only. One module per command; each adds itself to ``app``."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

import lof
from lof.errors import LofError

app = typer.Typer(
    name="lof",
    help="Smaller and better files from learned image codecs. The decoder stays as it is.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lof {lof.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line: exit code 0, 1 (something failed), 2 (wrong usage), 130 (interrupted)."""
    from lof.cli import codecs, decode, inspect, optimize, profiles, samples, train, verify  # noqa: F401

    error = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        app()
    except LofError as problem:
        error.print(f"[bold red]lof:[/] {escape(' '.join(str(problem).split()))}")
        sys.exit(problem.exit_code)
    except KeyboardInterrupt:
        error.print("[yellow]Stopped.[/] What is finished is kept; the same command continues.")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output (head, less) has left: not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
