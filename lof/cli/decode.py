"""``lof decode``: streams back to pictures, as PNG."""

from __future__ import annotations

import json as json_format
import logging
from collections.abc import Sequence
from typing import Annotated

import typer

from lof.cli import _options as options
from lof.cli import app
from lof.cli._streams import Inputs, find_streams, read_stream, write_new
from lof.containers import MAX_PIXELS, SUFFIXES, unpack
from lof.errors import ImageError, LofError, UsageError, one_line
from lof.files.inputs import IMAGE_SUFFIXES, Source
from lof.files.storage import Location, is_remote, parse
from lof.report.figures import plural, printable

_HELP = (
    "Decode streams to PNG, with their ICC profile and EXIF.\n\n"
    "`photo.jpg.lof` becomes `photo.jpg.png`, beside it or in the same place below OUT. One bad stream does not "
    "stop the others: it is named at the end."
)


@app.command("decode", help=_HELP)
def decode(
    inputs: Inputs,
    *,
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder or URL for the pictures, or, for one stream, a file that ends in .png.",
            show_default="beside each stream",
        ),
    ] = None,
    weights: options.Weights = None,
    download: options.Download = False,
    max_pixels: options.MaxPixels = MAX_PIXELS,
    force: Annotated[bool, options.flag("--force", "Overwrite pictures that differ.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Decode one after another; the help stands in ``_HELP``."""
    from lof.api import decode_shown
    from lof.pictures.writing import png_bytes

    sources = find_streams(inputs)
    targets = _targets(sources, None if out is None else parse(out))
    failures: list[str] = []
    for path, target in zip((s.path for s in sources), targets, strict=True):
        record = {"file": str(path), "output": str(target), "error": None}
        notes: Sequence[str] = ()
        try:
            parsed = unpack(read_stream(path), str(path), max_pixels)
            picture = decode_shown(parsed, name=str(path), weights=weights, download=download)
            notes = picture.notes
            try:
                data = png_bytes(picture)
            except ImageError as error:
                raise ImageError(f"{path}: {error}") from error
            written = write_new(target, data, force=force)
        except Exception as error:  # whatever a library raises ends no other stream
            logging.getLogger("lof").debug("the error arose here", exc_info=True)
            what = f"{path}: cannot be decoded ({one_line(error)}); leave it out or report this"
            failures.append(str(error) if isinstance(error, LofError) else what)
            record |= {"output": None, "error": failures[-1]}
        for note in notes:
            typer.echo(printable(f"warning: {note}"), err=True)
        if json:
            print(json_format.dumps(record), flush=True)
        elif not (quiet or record["error"]):
            typer.echo(printable(f"{path} → {target}{'' if written else ' (there already)'}"))
    for failure in failures:
        typer.echo(printable(f"failed: {failure}"), err=True)
    if failures:
        typer.echo(f"{len(failures)} of {plural(len(sources), 'stream')} not decoded", err=True)
        raise typer.Exit(1)


def _targets(sources: Sequence[Source], out: Location | None) -> list[Location]:
    if out is not None and out.suffix.lower() == ".png" and (is_remote(out) or not out.is_dir()):
        if len(sources) > 1:
            raise UsageError(f"-o {out}: one file for {len(sources)} streams; name a folder")
        return [out]
    targets = [_target(source, out) for source in sources]
    first: dict[Location, Location] = {}
    for source, target in zip(sources, targets, strict=True):
        other = first.setdefault(target, source.path)
        if other != source.path:
            raise UsageError(
                f"{other} and {source.path}: both would become {target}; decode one after the other"
            )
    return targets


def _target(source: Source, out: Location | None) -> Location:
    place = source.path if out is None else out.joinpath(*source.relative.parts)
    own = place.suffix.lower() in set(SUFFIXES) - IMAGE_SUFFIXES
    name = place.stem if own else place.name
    return place.with_name(f"{name}.png")
