"""Methods side by side on a folder of images, in one run: plain encoding, reference SGA, profiles.

    python -m pipelines.benchmark KODAK -o RUN --count 8 --crop 256
    python -m pipelines.benchmark KODAK -o RUN --qualities 2,4,6 --profiles fast,medium --sga-steps 0

Every file is written, decoded by the standard decoder and measured. Each finished row goes to
``RUN/results.jsonl`` at once; the same command continues where it stopped. It leaves ``results.csv``,
``table.md``, ``bd-rate.png`` and ``rd.png``. Images are compared as bare pixels: ICC profiles and EXIF, which
would cost every method the same bytes, are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape

from lof.codecs import DEFAULT_CODEC, codec_spec, load_codec
from lof.files.atomic import write_atomically
from lof.files.inputs import find
from lof.pictures.batches import batches, spread
from lof.profiles import BUILT_IN
from lof.report.records import Record
from pipelines import benchmark_report as report
from pipelines.benchmark_plots import gain_against_evaluations, rate_distortion
from pipelines.command import (
    CodecName,
    Count,
    Crop,
    DeviceName,
    Folder,
    Precision,
    Results,
    bar,
    device_name,
    qualities_of,
    run,
)
from pipelines.methods import SGA_STEPS, Journal, Runner, methods_of


def main(
    folder: Folder,
    *,
    out: Results,
    codec: CodecName = DEFAULT_CODEC,
    qualities: Annotated[str, typer.Option(help="Rate points, as 2,4,6; all if empty.")] = "",
    profiles: Annotated[str, typer.Option(help="Names or TOML files, by commas.")] = ",".join(BUILT_IN),
    sga_steps: Annotated[int, typer.Option(min=0, help="Of the reference SGA; 0 leaves it out.")] = SGA_STEPS,
    count: Count = None,
    crop: Crop = None,
    batch: Annotated[int, typer.Option(min=1, help="Images searched at once, of one size.")] = 1,
    weights: Annotated[Path | None, typer.Option(help="Folder with weights.")] = None,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    seed: Annotated[int, typer.Option(help="Of the searches.")] = 0,
    ms_ssim: Annotated[bool, typer.Option("--ms-ssim", help="Show MS-SSIM too.")] = False,
) -> None:
    """Compare plain encoding, reference SGA and profiles on real files."""
    if threads is not None:
        torch.set_num_threads(threads)
    methods = methods_of(profiles, sga_steps)
    sources = spread(find([folder], exclude=out).sources, count)
    codecs = [
        load_codec(codec, quality, weights=weights, device=device, precision=precision)
        for quality in _qualities(codec, qualities)
    ]
    settings = {
        "crop": crop,
        "seed": seed,
        "batch": batch,
        "device": device_name(codecs[0].device),
        "precision": str(codecs[0].precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }
    runner = Runner(Journal(out / "results.jsonl"), codecs, methods, settings)
    reference = methods[0].name if sga_steps else None
    try:
        with bar() as progress:
            task = progress.add_task("", total=len(sources) * len(codecs) * len(methods))
            for images in batches(sources, crop, batch):
                for done in runner.run(images):
                    progress.update(task, advance=len(images), description=escape(done))
    except KeyboardInterrupt:
        typer.echo("Stopped. What is finished is kept; the same command continues.", err=True)
        raise typer.Exit(130) from None
    finally:
        names = [report.PLAIN, *(method.name for method in methods)]
        _report(out, runner.rows, names, reference, ms_ssim)


def _report(out: Path, rows: list[Record], names: list[str], reference: str | None, ms_ssim: bool) -> None:
    found = report.summarise(rows, names, reference)
    if found is None:
        return
    rows = [row for row in rows if row["image"] in found.images]
    settings = _describe(rows[0], found)
    console = Console(highlight=False)
    tables = report.points_table(found, ms_ssim=ms_ssim), report.summary_table(found)
    console.print(settings, "", tables[0], "", tables[1], "", *report.notes(found), sep="\n")
    if len({row["code"] for row in rows}) > 1:
        console.print("[yellow]Some rows were measured with another version of the program.[/]")
    write_atomically(out / "results.csv", report.to_csv(rows).encode())
    write_atomically(out / "table.md", report.to_markdown(found, settings, ms_ssim=ms_ssim).encode())
    write_atomically(out / "bd-rate.png", gain_against_evaluations(found))
    write_atomically(out / "rd.png", rate_distortion(found))


def _describe(row: Record, found: report.Benchmark) -> str:
    settings, count = row["settings"], len(found.images)
    crop, threads = settings["crop"], settings["threads"]
    plural = "s" * (count != 1)
    what = f"{count} whole image{plural}" if crop is None else f"{count} centre crop{plural} of {crop}×{crop}"
    where = f"{settings['device']}, {threads} thread{'s' * (threads != 1)}, {settings['precision']}"
    return f"{row['codec']} ({row['fingerprint'][:8]}), {what}; {where}, seed {settings['seed']}."


def _qualities(codec: str, chosen: str) -> list[float]:
    if chosen.strip():
        return qualities_of(chosen)
    return sorted(quality for metric, quality in codec_spec(codec).rate_points if metric == "mse")


if __name__ == "__main__":
    run(main)
