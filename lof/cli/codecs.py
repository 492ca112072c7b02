"""``lof codecs``: what can be searched and decoded, and where weights come from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lof.cli import app

if TYPE_CHECKING:
    from lof.codecs import CodecSpec

_WEIGHTS = """\
Weights of bundled codecs ship with lof. Those of zoo codecs are looked for
  1. in the folder that --weights DIR names,
  2. in the folder that LOF_WEIGHTS_DIR names,
  3. on CompressAI's server, by download.
In a folder, lof takes the file with the zoo's own name, or CODEC-QUALITY.safetensors
(CODEC-ms-ssim-QUALITY.safetensors), also with .pth.tar, .pth or .pt: for example
mbt2018-mean-4.safetensors."""


@app.command("codecs")
def codecs(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array on stdout, nothing else.")] = False,
) -> None:
    """List the codecs, their rate points, and how to bring weights."""
    from lof.codecs import codec_specs

    found = [_describe(spec) for spec in codec_specs()]
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _print(found)


def _describe(spec: CodecSpec) -> dict[str, Any]:
    from lof.codecs import DEFAULT_CODEC

    points = [
        {"metric": metric, "quality": quality, "lambda": point.lmbda}
        for (metric, quality), point in spec.rate_points.items()
    ]
    return {
        "name": spec.name,
        "default": spec.name == DEFAULT_CODEC,
        "source": spec.source,
        "default_quality": spec.default_quality,
        "rate_points": points,
        "summary": spec.summary,
        "paper": spec.paper,
        "licence": spec.licence,
    }


def _print(found: list[dict[str, Any]]) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for codec in found:
        default = ", the default" if codec["default"] else ""
        console.print(f"[bold]{codec['name']}[/]  {codec['source']}{default}")
        console.print(f"  {codec['summary']} [dim]({codec['paper']})[/]")
        for metric, qualities, lambdas in _rates(codec["rate_points"]):
            console.print(f"  {metric:8} quality {qualities:10}  λ {lambdas}")
        console.print()
    console.print(_WEIGHTS)


def _rates(points: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Metric, qualities and range of λ; one row per metric."""
    rows = []
    for metric in dict.fromkeys(point["metric"] for point in points):
        chosen = sorted((p["quality"], p["lambda"]) for p in points if p["metric"] == metric)
        qualities = [quality for quality, _ in chosen]
        gapless = len(qualities) > 1 and qualities == list(range(qualities[0], qualities[-1] + 1))
        named = f"{qualities[0]}–{qualities[-1]}" if gapless else ", ".join(map(str, qualities))
        lambdas = dict.fromkeys((f"{chosen[0][1]:g}", f"{chosen[-1][1]:g}"))
        rows.append((metric, named, "–".join(lambdas)))
    return rows
