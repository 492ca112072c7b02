"""What each part of JointIQ is worth: the ablation of the paper, every row of a block with as many steps.

    python -m pipelines.ablation KODAK --data PHOTOS -o RUN
    python -m pipelines.ablation KODAK --data PHOTOS -o RUN --steps 2000 --more 1500 --count 6 --threads 2

The first block trains the probability model alone, for ``--steps`` from the weights of ``--init``: lapped's own, then
with mixtures, with the global context, and with their refinement. The second goes on from the last of these for
``--more`` steps: all of that together; with a second, turned view in the synthesis; with GRDN behind both, and nothing
else trained ("separately"); and all of it together ("jointly"). The third puts a network behind lapped as it is, then
descriptors that steer it, the best ones for each picture. The learning rate falls to nothing in each row.

Each row's weights are written as they ship; each picture becomes a real file, which is decoded. Tables hold BD-rates of
the mean curves, in RGB PSNR and in MS-SSIM in dB, and the time to decode a picture. A second call continues, and leaves
``ablation.md``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, cast

import torch
import typer

from lof import api
from lof.cli._training import TrainingDisplay
from lof.codecs import Codec, load_codec
from lof.codecs.lapped.codec import LappedCodec
from lof.errors import UsageError
from lof.files.atomic import write_atomically
from lof.files.inputs import find
from lof.measure import TrueCost
from lof.pictures.batches import Image, batches, spread
from lof.pictures.picture import Picture
from lof.profiles import parse_profile
from lof.report.figures import ABSENT, percent
from lof.report.rate_distortion import bjontegaard_deltas
from lof.report.records import Record
from lof.training import load_recipe, parse_recipe, train
from lof.training.checkpoint import load_checkpoint
from lof.training.measure import decoded, load_written, write_weights
from lof.training.trained import read_trained
from pipelines.command import Count, Crop, Folder, Results, Threads, bar, qualities_of, run
from pipelines.methods import Journal

RECIPE = "jointiq-decay"
SHOWN: Mapping[str, Any] = {"turned": (), "enhancement": ()}
"""Without what changes pictures alone."""
NOTHING: Mapping[str, Any] = {"components": 1, "refinement": (), "context": (), **SHOWN}
BEFORE = "lapped, as it ships"


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        network: sizes that differ from those of the full codec.
        begins: the row whose weights it begins with; ``--init`` if ``None``.
        part: what is trained; everything if ``None``.
    """

    name: str
    network: Mapping[str, Any]
    begins: str | None = None
    part: str | None = "prior"

    @property
    def learning_rate(self) -> float:
        """At the start."""
        return 5e-4 if self.part is None else 1e-3


_TURNED = {"turned": (1,)}
_FILTER = {**NOTHING, **_TURNED, "enhancement": (3, 8, 128, 6, 3, 32)}
BLOCKS = (
    (
        Variant("lapped's probability model", NOTHING),
        Variant("+ mixtures", {"refinement": (), "context": (), **SHOWN}),
        Variant("+ global context", {"refinement": (), **SHOWN}),
        Variant("+ MPRM", SHOWN),
    ),
    (
        Variant("no enhancement", SHOWN, "+ MPRM", None),
        Variant("+ a turned view", {**_TURNED, "enhancement": ()}, "+ MPRM", None),
        Variant("+ GRDN, separately", _TURNED, "+ MPRM", "enhancement"),
        Variant("+ GRDN, jointly", _TURNED, "+ MPRM", None),
    ),
    (
        Variant("a network behind lapped", _FILTER, None, "enhancement"),
        Variant("+ descriptors", _FILTER, "a network behind lapped", "steering"),
    ),
)
OWN = parse_profile(
    {"name": "own", "summary": "descriptors alone", "stage": [{"kind": "own", "evaluations": 1}]}
)


def main(
    folder: Folder,
    *,
    out: Results,
    data: Annotated[
        list[Path], typer.Option(help="Folder of training pictures; may be given several times.")
    ],
    init: Annotated[Path, typer.Option(help="Weights of lapped.")] = Path(
        "lof/codecs/lapped/data/lapped.safetensors"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Of each row of the first block.")] = 2000,
    more: Annotated[int, typer.Option(min=1, help="Of each row of the others.")] = 1500,
    qualities: Annotated[str, typer.Option(help="By commas.")] = "2,4,6",
    count: Count = None,
    crop: Crop = None,
    threads: Threads = 1,
) -> None:
    """Train and measure what is not there yet, and write the table."""
    torch.set_num_threads(threads)
    journal = Journal(out / "results.jsonl")
    sources = spread(find([folder], exclude=out).sources, count)
    numbers = qualities_of(qualities)
    codecs = {BEFORE: [load_codec("lapped", quality, device="cpu", precision="fp32") for quality in numbers]}
    weights: dict[str | None, Path] = {None: init}
    for number, block in enumerate(BLOCKS, start=1):
        for row, variant in enumerate(block, start=1):
            home = out / f"{number}.{row}"
            weights[variant.name] = _trained(
                variant, home, weights[variant.begins], data, steps if number == 1 else more
            )
            trained = read_trained(weights[variant.name])
            path = write_weights(trained, home / "weights")
            codecs[variant.name] = [load_written(trained, path, quality) for quality in numbers]
    rows: list[Record] = []
    steered = [variant.name for block in BLOCKS for variant in block if variant.part == "steering"]
    with bar() as progress:
        task = progress.add_task("", total=len(sources) * len(numbers) * len(codecs))
        for (image,) in batches(sources, crop, 1):
            for name, points in codecs.items():
                for codec in points:
                    key = f"{image.digest[:16]} {codec.quality:g} {codec.fingerprint.hex()[:16]} {name}"
                    if key not in journal.rows:
                        about = {"row": name, "quality": codec.quality, "image": image.name}
                        journal.append({"key": key} | about | _measured(image, codec, chosen=name in steered))
                    rows.append(journal.rows[key])
                    progress.update(task, advance=1, description=f"{image.name} {name}")
    sizes = {name: _size(points[0]) for name, points in codecs.items()}
    text = to_markdown(rows, sizes, steps, more)
    write_atomically(out / "ablation.md", text.encode())
    print(text)


def _trained(variant: Variant, home: Path, init: Path, data: Sequence[Path], steps: int) -> Path:
    """The checkpoint of a row, trained if it is not there."""
    content = load_recipe(RECIPE).model_dump()
    network = {**content["network"], **variant.network}
    content |= {"name": variant.name, "network": network, "init": str(init)}
    rung = {"steps": steps, "learning_rate": variant.learning_rate, "part": variant.part}
    content |= {"rung": [rung], "data": {"train": tuple(map(str, data))}}
    recipe = parse_recipe(content, variant.name)
    path = home / recipe.checkpoints[0]
    if path.exists():
        if not recipe.continues(load_checkpoint(path).recipe):
            raise UsageError(f"{path}: is of another training; choose another place with -o")
    else:
        with TrainingDisplay(recipe) as display:
            train(recipe, home, device="auto", on_event=display)
    return path


def _measured(image: Image, codec: Codec, *, chosen: bool) -> Record:
    """With descriptors ``chosen`` for the picture, or without any."""
    pixels = image.picture.pixels
    if chosen:
        data = api.optimize(Picture(pixels), codec=codec, profile=OWN).data
    else:
        data = api.encode(Picture(pixels), codec=codec)
    started = time.perf_counter()
    shown = decoded(codec, data, *pixels.shape[:2])
    seconds = time.perf_counter() - started
    found = TrueCost(pixels, codec.lmbda, codec.metric).measure(len(data), shown)
    return {"bpp": found.bpp, "psnr": found.psnr, "ms_ssim": found.ms_ssim, "seconds": seconds}


def _size(codec: Codec) -> int:
    net = cast(LappedCodec, codec).net
    return sum(parameter.numel() for parameter in net.parameters())


def to_markdown(rows: Sequence[Record], sizes: Mapping[str, int], steps: int, more: int) -> str:
    """The table of each block, each against its first row, the first block against its second.

    Args:
        rows: the same pictures and qualities for every row of the table.
        sizes: parameters, by row.
        steps, more: of training, for the rows of the first block and of the others.
    """
    lines: list[str] = []
    for number, block in enumerate(BLOCKS, start=1):
        own = [variant.name for variant in block]
        names = own if number == 2 else [BEFORE, *own]
        others = "" if number == 2 else " but the first"
        lines += [
            f"{steps if number == 1 else more} steps for each row{others}:",
            "",
            "| | BD-rate, PSNR | BD-rate, MS-SSIM | seconds to decode | million parameters |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        anchor = names[1 if number == 1 else 0]
        for name in names:
            its = [row for row in rows if row["row"] == name]
            rates = [_bd_rate(rows, anchor, name, metric) for metric in ("psnr", "ms_ssim")]
            cells = [ABSENT if rate is None else percent(rate) for rate in rates]
            cells += [f"{fmean(row['seconds'] for row in its):.2f}", f"{sizes[name] / 1e6:.2f}"]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    rate = _bd_rate(rows, BEFORE, BLOCKS[1][-1].name, "psnr")
    whole = ABSENT if rate is None else percent(rate)
    lines.append(f"All of it, jointly trained, against {BEFORE}: {whole} BD-rate in PSNR.")
    return "\n".join(lines) + "\n"


def _bd_rate(rows: Sequence[Record], anchor: str, name: str, metric: str) -> float | None:
    found = bjontegaard_deltas(_curve(rows, anchor, metric), _curve(rows, name, metric))
    return None if found is None else found[0]


def _curve(rows: Sequence[Record], name: str, metric: str) -> list[tuple[float, float]]:
    own = [row for row in rows if row["row"] == name and row[metric] is not None]
    points = sorted({row["quality"] for row in own})
    at = [[row for row in own if row["quality"] == quality] for quality in points]
    shown = _as_decibels if metric == "ms_ssim" else float
    return [(fmean(row["bpp"] for row in some), fmean(shown(row[metric]) for row in some)) for some in at]


def _as_decibels(ms_ssim: float) -> float:
    return -10 * math.log10(1 - ms_ssim)


if __name__ == "__main__":
    run(main)
