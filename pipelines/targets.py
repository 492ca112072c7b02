"""Sizes and qualities that are asked for: how close the files come, and what it takes.

    python -m pipelines.targets KODAK -o RUN --profile medium
    python -m pipelines.targets KODAK -o RUN --codec jpeg --count 6 --crop 256

For each picture a search without a target, then two with: its size, and its PSNR, as targets. So the table also says
what a target costs in quality or bytes. Time is processor time. Each row goes to ``RUN/results.jsonl``; the same
command continues, and leaves ``targets.md``.
"""

from __future__ import annotations

import time
from statistics import fmean
from typing import Any

import torch
import typer

import lof
from lof import Target
from lof.codecs import DEFAULT_CODEC, Codec, codec_for, load_codec
from lof.errors import TargetError
from lof.files.atomic import write_atomically
from lof.files.inputs import find
from lof.pictures.batches import Image, batches, spread
from lof.profiles import Profile, load_profile
from pipelines.command import CodecName, Count, Crop, Folder, ProfileName, Results, Threads, run
from pipelines.methods import Journal

BELOW, ABOVE = 1.0, 0.02
"""How near files are to come: per cent of a size, dB of a quality."""
HEAD = (
    "| picture | target | reached | away | without a target | plain encoding that meets it | time |\n"
    "| --- | --- | --- | --- | --- | --- | --- |\n"
)


def main(
    folder: Folder,
    *,
    out: Results,
    codec: CodecName = DEFAULT_CODEC,
    profile: ProfileName = "medium",
    count: Count = None,
    crop: Crop = None,
    threads: Threads = 1,
) -> None:
    """Measure what the journal lacks, and write the table."""
    torch.set_num_threads(threads)
    journal, plan = Journal(out / "results.jsonl"), load_profile(profile)
    lines = []
    loaded = load_codec(codec_for(codec, plan.name))
    weights = loaded.fingerprint.hex()[:8]
    for (image,) in batches(spread(find([folder], exclude=out).sources, count), crop, 1):
        key = f"{codec} {weights} {plan.digest} {image.digest[:16]}"
        if f"{key} size" not in journal.rows:
            for row in _measured(image, codec, loaded, plan):
                journal.append({"key": f"{key} {row['kind']}", "image": image.name} | row)
                typer.echo(f"{image.name}  {row['kind']}", err=True)
        lines += [journal.rows[f"{key} {kind}"] for kind in ("quality", "size")]
        write_atomically(out / "targets.md", _table(lines).encode())
    print(_table(lines))


def _measured(image: Image, codec: str, loaded: Codec, profile: Profile) -> list[dict[str, Any]]:
    lof.encode(image.picture, codec=loaded)  # what is compiled and loaded at the first use counts for nobody
    started = time.process_time()
    free = lof.optimize(image.picture, codec=loaded, profile=profile)
    without = time.process_time() - started
    rows = []
    for kind, target in (
        ("quality", Target(psnr=round(free.optimised.psnr, 2))),
        ("size", Target(size=free.optimised.size)),
    ):
        started = time.process_time()
        row: dict[str, Any] = {"kind": kind, "target": str(target), "free": free.record()["optimised"]}
        try:
            found = lof.optimize(image.picture, codec=codec, profile=profile, target=target).record()
            row |= {"reached": found["optimised"], "plain": found["baseline"], "kept": found["kept"]}
        except TargetError as error:
            row["error"] = str(error)
        rows.append(row | {"ratio": (time.process_time() - started) / without})
    return rows


def _table(rows: list[dict[str, Any]]) -> str:
    text = HEAD
    for row in rows:
        if "error" in row:
            text += f"| {row['image']} | {row['target']} | {row['error']} | | | | {row['ratio']:.2f} × |\n"
            continue
        reached, free, plain = (
            f"{row[k]['size']} B, {row[k]['psnr']:.3f} dB" for k in ("reached", "free", "plain")
        )
        cells = (row["image"], row["target"], reached, _away(row), free, plain, f"{row['ratio']:.2f} ×")
        text += f"| {' | '.join(cells)} |\n"
    return f"{text}\n{_summary(rows)}"


def _summary(rows: list[dict[str, Any]]) -> str:
    """Against the marks of :data:`BELOW` and :data:`ABOVE`, a line for each kind."""
    lines = []
    for kind, mark, unit in (("size", BELOW, "% below"), ("quality", ABOVE, "dB above")):
        found = [row for row in rows if row["kind"] == kind and "error" not in row]
        if not found:
            continue
        away = [abs(_distance(row)) for row in found]
        times = [row["ratio"] for row in found]
        if kind == "size":
            cost = f"{fmean(row['reached']['psnr'] - row['free']['psnr'] for row in found):+.3f} dB"
        else:
            cost = f"{100 * fmean(row['reached']['size'] / row['free']['size'] - 1 for row in found):+.2f} % bytes"
        lines.append(
            f"- {kind}: {sum(each <= mark for each in away)} of {len(found)} within {mark:g} {unit}, the farthest "
            f"{max(away):.3f}; {cost} against the search without a target; time {fmean(times):.2f} × of it on average, "
            f"at most {max(times):.2f} ×\n"
        )
    return "".join(lines)


def _away(row: dict[str, Any]) -> str:
    return f"{_distance(row):.2f} %" if row["kind"] == "size" else f"{_distance(row):+.3f} dB"


def _distance(row: dict[str, Any]) -> float:
    """Per cent of the size, or dB."""
    value = float(row["target"].split()[0])
    if row["kind"] == "size":
        return float(100 * (row["reached"]["size"] / value - 1))
    return float(row["reached"]["psnr"] - value)


if __name__ == "__main__":
    run(main)
