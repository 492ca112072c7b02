"""The ablation of JointIQ: which figures stand in which row of which table, and against what."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lof.report.figures import percent
from pipelines.ablation import BEFORE, BLOCKS, to_markdown

NAMES = [BEFORE, *(variant.name for block in BLOCKS for variant in block)]
PSNR = {name: 1 - 0.03 * number for number, name in enumerate(NAMES)}
"""The rate for the same PSNR, by row, with that of the first row as 1."""
MS_SSIM = {name: 1 - 0.05 * number for number, name in enumerate(NAMES)}
SIZES = {name: 1_250_000 * (number + 2) for number, name in enumerate(NAMES)}
POINTS = ((2, 0.1, 28.0, 10.0), (4, 0.2, 31.0, 13.0), (6, 0.4, 34.0, 16.0))
"""Straight lines of 3 dB an octave: quality, bits per pixel, PSNR, MS-SSIM in dB."""


def rows() -> list[dict[str, Any]]:
    """Of two pictures whose means are those points, and whose times have a mean of 1, 2, … seconds."""
    found = []
    for number, name in enumerate(NAMES):
        for quality, bpp, psnr, decibels in POINTS:
            for sign in (-1, 1):
                shown = decibels + 3 * math.log2(PSNR[name] / MS_SSIM[name]) + sign
                found.append(
                    {
                        "row": name,
                        "quality": quality,
                        "image": f"{sign}",
                        "bpp": PSNR[name] * bpp * (1 + 0.2 * sign),
                        "psnr": psnr + sign,
                        "ms_ssim": 1 - 10 ** (-shown / 10),
                        "seconds": number + 1 + 0.5 * sign,
                    }
                )
    return found


def tables(text: str) -> list[list[list[str]]]:
    """Cells of all tables, without their heads."""
    found: list[list[list[str]]] = []
    for line in text.splitlines():
        if line.startswith("| |"):
            found.append([])
        elif line.startswith("| ") and not line.startswith("| ---"):
            found[-1].append(line.strip("| ").split(" | "))
    return found


@pytest.mark.parametrize("block", range(3))
def test_every_row_has_its_own_figures_against_the_row_that_counts(block: int) -> None:
    own = [variant.name for variant in BLOCKS[block]]
    names = own if block == 1 else [BEFORE, *own]
    anchor = {0: "lapped's probability model", 1: "no enhancement", 2: BEFORE}[block]
    assert tables(to_markdown(rows(), SIZES, 20, 15))[block] == [
        [
            name,
            percent(PSNR[name] / PSNR[anchor] - 1),
            percent(MS_SSIM[name] / MS_SSIM[anchor] - 1),
            f"{NAMES.index(name) + 1}.00",
            f"{1.25 * (NAMES.index(name) + 2):.2f}",
        ]
        for name in names
    ]


def test_each_table_says_how_long_its_rows_were_trained_and_the_last_line_what_all_of_it_brings() -> None:
    lines = to_markdown(rows(), SIZES, 20, 15).splitlines()
    assert [line for line in lines if "steps" in line] == [
        "20 steps for each row but the first:",
        "15 steps for each row:",
        "15 steps for each row but the first:",
    ]
    heads = [line for line in lines if line.startswith("| |")]
    assert heads == ["| | BD-rate, PSNR | BD-rate, MS-SSIM | seconds to decode | million parameters |"] * 3
    whole = percent(PSNR["+ GRDN, jointly"] - 1)
    assert lines[-1] == f"All of it, jointly trained, against lapped, as it ships: {whole} BD-rate in PSNR."


def test_a_figure_that_pictures_are_too_small_for_is_absent_and_the_others_stay() -> None:
    small = [row | {"ms_ssim": None} for row in rows()]
    for table, full in zip(*(tables(to_markdown(r, SIZES, 20, 15)) for r in (small, rows())), strict=True):
        assert table == [[name, psnr, "–", *others] for name, psnr, _, *others in full]
