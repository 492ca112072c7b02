"""``lof inspect``: what is in a stream."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from lof.cli import _options as options
from lof.cli import app
from lof.cli._consoles import make_console
from lof.cli._streams import read_stream
from lof.containers import SUFFIXES, Stream, container, unpack
from lof.containers.digest import NO_WEIGHTS
from lof.errors import LofError
from lof.files.storage import parse
from lof.report.figures import count, printable

_HELP = (
    "Show what is in a stream: its codec, its size, and the bytes of every string and box.\n\n"
    "It also says how much another CPU may differ from this one and still read the stream. That needs the codec's "
    "weights. Without them it is left out, and the reason is given."
)


@app.command("inspect", help=_HELP)
def inspect(
    file: Annotated[str, typer.Argument(help=f"A stream ({', '.join(SUFFIXES)}).", show_default=False)],
    *,
    json: Annotated[
        bool, options.flag("--json", "Print one JSON object to stdout, and nothing else.")
    ] = False,
    weights: options.Weights = None,
    download: options.Download = False,
) -> None:
    """Read, describe, print; the help stands in ``_HELP``."""
    data = read_stream(parse(file))
    parsed = unpack(data, file)
    found = _describe(parsed, len(data)) | _ask_codec(parsed, file, weights, download)
    strings = [
        {"name": name, "bytes": len(string)}
        for name, string in zip(found.pop("names"), parsed.strings, strict=False)  # some may be left out
    ]
    found |= {"file": file, "strings": strings}
    if json:
        typer.echo(json_format.dumps(found))
    else:
        _print(found)


def _describe(parsed: Stream, size: int) -> dict[str, Any]:
    """What the file says by itself."""
    from lof.metrics import bpp

    payload = sum(map(len, parsed.strings)) + sum(map(len, parsed.boxes.values()))
    return {
        "format": parsed.container,
        "codec": parsed.codec,
        "quality": parsed.quality,
        "metric": parsed.metric,
        "fingerprint": parsed.fingerprint.hex() or None,
        "symbols_digest": parsed.digest.hex() or None,
        "height": parsed.height,
        "width": parsed.width,
        "bytes": size,
        "bpp": bpp(size, parsed.height, parsed.width),
        "overhead_bytes": size - payload,
        "boxes": {kind.decode("ascii"): len(content) for kind, content in parsed.boxes.items()},
    }


def _ask_codec(parsed: Stream, name: str, weights: Path | None, download: bool) -> dict[str, Any]:
    """What only the codec knows, or why it could not be asked."""
    from lof.encoding import codec_of

    try:
        codec = codec_of(parsed, name=name, weights=weights, download=download)
        margin = codec.scale_margin(parsed.strings, parsed.height, parsed.width)
        names: tuple[str, ...] = codec.string_names()
        return {"names": names, "scale_margin": margin, "problem": None}
    except LofError as error:
        unnamed = tuple(f"string {i}" for i in range(1, len(parsed.strings) + 1))
        return {"names": unnamed, "scale_margin": None, "problem": str(error).removeprefix(f"{name}: ")}


def _print(found: dict[str, Any]) -> None:
    console = make_console()
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in _lines(found):
        table.add_row(name, Text(printable(value)))
    console.print(Text(printable(found["file"]), style="bold"), soft_wrap=True)
    console.print(table)


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [
        ("format", container(found["format"]).summary),
        ("codec", f"{found['codec']}, quality {found['quality']:.10g}, trained for {found['metric']}"),
        ("weights", _weights(found)),
        ("image", f"{found['width']} × {found['height']} pixels"),
        ("file", f"{count(found['bytes'])} bytes, {found['bpp']:.4f} bits per pixel"),
    ]
    for string in found["strings"]:
        share = 100 * string["bytes"] / found["bytes"]
        lines.append((string["name"], f"{count(string['bytes'])} bytes, {share:.1f} %"))
    what = "header, lengths and checksum" if container(found["format"]).checksum else "header and lengths"
    lines.append(("overhead", f"{count(found['overhead_bytes'])} bytes of {what}"))
    for kind, size in found["boxes"].items():
        lines.append((f"box {kind}", f"{count(size)} bytes"))
    if found["scale_margin"] is not None:
        lines.append(("σ margin", _margin(found["scale_margin"])))
    elif found["problem"] is None:
        lines.append(("σ margin", "none needed: this codec has no scale table"))
    return lines


def _weights(found: dict[str, Any]) -> str:
    if found["fingerprint"] == NO_WEIGHTS.hex():
        return "none needed" + (f"; less is shown: {found['problem']}" if found["problem"] else "")
    stated = f"fingerprint {found['fingerprint']}" if found["fingerprint"] else "not stated in this format"
    if found["problem"]:
        return f"{stated}; not at hand, so less is shown: {found['problem']}"
    return f"{stated}, the ones at hand" if found["fingerprint"] else stated


def _margin(margin: float) -> str:
    return (
        f"{margin:.1e}: a decoder reads this file right if it computes every σ within this share of ours; "
        f"CPUs with other instructions have been seen 1e-05 off"
    )
