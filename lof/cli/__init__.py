"""The command line: parsing and printing only. One module per command; each adds itself to ``app``."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.markup import escape

import lof
from lof.cli._consoles import make_console
from lof.errors import LofError, OutputError, UsageError, one_line
from lof.report.figures import printable

INTERRUPTED = 130
_CANNOT_PRINT = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
"""Errors of writing to a standard stream. Other errors that name no file have other numbers."""
LOG = logging.getLogger("lof.cli")
"""What ``--log-file`` keeps."""
LOG.addHandler(logging.NullHandler())
LOG.propagate = False

app = typer.Typer(
    name="lof",
    help="Smaller and better files from learned image codecs. The decoder stays as it is.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lof {lof.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, metavar="", help="Show the version and exit."
        ),
    ] = False,
    log_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Add a line with the time to FILE for each image that has ended, and for each error.",
            show_default=False,
        ),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            metavar="",
            help="Print to stderr where in the code an error arose. Errors of single images need --jobs 1.",
        ),
    ] = False,
) -> None:
    if verbose:
        from rich.logging import RichHandler

        details = logging.getLogger("lof")
        details.addHandler(RichHandler(console=make_console(stderr=True), show_level=False, show_path=False))
        details.setLevel(logging.DEBUG)
    if log_file is not None:
        try:
            lines = _LogFile(log_file, encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"{log_file}: cannot be written ({error.strerror}); name another file"
            ) from error
        lines.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        LOG.handlers = [lines]
        LOG.setLevel(logging.INFO)


def _warning_line(message: Warning | str, *_: object, **__: object) -> str:
    return f"lof: {' '.join(str(message).split())}\n"


class _LogFile(logging.FileHandler):
    """Says in one line, once, where a line could not be added; the command goes on."""

    def handleError(self, record: logging.LogRecord) -> None:
        why = getattr(sys.exception(), "strerror", None) or sys.exception()
        warnings.warn(
            f"{self.baseFilename}: cannot be written ({why}); lines are missing there", stacklevel=1
        )


def _check_surroundings() -> None:
    if sys.getfilesystemencoding() != "utf-8":
        raise UsageError(
            f"file names are read as {sys.getfilesystemencoding()} here; set a UTF-8 locale, or PYTHONUTF8=1"
        )
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError(
            f"the working folder cannot be used ({error.strerror}); change to another"
        ) from error


def _run() -> None:
    """The command; a standard stream that cannot be written, such as on a full disk, is an error like others."""
    try:
        try:
            app(prog_name="lof")  # which python -m lof is too
        finally:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                _flush(stream)
    except BrokenPipeError:  # nobody reads any more; Typer ends so too
        sys.exit(1)
    except OSError as error:
        if error.filename is not None:
            raise OutputError(
                f"{error.filename}: cannot be used ({error.strerror}); check its name and permissions"
            ) from error
        if error.errno in _CANNOT_PRINT:
            raise OutputError(
                f"standard output: cannot be written ({error.strerror}); make room there, or send it elsewhere"
            ) from error
        raise OutputError(
            f"{one_line(error)}; see to that and run the same command again, what is done is kept"
        ) from error


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or Python tries again at its end
        raise


def main() -> None:
    """Run the command line.

    Exit codes: 0, 1 (something failed), 2 (wrong usage), 3 (too little memory, or a stream that could not be checked),
    130 (interrupted).
    """
    from lof.cli import (  # noqa: F401
        archive,
        archive_rebuild,
        codecs,
        compare,
        decode,
        inspect,
        optimize,
        profiles,
        repack,
        samples,
        study,
        train,
        tune,
        verify,
    )

    warnings.formatwarning = (
        _warning_line  # where it arose in the code says nothing to whoever types commands
    )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows ASCII only shows ? for the rest
    error = make_console(stderr=True, soft_wrap=True)
    try:
        _check_surroundings()
        _run()
    except LofError as problem:
        logging.getLogger("lof").debug("the error arose here", exc_info=True)
        line = printable(" ".join(str(problem).split()))
        error.print(f"[bold red]lof:[/] {escape(line)}")
        LOG.error("lof: %s", line)
        sys.exit(problem.exit_code)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # Typer has turned Ctrl-C into this already
            error.print("[yellow]Stopped.[/] What is finished is kept; the same command continues.")
        raise
