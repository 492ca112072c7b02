"""``lof codecs``: what can be searched and decoded, and where weights come from."""

from __future__ import annotations

import json as json_format
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lof.cli import _options as options
from lof.cli import app
from lof.cli._consoles import make_console

if TYPE_CHECKING:
    from lof.codecs import CodecSpec

_WEIGHTS = """\
Weights of bundled codecs ship with lof. Others are looked for
  1. in the folder that --weights DIR names,
  2. repository: in lof/codecs of a clone, as pip install -e uses it; the
     installed package only has mean-scale-96 at quality 4,
  3. in the folder that LOF_WEIGHTS_DIR names,
  4. zoo: on CompressAI's server, by download.
In a folder, lof takes the file with the zoo's own name, or CODEC-QUALITY.safetensors
(CODEC-ms-ssim-QUALITY.safetensors), also with .pth.tar, .pth or .pt: for example
mbt2018-mean-4.safetensors. CODEC.safetensors serves all qualities of lapped, jointiq
and jpeg-descriptors."""


@app.command("codecs")
def codecs(
    json: Annotated[
        bool, options.flag("--json", "Print one JSON array to stdout, and nothing else.")
    ] = False,
) -> None:
    """List the codecs and their rate points, and say where weights are looked for."""
    from lof.codecs import codec_specs

    found = [_describe(spec) for spec in codec_specs()]
    if json:
        typer.echo(json_format.dumps(found))
    else:
        _print(found)


def _describe(spec: CodecSpec) -> dict[str, Any]:
    from lof.codecs import DEFAULT_CODEC, Continuous

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
        "continuous": isinstance(spec.rates, Continuous),
        "summary": spec.summary,
        "paper": spec.paper,
        "licence": spec.licence,
    }


def _print(found: list[dict[str, Any]]) -> None:
    from rich.markup import escape

    from lof.codecs import codec_tiers

    console = make_console(soft_wrap=True)
    for codec in found:
        default = ", the default" if codec["default"] else ""
        source = "no weights" if codec["source"] == "none" else codec["source"]
        console.print(f"[bold]{codec['name']}[/]  {source}{default}")
        paper = f" [dim]({escape(codec['paper'])})[/]" if codec["paper"] else ""
        console.print(f"  {escape(codec['summary'])}{paper}")
        for metric, qualities, lambdas in _rates(codec["rate_points"], codec["continuous"]):
            console.print(f"  {metric:8} quality {qualities:10}  λ {lambdas}")
        console.print()
    for name, tiers in codec_tiers().items():
        console.print(f"[bold]{name}[/]  {', '.join(tiers)}: the one that suits the profile\n")
    console.print(_WEIGHTS)


def _rates(points: list[dict[str, Any]], continuous: bool) -> list[tuple[str, str, str]]:
    """Metric, qualities and range of λ; one row per metric."""
    rows = []
    for metric in dict.fromkeys(point["metric"] for point in points):
        chosen = sorted((p["quality"], p["lambda"]) for p in points if p["metric"] == metric)
        qualities = [f"{quality:.10g}" for quality, _ in chosen]
        gapless = len(chosen) > 1 and all(b - a == 1 for (a, _), (b, _) in pairwise(chosen))
        named = f"{qualities[0]}–{qualities[-1]}" if gapless else ", ".join(qualities)
        lambdas = dict.fromkeys((f"{chosen[0][1]:g}", f"{chosen[-1][1]:g}"))
        rows.append((metric, named + (", and between" if continuous else ""), "–".join(lambdas)))
    return rows
