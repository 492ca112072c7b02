"""``lof tune``: a profile fitted to one codec, on a few images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lof.cli import _options as options
from lof.cli import app

_HELP = (
    "Fit a profile to a codec: try longer and shorter steps on a few images, and keep what makes better files.\n\n"
    "It writes a profile for `lof optimize --profile FILE`. The shipped profiles hold on codecs of all kinds. This "
    "command finds in minutes what they leave on yours; `lof study` looks much further, in hours. Use other images "
    "than those that you report on."
)


@app.command("tune", help=_HELP)
def tune(
    codec: Annotated[str, typer.Argument(help="A codec, as `lof codecs` lists them.", show_default=False)],
    images: Annotated[
        list[str],
        typer.Argument(help="Images, folders or quoted globs.", metavar="IMAGES", show_default=False),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Where to write the profile.",
            parser=options.path,
            show_default="PROFILE-CODEC-FINGERPRINT.toml, here",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    profile: options.Profile = "medium",
    qualities: Annotated[
        str,
        typer.Option(help="Rate points by commas, as 2,4,6.", show_default="three over the codec's range"),
    ] = "",
    metric: options.Metric = "mse",
    count: Annotated[int, typer.Option(min=1, help="How many images, evenly over all.")] = 4,
    crop: Annotated[
        int, typer.Option(min=16, help="Side of the centre that is cut from each, in pixels.")
    ] = 192,
    weights: options.Weights = None,
    device: options.Device = "auto",
    threads: Annotated[
        int | None,
        options.default("all cores", "CPU threads.", options.WORKERS, min=1),
    ] = None,
    seed: options.Seed = 0,
    json: Annotated[
        bool,
        options.flag(
            "--json", "Print one JSON object for each quality and each trial to stdout.", options.OUTPUT
        ),
    ] = False,
) -> None:
    """Measure, print each trial, write the profile; the help stands in ``_HELP``."""
    import json as json_format

    import torch

    from lof.codecs import codec_spec, load_codec, tensor_of
    from lof.errors import UsageError
    from lof.files.atomic import write_atomically
    from lof.files.inputs import find
    from lof.pictures.batches import batches, spread
    from lof.profiles import load_profile, profile_toml
    from lof.report.figures import percent, plural, printable
    from lof.search.tuning import check_tunable, half_bits, tune

    if threads is not None:
        torch.set_num_threads(threads)
    start = load_profile(profile)
    spec = codec_spec(codec)
    made_for = spec.made_for(metric)
    spec.rate_point(made_for, spec.default_quality)
    points = _qualities(sorted(q for m, q in spec.rate_points if m == made_for), qualities)
    codecs = [load_codec(codec, q, metric=made_for, weights=weights, device=device) for q in points]
    check_tunable(start, codecs[0])
    place = out or Path(f"{start.name}-{codec}-{codecs[0].fingerprint[:4].hex()}.toml")
    if place.exists():
        raise UsageError(f"{place}: is there already; remove it, or name another file with -o")
    pictures = [
        torch.cat([tensor_of(one.picture) for one in batch])
        for batch in batches(spread(find(images).sources, count), crop, count)
    ]
    for rate in codecs:
        steps = half_bits(rate, pictures[0], metric)
        if json:
            typer.echo(json_format.dumps({"quality": rate.quality, "half_bits": steps}))
        else:
            moved = ", ".join(f"{step:.2g} in {name}" for name, step in steps.items())
            typer.echo(f"quality {rate.quality:.10g}: half a bit is worth a step of {moved}")
    first = best = None
    for trial in tune(start, codecs, pictures, metric=metric, seed=seed):
        first, best = first or trial, trial if trial.kept else best
        if json:
            typer.echo(json_format.dumps({"change": trial.change, "cost": trial.cost, "kept": trial.kept}))
        else:
            what = trial.change or f"cost with {start.name} as it is"
            typer.echo(f"{percent(trial.cost):>8}  {what}{'  (kept)' if trial.kept and trial.change else ''}")
    if first is None or best is None or best is first:
        said = "nothing is better by more than chance; no profile is written"
    else:
        crops = plural(sum(map(len, pictures)), "crop")
        about = f"cost {percent(best.cost)} instead of {percent(first.cost)} on {crops} with {codec}"
        name = f"{start.name}-{codec}"[:64]
        tuned = best.profile.model_copy(update={"name": name, "summary": about})
        write_atomically(place, f"{profile_toml(tuned)}\n".encode())
        said = f"{printable(str(place))}: {about}"
    typer.echo(said, err=json)


def _qualities(known: list[float], chosen: str) -> list[float]:
    """Those of the option; else three: a quarter, half and three quarters along those that the codec has."""
    from lof.errors import UsageError

    if not chosen:
        return sorted({known[int((len(known) - 1) * share)] for share in (0.25, 0.5, 0.75)})
    try:
        return [float(quality) for quality in chosen.split(",")]
    except ValueError:
        raise UsageError(f"--qualities {chosen}: give numbers by commas, as 2,4,6") from None
