"""The run's log, one JSON object a line, and its plot."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import NoneType
from typing import Any

from lof.errors import OutputError
from lof.files.atomic import write_atomically
from lof.files.storage import read_bytes

Record = dict[str, Any]
_FIGURE = (int, float, NoneType)
_KINDS: dict[str, type | tuple[type, ...]] = {
    "kind": str,
    "rung": int,
    "step": int,
    "total_step": int,
    "quality": _FIGURE,
    "loss": _FIGURE,
    "bpp": _FIGURE,
    "psnr": _FIGURE,
}


class Journal:
    """Appends records; a crash costs at most the line being written.

    ``position`` of the run, ``(rung, step)``, is part of every record as ``rung`` and ``step``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Record) -> None:
        """Add one line and hand it to the operating system.

        Raises:
            OutputError: the file cannot be written.
        """
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(record).encode() + b"\n")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); free its disk") from error

    def read(self) -> list[Record]:
        """All records; a torn last line is left out.

        Raises:
            OutputError: the file cannot be read, or is damaged before its last line.
        """
        try:
            lines = read_bytes(self.path).split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be read ({error.strerror}); move it away") from error
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict) or not all(
                isinstance(record.get(key), kinds) for key, kinds in _KINDS.items()
            ):
                raise OutputError(
                    f"{self.path}: is damaged in line {number}; move it away to begin a new log"
                )
            records.append(record)
        return records

    def cut_after(self, rung: int, step: int) -> None:
        """Drop what was logged after a position, and a torn tail: a resumed run will log it again."""
        kept = [r for r in self.read() if (r["rung"], r["step"]) <= (rung, step)]
        write_atomically(self.path, b"".join(json.dumps(r).encode() + b"\n" for r in kept))


def plot(records: list[Record], path: Path) -> None:
    """Loss, rate and quality over the steps of all rungs, as a PNG; crosses are real files.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 9), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    for axis, key, label in zip(
        axes, ("loss", "bpp", "psnr"), ("loss", "bits per pixel", "PSNR in dB"), strict=True
    ):
        for kind, style in (("train", "-"), ("validation", "x")):
            # A validation of one network for all rates has a line for each quality.
            qualities = dict.fromkeys(r.get("quality") for r in records) if kind == "validation" else [None]
            for quality in qualities:
                points = [
                    (r["total_step"], r[key])
                    for r in records
                    if r["kind"] == kind and r.get(key) is not None and quality in (None, r.get("quality"))
                ]
                if points:
                    axis.plot(
                        *zip(*points, strict=True),
                        style,
                        label=kind if quality is None else f"quality {quality:.10g}",
                    )
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[0].legend(handles=axes[0].get_lines())
    axes[-1].set_xlabel("step")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())
