"""``lof verify``: is every stream whole, and does it decode?"""

from __future__ import annotations

import json as json_format
import logging
from pathlib import Path
from typing import Literal

import typer

from lof.cli import _options as options
from lof.cli import app
from lof.cli._streams import Inputs, find_streams, read_stream
from lof.containers import MAX_PIXELS, container, unpack
from lof.errors import LofError, LowMemoryError, StreamError, one_line
from lof.files.storage import Location
from lof.report.figures import printable

Verdict = Literal["ok", "damaged", "unchecked"]

_HELP = (
    "Decode streams and say of each whether it is whole. Nothing is written.\n\n"
    "The exit code is 1 if a stream is damaged. It is 3 if none is, but some cannot be checked here, because weights "
    "are missing or memory is short."
)


@app.command("verify", help=_HELP)
def verify(
    inputs: Inputs,
    *,
    weights: options.Weights = None,
    download: options.Download = False,
    max_pixels: options.MaxPixels = MAX_PIXELS,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """One line per stream; the help stands in ``_HELP``."""
    verdicts: list[Verdict] = []
    for path in (source.path for source in find_streams(inputs)):
        verdict, line = _check(path, weights, download, max_pixels)
        verdicts.append(verdict)
        if json:
            print(json_format.dumps({"file": str(path), "verdict": verdict, "detail": line}), flush=True)
        elif not quiet or verdict != "ok":
            typer.echo(printable(f"{verdict:10} {line}"))
    good, bad, unknown = (verdicts.count(verdict) for verdict in ("ok", "damaged", "unchecked"))
    if good < len(verdicts):
        typer.echo(f"{good} ok, {bad} damaged, {unknown} unchecked", err=True)
        raise typer.Exit(1 if bad else LowMemoryError.exit_code)


def _check(path: Location, weights: Path | None, download: bool, max_pixels: int) -> tuple[Verdict, str]:
    """The verdict, and the line about it: the stream's name and what there is to say."""
    from lof.api import decode_stream
    from lof.encoding import codec_of

    name = str(path)
    verdict: Verdict = "damaged"  # at each step, what its failure would mean
    try:
        try:
            data = read_stream(path)
        except StreamError as error:
            verdict = "unchecked" if isinstance(error.__cause__, OSError) else "damaged"
            raise
        parsed = unpack(data, name, max_pixels)
        if parsed.note:
            return "damaged", parsed.note
        verdict = "unchecked"
        codec_of(parsed, name=name, weights=weights, download=download)
        verdict = "damaged"
        decode_stream(parsed, name=name, weights=weights, download=download)
    except LowMemoryError as error:  # says nothing about the stream
        return "unchecked", str(error)
    except LofError as error:
        return verdict, str(error)
    except MemoryError:
        return "unchecked", f"{name}: not enough memory; close other programs"
    except Exception as error:  # whatever a library raises ends no other stream
        logging.getLogger("lof").debug("the error arose here", exc_info=True)
        return verdict, f"{name}: cannot be decoded ({one_line(error)}); report this"
    whole = container(parsed.container).checksum
    return "ok", name if whole else f"{name}: it decodes; this format has no checksum"
