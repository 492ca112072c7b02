"""``lof train`` and ``lof export-weights``: train codecs from recipes, ship and measure what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lof.cli import _options as options
from lof.cli import app
from lof.cli._consoles import make_console
from lof.errors import require

if TYPE_CHECKING:
    from lof.training import Recipe

_TRAIN = (
    "Train a codec from a recipe: one network for all rates, or one for each, the highest rate first.\n\n"
    "Interrupted or killed, the same command continues from the last checkpoint. The output folder gets the "
    "log, its plot, and a checkpoint for `lof export-weights` whenever a part of the recipe is done."
)
_EXPORT = (
    "Turn checkpoints into weights that ship, as safetensors, and a model card with what they are worth. "
    "Prints the lines that register them."
)


@app.command("train", help=_TRAIN)
def train(
    recipe: Annotated[
        str, typer.Argument(help="A shipped recipe, such as lapped or msp-high, or a TOML file.")
    ],
    *,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="Folder of the run; a second call continues it.", parser=options.path
        ),
    ],
    data: Annotated[
        list[Path] | None, typer.Option(help="Folder of training pictures; may be given several times.")
    ] = None,
    validation: Annotated[
        list[Path] | None, typer.Option(help="Folder of pictures to watch the training on.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Weights to start from: a checkpoint or a safetensors file.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[
        int,
        typer.Option(min=1, help="Processes that share each batch, by Ray Train; install lof\\[ray] for it."),
    ] = 1,
    quiet: Annotated[bool, options.flag("--quiet", "Print errors only.")] = False,
) -> None:
    if workers > 1:
        require("ray", "ray", "training with several workers")
    if not quiet:  # at once: torch takes seconds to load
        typer.echo(f"training {recipe} in {out}", err=True)
    from lof.training import load_recipe

    chosen = load_recipe(recipe).with_data(data or [], validation or [], init)
    if workers > 1:
        _distributed(chosen, out, workers, device)
        return
    from lof.cli._training import TrainingDisplay
    from lof.training import train as run

    with TrainingDisplay(chosen, quiet=quiet) as display:
        run(chosen, out, device=device, on_event=display)


@app.command("export-weights", help=_EXPORT)
def export_weights(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoints of one codec.")],
    *,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="Folder for the weights and the model card.", parser=options.path),
    ],
    measure: Annotated[
        Path | None, typer.Option(help="Folder of pictures to measure on; Kodak gives the comparison.")
    ] = None,
    codec: Annotated[
        str | None, typer.Option(help="Name of the codec, where a checkpoint does not say it.")
    ] = None,
    quality: Annotated[
        float | None, typer.Option(help="Quality of the weights, where a checkpoint does not say it.")
    ] = None,
    note: Annotated[
        list[str] | None,
        typer.Option(help="KEY=TEXT for the card's training table: data, hardware, time."),
    ] = None,
) -> None:
    from rich.progress import Progress

    from lof.errors import UsageError
    from lof.training import export_weights as run

    history = dict(item.partition("=")[::2] for item in note or [])
    if any(not key or not text for key, text in history.items()):
        raise UsageError("--note: give KEY=TEXT, for example --note 'data=773 photographs'")
    with Progress(console=make_console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", total=None)
        exported = run(
            checkpoints,
            out,
            measure_on=measure,
            codec=codec,
            quality=quality,
            history=history,
            on_picture=lambda done, total: progress.update(task, completed=done, total=total),
        )
    # One network has one line for all its qualities.
    for line in dict.fromkeys(point.registry_line for point in exported):
        typer.echo(line)
    typer.echo(f"{out / exported[0].codec}.md", err=True)


def _distributed(recipe: Recipe, out: Path, workers: int, device: str) -> None:
    from lof.machine.devices import resolve_device
    from lof.training.distributed import train_distributed

    use_gpu = resolve_device(device).type == "cuda"
    for path in train_distributed(recipe, out, workers, use_gpu=use_gpu):
        typer.echo(path)
