"""Are streams that are written here read as the same symbols by other CPUs and other numbers of threads?

The other CPUs are played by this one: PyTorch and oneDNN are told to use fewer instructions.

python -m pipelines.cross_cpu KODAK
python -m pipelines.cross_cpu KODAK --codecs mean-scale-96 --no-portable
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from lof.api import encode
from lof.codecs import load_codec
from lof.containers import unpack
from lof.containers.digest import check_digest
from lof.encoding import codec_of
from lof.errors import LofError, StreamError
from lof.files.inputs import find
from lof.pictures.reading import read_picture
from pipelines.command import Folder, run

CPUS = {
    "as here": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "SSE4.1": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
_READ = "from pathlib import Path; from pipelines.cross_cpu import read; read(Path({folder!r}), {threads})"


def read(folder: Path, threads: int) -> None:  # called by _READ
    """Print the name of every stream in a folder that is read here as other symbols than were written."""
    torch.set_num_threads(threads)
    for path in sorted(folder.iterdir()):
        stream = unpack(path.read_bytes(), path.name)
        try:
            decoded = codec_of(stream, name=path.name).decompress(stream.strings, stream.height, stream.width)
            check_digest(stream, {name: s.numpy() for name, s in decoded.symbols.items()}, path.name)
        except StreamError:
            print(path.name)


def main(
    images: Folder,
    codecs: Annotated[str, typer.Option(help="Names, between commas.")] = "lapped,mean-scale-96",
    qualities: Annotated[str, typer.Option(help="Numbers, between commas.")] = "4",
    count: Annotated[int, typer.Option(min=1, help="How many images, the first by name.")] = 4,
    portable: Annotated[bool, typer.Option("--portable/--no-portable")] = True,
) -> None:
    """Write streams, read them in processes that use other instructions, and print how many came out right.

    Exit code 1 if one did not.
    """
    paths = [source.path for source in find([images]).sources][:count]
    points = [(codec, float(quality)) for codec in codecs.split(",") for quality in qualities.split(",")]
    console, right = Console(highlight=False), True
    table = Table("codec", "quality", "instructions", "threads", "same symbols")
    with tempfile.TemporaryDirectory() as work:
        for codec, quality in points:
            folder = Path(work) / f"{codec}-{quality:.10g}"
            folder.mkdir()
            loaded = load_codec(codec, quality, device="cpu")
            for number, path in enumerate(paths):
                data = encode(read_picture(path), codec=loaded, portable=portable)
                (folder / f"{number}-{path.name}.lof").write_bytes(data)
            for cpu, settings in CPUS.items():
                for threads in (1, 2):
                    wrong = _read_elsewhere(folder, settings, threads)
                    right = right and not wrong
                    same = f"{len(paths) - len(wrong)} of {len(paths)}"
                    table.add_row(
                        codec, f"{quality:.10g}", cpu, str(threads), f"{same} {' '.join(wrong)}".strip()
                    )
    console.print(table)
    raise typer.Exit(0 if right else 1)


def _read_elsewhere(folder: Path, settings: dict[str, str], threads: int) -> list[str]:
    code = _READ.format(folder=str(folder), threads=threads)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LofError(
            f"{folder.name}: the process that reads with {settings or 'all'} ended with {done.returncode}"
        )
    return done.stdout.splitlines()


if __name__ == "__main__":
    run(main)
