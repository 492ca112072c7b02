"""Options that several commands share, each with one name, one help text and one place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lof.errors import UsageError
from lof.files.storage import is_url


def path(text: str | Path) -> Path:
    """A path on this machine; a URL would otherwise become a folder ``s3:`` here."""
    if is_url(str(text)):
        raise UsageError(f"{text}: is a URL; name a file or folder of this machine here")
    return Path(text)


SEARCH, WORKERS, OUTPUT = "What is searched", "Who does the work", "What is written and shown"


def flag(name: str, help: str, panel: str | None = None) -> Any:
    """An option that takes no value."""
    return typer.Option(name, help=help, metavar="", rich_help_panel=panel)


def folder(metavar: str, help: str) -> Any:
    """An argument that names a folder of this machine."""
    return typer.Argument(metavar=metavar, help=help, parser=path, show_default=False)


def default(text: str, help: str, panel: str | None = None, **more: Any) -> Any:
    """An option whose default ``None`` stands for what ``text`` says."""
    return typer.Option(help=help, show_default=text, rich_help_panel=panel, **more)


Profile = Annotated[str, typer.Option(help="How thoroughly to search, see `lof profiles`.")]
Quality = Annotated[
    float | None,
    default("the codec's", "Quality of the images: 1 (smallest files) to 8 for most codecs.", SEARCH),
]
Metric = Annotated[
    str,
    typer.Option(
        help="What is optimised: mse or ms-ssim. Takes weights trained for it, where the codec has some.",
        rich_help_panel=SEARCH,
    ),
]
Lambda = Annotated[
    float | None,
    typer.Option(
        "--lambda",
        help="The weight λ of quality in the cost, rate + λ·distortion. A larger λ gives better, bigger files.",
        show_default="the codec's",
        rich_help_panel=SEARCH,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        help="Start of the random numbers. The same seed gives the same files.",
        rich_help_panel=SEARCH,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the codec's weights, see `lof codecs`.",
        parser=path,
        metavar="DIR",
        show_default=False,
    ),
]
Download = Annotated[
    bool,
    flag("--download", "Fetch weights that are not on this machine from CompressAI's server."),
]
MaxPixels = Annotated[
    int, typer.Option(help="Refuse images with more pixels than this, before any work.", min=1)
]
Device = Annotated[
    str, typer.Option(help="Where the search runs: auto, cpu, cuda or cuda:N.", rich_help_panel=WORKERS)
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="The most memory for each worker, such as 4GB. An image that needs more is searched in windows that "
        "overlap, one after the other. The files are ordinary ones.",
        metavar="SIZE",
        show_default=False,
        rich_help_panel=WORKERS,
    ),
]
Region = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REGION",
        help="Where quality counts more: x,y,width,height=weight in pixels, as 40,20,200,100=4, once or more; or "
        "a grey picture of the images' size, white counting most and black not at all; or a folder of "
        "such pictures, with the paths of the images.",
        show_default=False,
        rich_help_panel=SEARCH,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="How precisely the search calculates: auto, bf16 or fp32. Files are always written in fp32.",
        rich_help_panel=WORKERS,
    ),
]
Jobs = Annotated[
    int | None,
    default(
        "1; with --ray, what there is room for",
        "How many files to work on at a time, each in a process of its own. "
        "Another number gives files that are as good, but differ in some bytes.",
        WORKERS,
        min=1,
    ),
]
Readers = Annotated[
    int | None,
    default(
        "1; with --ray, what there is room for",
        "How many files to read and decode at a time, each in a process of its own.",
        WORKERS,
        min=1,
    ),
]
Threads = Annotated[
    int | None, default("its share of the cores", "CPU threads of each worker.", WORKERS, min=1)
]
Ray = Annotated[
    str | None,
    typer.Option(
        help="Work on a Ray cluster: local starts one here, auto finds one here, HOST:PORT is a head node. "
        "Install lof\\[ray] for it.",
        metavar="CLUSTER",
        show_default=False,
        rich_help_panel=WORKERS,
    ),
]
NumGpus = Annotated[
    float | None,
    default("1 if it has any", "GPUs of each worker of the cluster. 0.5 shares one.", WORKERS, min=0.0),
]
NoPortable = Annotated[
    bool,
    flag(
        "--no-portable",
        "Do not protect streams against CPUs with other instructions. Files cost 0.1 % less, but such a CPU may decode "
        "them to noise.",
        SEARCH,
    ),
]
Json = Annotated[bool, flag("--json", "Print one JSON object per file to stdout, and nothing else.", OUTPUT)]
Quiet = Annotated[bool, flag("--quiet", "Print errors only.", OUTPUT)]
