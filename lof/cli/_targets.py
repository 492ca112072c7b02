"""The options that ask for a size or a quality, and what they come to."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

import typer

from lof.cli._options import SEARCH, flag
from lof.errors import UsageError
from lof.results import Target

_SIZE = re.compile(r"(\d{1,15}(?:\.\d*)?|\.\d+)\s*(?:([kMG])(i?))?B?", re.IGNORECASE)
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3}


def _option(name: str, metavar: str, help: str) -> Any:
    return typer.Option(name, help=help, metavar=metavar, show_default=False, rich_help_panel=SEARCH)


TargetBytes = Annotated[
    str | None,
    _option(
        "--target-bytes",
        "SIZE",
        "The most bytes for each file, such as 200k or 1.5M (k is 1000): the best file that is not larger, over all "
        "qualities, or at --quality alone.",
    ),
]
TargetBpp = Annotated[float | None, _option("--target-bpp", "BITS", "The same in bits per pixel.")]
TargetPsnr = Annotated[
    float | None,
    _option("--target-psnr", "DB", "The least PSNR of each file in dB: the smallest file that is not below."),
]
TargetPsnrInside = Annotated[
    float | None,
    _option(
        "--target-psnr-inside",
        "DB",
        "The least PSNR in dB of the pixels inside a --region: those that count more than the mean.",
    ),
]
TargetMsSsim = Annotated[
    float | None, _option("--target-ms-ssim", "SHARE", "The least MS-SSIM of each file, below 1.")
]

Total = Annotated[
    bool,
    flag(
        "--total",
        "Take --target-bytes as the size of all files together, shared out so that the sum of their errors is least.",
        SEARCH,
    ),
]

MinPsnr = Annotated[
    float | None,
    typer.Option(help="In dB. An image whose stream would be below is stored as it is.", show_default=False),
]
MinMsSsim = Annotated[
    float | None,
    typer.Option(
        "--min-ms-ssim",
        min=0,
        max=1,
        help="An image whose stream would be below, or that is too small for it, is stored as it is.",
        show_default=False,
    ),
]


def target_of(
    size: str | None,
    bpp: float | None,
    psnr: float | None,
    ms_ssim: float | None,
    psnr_inside: float | None = None,
) -> Target | None:
    """What the options ask for, if anything.

    Raises:
        UsageError: several of them, or a value that is out of range.
    """
    given = [
        name
        for name, value in {
            "bytes": size,
            "bpp": bpp,
            "psnr": psnr,
            "psnr-inside": psnr_inside,
            "ms-ssim": ms_ssim,
        }.items()
        if value is not None
    ]
    if not given:
        return None
    if len(given) > 1:
        raise UsageError(f"{' and '.join(f'--target-{name}' for name in given)}: give one of them")
    try:
        most = None if size is None else parse_size(size)
        return Target(size=most, bpp=bpp, psnr=psnr, ms_ssim=ms_ssim, psnr_inside=psnr_inside)
    except UsageError as error:
        raise UsageError(f"--target-{given[0]}: {error}") from error


def memory_of(text: str) -> int:
    """Bytes that ``--memory`` allows.

    Raises:
        UsageError: it is no size.
    """
    try:
        return parse_size(text)
    except UsageError:
        raise UsageError(f"--memory {text!r}: is no size; give one such as 4GB or 500M") from None


def parse_size(text: str) -> int:
    """Bytes of ``200000``, ``200k``, ``200 kB``, ``1.5M`` or ``64KiB``.

    Raises:
        UsageError: it is none of these.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no size; give one such as 200k, 1.5M or 200000")
    number, unit, binary = match.groups()
    return int(Fraction(number) * (1024 if binary else 1000) ** _UNITS[(unit or "").lower()])
