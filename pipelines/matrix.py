"""A search over a matrix of codecs: what reference SGA and each profile gain in every cell.

    python -m pipelines.matrix PHOTOS -o RUN --count 4 --crop 192
    python -m pipelines.matrix PHOTOS -o RUN --cells mean-scale-96:4,lapped:4:lambda*4 --sga-steps 500

A cell is a codec at a quality, perhaps under a variant that makes any fixed step size wrong
(:mod:`pipelines.variants`). Every file is written, decoded by the standard decoder and measured; the gain is the
change of ``bpp + λ·D`` against the plain encoding, the mean over images. Each finished row goes to
``RUN/results.jsonl``; the same command continues. It leaves ``matrix.md`` and ``matrix.png``.
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer

from lof.errors import UsageError
from lof.files.atomic import write_atomically
from lof.files.inputs import find
from lof.machine.devices import resolve_precision
from lof.pictures.batches import batches, spread
from pipelines import matrix_report
from pipelines.command import DeviceName, Folder, Precision, Results, Threads, device_name, run
from pipelines.methods import SGA_STEPS, Journal, Runner, methods_of
from pipelines.variants import variant

CELLS = (
    *(f"mean-scale-96:{quality}" for quality in (2, 4, 6)),
    *(f"mean-scale-96:4:{v}" for v in ("z*8", "z/8", "gains2", "gains4", "lambda*4", "lambda/4", "ms-ssim")),
    *(f"lapped:{quality}" for quality in (2, 4, 6)),
    *(f"lapped:4:{v}" for v in ("lambda*4", "lambda/4", "ms-ssim")),
    *("msp-fast:4", "msp-base:2", "msp-base:5", "msp-high:4"),
)


def main(
    folder: Folder,
    *,
    out: Results,
    cells: Annotated[str, typer.Option(help="By commas: NAME:QUALITY or NAME:QUALITY:VARIANT.")] = ",".join(
        CELLS
    ),
    profiles: Annotated[str, typer.Option(help="Names or TOML files, by commas.")] = "fast,medium,high",
    sga_steps: Annotated[int, typer.Option(min=0, help="Of the reference SGA; 0 leaves it out.")] = SGA_STEPS,
    count: Annotated[int, typer.Option(min=1, help="Pictures, evenly over the folder.")] = 4,
    crop: Annotated[int, typer.Option(min=16, help="Side of a crop, in pixels.")] = 192,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    threads: Threads = 1,
    seed: Annotated[int, typer.Option(help="Of the searches.")] = 0,
) -> None:
    """Measure what the journal lacks, and write table and plot."""
    torch.set_num_threads(threads)
    methods = methods_of(profiles, sga_steps)
    sources = spread(find([folder], exclude=out).sources, count)
    images, *others = batches(sources, crop, len(sources))
    if others:
        raise UsageError(f"{folder}: pictures are smaller than {crop}×{crop}; name a smaller --crop")
    journal = Journal(out / "results.jsonl")
    found: list[matrix_report.Cell] = []
    for name in dict.fromkeys(text.strip() for text in cells.split(",")):
        codec = variant(name, device=device, precision=precision)
        settings = {
            "crop": crop,
            "seed": seed,
            "batch": len(images),
            "device": device_name(codec.device),
            "precision": str(resolve_precision(precision, codec.device)).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "metric": codec.metric,
        }
        runner = Runner(journal, [codec], methods, settings)
        for done in runner.run(images):
            typer.echo(f"{name}  {done}", err=True)
        found.append(matrix_report.cell(name, runner.rows, [method.name for method in methods]))
        text = matrix_report.table(found, methods[0].name if sga_steps else None)
        about = f"{len(images)} centre crops of {crop}×{crop}; {settings['device']}, seed {seed}.\n\n"
        write_atomically(out / "matrix.md", (about + text).encode())
        if sga_steps:
            write_atomically(out / "matrix.png", matrix_report.plot(found, methods[0].name))
    print(text)


if __name__ == "__main__":
    run(main)
