"""``lof compare``: a picture and what encoders made of it, in figures and on a page."""

from __future__ import annotations

import importlib.util
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from lof.cli import _options as options
from lof.cli import app
from lof.cli._consoles import make_console
from lof.cli._streams import read_stream
from lof.containers import DEFAULT_CONTAINER, SUFFIXES, container, unpack
from lof.containers.jpeg_side import has_side
from lof.errors import LofError, UsageError
from lof.files.inputs import IMAGE_SUFFIXES
from lof.files.storage import Location, parse
from lof.report.figures import printable

if TYPE_CHECKING:
    from lof.pictures.picture import Picture
    from lof.report.comparison import Compared

MEASURED_UP_TO = 4_000_000
"""Pixels of the pictures for which SSIMULACRA2 is measured."""

_HELP = (
    "Compare files with the original that they were made from: `lof compare photo.png photo.jxl photo.avif`.\n\n"
    "FILES are pictures in any format that Pillow reads (JPEG XL and HEIC with lof\\[jxl] and lof\\[heic]) and "
    "files of lof. A table shows sizes, PSNR, MS-SSIM and SSIMULACRA2; a page that needs no network shows the pictures "
    "under a slider or in turn, and maps of their errors.\n\n"
    "What is compared are the 8-bit RGB values that the files decode to, upright; ICC profiles are not applied. "
    "Pictures that are transparent, deeper than 8 bits or of another size are refused. A file that is refused does not "
    "stop the others; the exit code is then 1."
)


@app.command("compare", help=_HELP)
def compare(
    original: Annotated[str, typer.Argument(help="The original picture.", metavar="ORIGINAL")],
    inputs: Annotated[list[str], typer.Argument(help="What was made from it.", metavar="FILES")],
    *,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help="The page. One that is there is replaced.",
            metavar="PAGE",
            parser=options.path,
        ),
    ] = Path("compare.html"),
    no_page: Annotated[bool, options.flag("--no-page", "Write no page.")] = False,
    weights: options.Weights = None,
    download: options.Download = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Read, measure, show; the help stands in ``_HELP``."""
    from lof.cli.live import Display
    from lof.files.atomic import write_atomically
    from lof.metrics import ssimulacra2
    from lof.report import comparison

    names = [original, *inputs]
    if not no_page:
        _refuse_to_overwrite(out, names)
    display = Display(json=json, quiet=quiet)
    with_ssimulacra2 = importlib.util.find_spec("ssimulacra2") is not None
    first = comparison.original_of(original, *_read(original, weights, download))
    found: list[Compared] = []
    for name in inputs:
        try:
            status = display.console.status(f"measuring {escape(printable(name))}…")
            with status if display.moving else nullcontext():
                one = comparison.compare(first, name, *_read(name, weights, download))
                if with_ssimulacra2 and one.picture.pixels[..., 0].size <= MEASURED_UP_TO:
                    score = ssimulacra2(first.picture.pixels, one.picture.pixels)
                    one = replace(one, measures=one.measures | {"ssimulacra2": score})
        except LofError as error:
            display.ended(name, {"file": name, "original": original, "error": str(error)}, error=str(error))
            continue
        found.append(replace(one, picture=_on_disk(one.picture)))
        display.ended(name, one.record() | {"original": original, "original_size": first.size})
    if found and not no_page:
        write_atomically(out, comparison.comparison_page(first, found).encode())
    if found and not (json or quiet):
        _show(first, found, None if no_page else out, with_ssimulacra2)
    raise typer.Exit(int(len(found) < len(inputs)))


def _show(first: Compared, found: list[Compared], page: Path | None, with_ssimulacra2: bool) -> None:

    from lof.report.comparison import comparison_table

    console = make_console()
    console.print(comparison_table(first, found))
    lines = [f"{one.name}: {note}" for one in (first, *found) for note in one.notes]
    if not with_ssimulacra2:
        lines.append("SSIMULACRA2 is not measured; install it with: pip install 'lof[ssimulacra2]'")
    elif first.picture.pixels[..., 0].size > MEASURED_UP_TO:
        lines.append(f"SSIMULACRA2 is not measured above {MEASURED_UP_TO / 1e6:.0f} megapixels")
    lines += [f"page: {page}"] if page else []
    for line in ["", *lines]:
        console.print(escape(printable(line)), soft_wrap=True)


def _read(name: str, weights: Path | None, download: bool) -> tuple[int, Picture]:
    """Bytes of a file, and what it decodes to."""
    path = parse(name)
    data = read_stream(path, any_kind=True)
    if _is_ours(path, data):
        from lof.api import decode_shown

        picture = decode_shown(unpack(data, name), name=name, weights=weights, download=download)
        notes = tuple(note.removeprefix(f"{name}: ") for note in picture.notes)
        if has_side(data) and not notes:
            notes = ("as lof shows it; other programs show the plain JPEG",)
        return len(data), replace(picture, notes=notes)
    from lof.pictures.reading import read_picture

    return len(data), read_picture(path, data or None, formats=None)


def _is_ours(path: Location, data: bytes) -> bool:
    """Whether only lof can decode the file, or shows more of it than others do."""
    alone = path.suffix.lower() in set(SUFFIXES) - IMAGE_SUFFIXES
    return alone or container(DEFAULT_CONTAINER).recognises(data[:4]) or has_side(data)


def _on_disk(picture: Picture) -> Picture:
    """The same picture in a temporary file, so that many large ones do not fill the memory; where there is room."""
    import numpy as np

    try:
        with TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, picture.pixels.size)
            pixels = np.memmap(file, np.uint8, "r+", shape=picture.pixels.shape)
    except OSError:
        return picture
    pixels[:] = picture.pixels
    return replace(picture, pixels=pixels)


def _refuse_to_overwrite(out: Path, names: list[str]) -> None:
    for name in names:
        if os.path.exists(name) and out.exists() and os.path.samefile(name, out):
            raise UsageError(f"{out}: is one of the pictures; choose another name with -o")
