"""``lof repack``: existing JPEGs in fewer bytes, the same picture bit by bit."""

from __future__ import annotations

import json as json_format
import os
from typing import Annotated

import typer

from lof.cli import _options as options
from lof.cli import app
from lof.cli._streams import read_stream, write_new
from lof.errors import LofError, OutputError
from lof.files.inputs import find, output_path
from lof.files.storage import parse
from lof.report.figures import count, percent, plural, printable

_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
_HELP = (
    "Pack existing JPEGs into fewer bytes. Pixels, coefficients and metadata stay the same, which is checked for each "
    "file.\n\nFiles keep their names below OUT. What cannot be packed smaller is written as it is. One file that "
    "cannot be packed does not stop the others: it is named at the end, and not written."
)


@app.command("repack", help=_HELP)
def repack(
    inputs: Annotated[
        list[str],
        typer.Argument(help="JPEGs, folders or quoted globs.", metavar="INPUTS", show_default=False),
    ],
    *,
    out: Annotated[str, typer.Option("-o", "--out", help="Folder or URL for the new files.")] = "lof-out",
    force: Annotated[bool, options.flag("--force", "Overwrite other files in OUT.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """One file after the other; the help stands in ``_HELP``."""
    from lof import api

    place = parse(out)
    sources = find(inputs, _SUFFIXES, exclude=place).sources
    failures: list[str] = []
    before = after = 0
    for source in sources:
        target = output_path(source, place, "")
        record: dict[str, str | int | None] = {"file": str(source.path), "output": str(target), "error": None}
        try:
            data = read_stream(source.path)
            packed = api.repack(data, name=str(source.path))
            if os.path.realpath(str(source.path)) == os.path.realpath(str(target)):
                raise OutputError(f"{target}: is the source itself; choose another place with -o")
            write_new(target, packed, force=force)
            before, after = before + len(data), after + len(packed)
            record |= {"bytes_before": len(data), "bytes": len(packed)}
            if not (json or quiet):
                change = percent(len(packed) / len(data) - 1)
                typer.echo(printable(f"{source.path} → {target}: {change}, {count(len(packed))} bytes"))
        except LofError as error:
            failures.append(str(error))
            record |= {"output": None, "error": str(error)}
        if json:
            print(json_format.dumps(record), flush=True)
    if len(sources) > 1 and before and not (json or quiet):
        typer.echo(f"{plural(len(sources) - len(failures), 'file')}: {percent(after / before - 1)}")
    for failure in failures:
        typer.echo(printable(f"failed: {failure}"), err=True)
    if failures:
        raise typer.Exit(1)
