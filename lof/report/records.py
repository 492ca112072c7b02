"""Records as the reports see them: plain dictionaries, and what a job amounts to.

A record is ``Result.record()`` with ``source``, ``output``, ``source_size``, ``source_sha256``,
``output_sha256``, ``notes`` and ``state`` (``done``, ``failed``, ``skipped``), and ``map_sha256`` where a folder of
regions has a map of it. A failed one has ``source``,
``state`` and ``error`` only. JSON has no infinity: the PSNR of a lossless result is the string ``"inf"``
there, and either form is understood here. MS-SSIM is ``None`` (``null``) where the image is too small. ``against``,
where other formats were asked for, has the bytes that each needs at the same PSNR, ``None`` where it does not reach it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]


def to_json(record: Record) -> str:
    """One line of strict JSON: infinity as ``"inf"``, ASCII only, so that any file name survives."""
    return json.dumps(_strict(record), allow_nan=False)


def number(value: Any) -> float | None:
    """A figure of a record, from memory or from JSON (``"inf"``)."""
    return None if value is None else float(value)


def in_order(records: Iterable[Record]) -> list[Record]:
    """Sorted by source: no report depends on the order in which workers finished."""
    return sorted(records, key=lambda record: str(record["source"]))


def measured(records: Iterable[Record]) -> list[Record]:
    """Those that have figures: done now, or skipped because they were done before."""
    return [record for record in records if record["state"] != "failed" and "optimised" in record]


def reached(record: Record) -> list[str]:
    """What was asked for and what it came to, as ``19 998 bytes for 20000 bytes``; nothing where nothing was."""
    target, found = record.get("target"), record.get("optimised")
    if not target or not found:
        return []
    if target.endswith("bytes"):
        return [f"{found['size']} for {target}"]
    if target.endswith("bpp"):
        return [f"{found['bpp']:.4f} for {target}"]
    if target.endswith("inside"):
        return [f"{number(found['psnr_inside']):.3f} for {target}"]
    return [
        f"{number(found['psnr']):.3f} for {target}"
        if target.endswith("dB")
        else f"{found['ms_ssim']:.5f} for {target}"
    ]


def total_reached(records: Iterable[Record]) -> str | None:
    """What a size for all files together came to, as ``19998 bytes of 20000 for all together``."""
    rows = [row for row in measured(records) if "total" in row]
    size = sum(row["optimised"]["size"] for row in rows)
    return f"{size} bytes of {rows[0]['total']} for all together" if rows else None


def failed(records: Iterable[Record]) -> list[Record]:
    """Those that have an error instead."""
    return [record for record in records if record["state"] == "failed"]


def by_change(records: Sequence[Record], most: int) -> list[Record]:
    """The ``most`` records whose rate changed most, in the given order."""
    ranked = sorted(range(len(records)), key=lambda i: -abs(records[i]["rate_change"]))
    return [records[i] for i in sorted(ranked[:most])]


@dataclass(frozen=True)
class Totals:
    """What the measured records amount to. Means are over pictures, each counting once.

    Attributes:
        before, after: bytes of all plain encodings, and of the files written.
        bpp, psnr, ms_ssim: means before and after; MS-SSIM over the pictures that have one, else ``None``.
        rate_change: mean change of rate at equal quality, as a share.
        plain: pictures that kept the plain encoding.
    """

    pictures: int
    before: int
    after: int
    bpp: tuple[float, float]
    psnr: tuple[float, float]
    ms_ssim: tuple[float | None, float | None]
    rate_change: float
    evaluations: int
    seconds: float
    plain: int


def totals(records: Iterable[Record]) -> Totals | None:
    """Sums and means, or ``None`` where nothing was measured."""
    rows = measured(records)
    if not rows:
        return None

    def sides(key: str) -> tuple[list[Any], list[Any]]:
        return [row["baseline"][key] for row in rows], [row["optimised"][key] for row in rows]

    before, after = (sum(side) for side in sides("size"))
    bpp, psnr, ms_ssim = (tuple(_mean(side) for side in sides(key)) for key in ("bpp", "psnr", "ms_ssim"))
    return Totals(
        pictures=len(rows),
        before=before,
        after=after,
        bpp=(bpp[0] or 0.0, bpp[1] or 0.0),
        psnr=(psnr[0] or 0.0, psnr[1] or 0.0),
        ms_ssim=(ms_ssim[0], ms_ssim[1]),
        rate_change=sum(row["rate_change"] for row in rows) / len(rows),
        evaluations=sum(row["evaluations"] for row in rows),
        seconds=sum(row["seconds"] for row in rows),
        plain=sum(row["kept"] == "plain" for row in rows),
    )


@dataclass(frozen=True)
class Beside:
    """lof's files beside another format's of the same PSNR, over the pictures for which both are known.

    Attributes:
        name: the format's.
        asked: pictures for which it was asked, also those whose PSNR it does not reach.
        theirs, ours: bytes.
    """

    name: str
    asked: int
    pictures: int
    theirs: int
    ours: int

    @property
    def label(self) -> str:
        """The name, and of how many pictures the figures are where that is not all of them."""
        few = f" ({self.pictures} of {self.asked} pictures)" if self.pictures < self.asked else ""
        return f"{self.name}{few}"

    @property
    def change(self) -> float | None:
        """By how much lof's files are larger, as a share."""
        return self.ours / self.theirs - 1 if self.theirs else None


def beside(records: Iterable[Record]) -> list[Beside]:
    """One for each format that was asked for."""
    rows = [row for row in measured(records) if "against" in row]
    found = []
    for name in dict.fromkeys(name for row in rows for name in row["against"]):
        asked = [(row["against"][name], row["optimised"]["size"]) for row in rows if name in row["against"]]
        known = [pair for pair in asked if pair[0] is not None]
        theirs, ours = (sum(pair[i] for pair in known) for i in (0, 1))
        found.append(Beside(name, len(asked), len(known), theirs, ours))
    return found


def distinct(records: Iterable[Record], key: str) -> list[Any]:
    """The values that a key has, each once, sorted."""
    return sorted({record[key] for record in records})


def _mean(values: Iterable[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return value
