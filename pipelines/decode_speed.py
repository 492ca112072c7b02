"""How long decoding takes, and in how many evaluations: lapped, JointIQ, MSP's tiers and models of the zoo's kinds.

    python -m pipelines.decode_speed -o SPEED
    python -m pipelines.decode_speed -o SPEED --sizes 256x256,2048x1365 --threads 1

Each decoder turns strings of a real encoding into an image, once per size and round, entropy coding included;
the best round counts. The autoregressive model is CompressAI's ``JointAutoregressiveHierarchicalPriors`` with
N=96, M=128 and weights as initialised, since its time depends on sizes only; it gets random strings, which decode to
samples of its own distribution. Leaves ``decode-speed.json``, ``decode-speed.md`` and ``decode-speed.png``.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
import typer
from rich.console import Console
from skimage import data
from skimage.transform import resize

from lof.codecs import Codec, codec_spec, codec_specs, hard_rounding, load_codec
from lof.codecs.lapped.codec import LappedCodec
from lof.codecs.msp.codec import MSPCodec
from lof.codecs.msp.config import TIERS
from lof.codecs.msp.network import MSPNetwork
from lof.files.atomic import write_atomically
from lof.report.canvas import canvas, png, round_numbers
from lof.search import symbols_of
from lof.training.hardware import describe_hardware
from pipelines.command import Threads, run

SIZES = "256x256,512x512,1024x1024,2048x1365,2048x2048"
AUTOREGRESSIVE = "autoregressive"


@dataclass(frozen=True)
class Row:
    """One decoder at one size, its best round."""

    decoder: str
    width: int
    height: int
    seconds: float
    evaluations: int


def main(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of results.")],
    sizes: Annotated[str, typer.Option(help="WIDTHxHEIGHT, by commas.")] = SIZES,
    rounds: Annotated[
        int, typer.Option(min=1, help="Of all but the autoregressive model, which has one.")
    ] = 3,
    threads: Threads = 1,
    largest: Annotated[str, typer.Option(help="Largest size for the autoregressive model.")] = "2048x1365",
) -> None:
    """Measure and write table and plot."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with torch.no_grad():
        for width, height in map(_size, sizes.split(",")):
            image = _photograph(width, height)
            for codec in (
                *(load_codec(n, device="cpu") for n in ("mean-scale-96", "lapped", "jointiq")),
                *map(_tier, _tiers()),
            ):
                rows.append(_measure(codec, image, rounds))
                print(rows[-1])
            if width * height <= int(np.prod(_size(largest))):
                rows.append(_measure_autoregressive(width, height))
                print(rows[-1])
    about = {"threads": threads, "hardware": describe_hardware(torch.device("cpu"), 1)}
    record = {"about": about, "rows": [asdict(row) for row in rows]}
    write_atomically(out / "decode-speed.json", json.dumps(record, indent=1).encode())
    write_atomically(out / "decode-speed.md", _table(rows).encode())
    write_atomically(out / "decode-speed.png", _plot(rows))
    Console().print(_table(rows), highlight=False)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def _tiers() -> list[str]:
    return [name for name in TIERS if name != "msp-tiny"]


def _tier(name: str) -> MSPCodec:
    if name in {spec.name for spec in codec_specs()}:
        return cast(MSPCodec, load_codec(name, codec_spec(name).default_quality, device="cpu"))
    torch.manual_seed(0)
    net = MSPNetwork(*TIERS[name].sizes)
    net.calibrate(torch.ones(net.M))
    net.update()
    about: dict[str, Any] = {"quality": 4, "metric": "mse", "lmbda": 0.013}
    return MSPCodec(net, name=name, device=torch.device("cpu"), precision=torch.float32, **about)


def _photograph(width: int, height: int) -> torch.Tensor:
    pixels = resize(data.astronaut(), (height, width), order=3, anti_aliasing=True)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float().clamp(0, 1)


def _measure(codec: Codec, image: torch.Tensor, rounds: int) -> Row:
    height, width = image.shape[-2:]
    symbols = symbols_of(codec.code(codec.analyse(codec.pad(image)), hard_rounding, exact=True))
    strings = codec.compress(symbols)
    codec.decompress(strings, height, width)
    count = _counted(codec)
    took = [_time(lambda: codec.decompress(strings, height, width)) for _ in range(rounds)]
    return Row(codec.name, width, height, min(took), count() // rounds)


def _counted(codec: Codec) -> Callable[[], int]:
    """Counts the evaluations of the codec's probability model from now on."""
    calls: list[None] = []
    if isinstance(codec, MSPCodec):
        step = codec.net.prior.step

        def counting(*arguments: Any) -> Any:
            calls.append(None)
            return step(*arguments)

        codec.net.prior.step = counting
        steps = codec.net.config.evaluations - 1
        return lambda: len(calls) + len(calls) // steps  # and the factorised prior, once for each image
    if isinstance(codec, LappedCodec):
        decode, parts = codec.decoder.decode, 1 + 2 * len(codec.net.config.slices)

        def decoding(*arguments: Any, **options: Any) -> Any:
            calls.extend([None] * parts)
            return decode(*arguments, **options)

        codec.decoder.decode = decoding  # type: ignore[method-assign]
        return lambda: len(calls)
    net: Any = getattr(codec, "net")  # noqa: B009
    net.h_s.register_forward_hook(lambda *_: calls.append(None))
    return lambda: 2 * len(calls)  # and the factorised prior of z, once for each


def _measure_autoregressive(width: int, height: int) -> Row:
    from compressai.models import JointAutoregressiveHierarchicalPriors

    torch.manual_seed(0)
    net = JointAutoregressiveHierarchicalPriors(96, 128).eval()
    net.update()
    shape = (-(-height // 64), -(-width // 64))
    random = np.random.default_rng(0)
    elements = 16 * shape[0] * shape[1] * 128
    strings = [[_random_string(random, elements)], [_random_string(random, shape[0] * shape[1] * 96)]]
    calls: list[None] = []
    net.entropy_parameters.register_forward_hook(lambda *_: calls.append(None))
    took = _time(lambda: net.decompress(strings, shape))
    return Row(AUTOREGRESSIVE, width, height, took, 2 + len(calls))


def _random_string(random: np.random.Generator, elements: int) -> bytes:
    return b"\0\0\0\0\0\0\0\x80" + random.bytes(4 * elements)


def _time(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _table(rows: list[Row]) -> str:
    slow = {(row.width, row.height): row.seconds for row in rows if row.decoder == AUTOREGRESSIVE}
    lines = [
        "| image | decoder | evaluations | seconds | ns per pixel | times as fast |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        pixels = row.width * row.height
        reference = slow.get((row.width, row.height))
        times = "–" if reference is None else f"{reference / row.seconds:.1f}"
        lines.append(
            f"| {row.width}×{row.height} | {row.decoder} | {row.evaluations} | {row.seconds:.3f} "
            f"| {1e9 * row.seconds / pixels:.0f} | {times} |"
        )
    return "\n".join(lines) + "\n"


def _plot(rows: list[Row]) -> bytes:
    figure, axes = canvas()
    for decoder in dict.fromkeys(row.decoder for row in rows):
        own = sorted((r.width * r.height, 1e9 * r.seconds) for r in rows if r.decoder == decoder)
        axes.plot([p / 1e6 for p, _ in own], [t / p for p, t in own], "-o", label=decoder, linewidth=1.6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("megapixels")
    axes.set_ylabel("decoding time, ns per pixel")
    axes.legend(frameon=False)
    round_numbers(axes)
    return png(figure)


if __name__ == "__main__":
    run(main)
