"""How long an archive of a million files takes to say what it holds, and to decide what needs work.

    python -m pipelines.manifest_scale WORK --files 1000000

Makes that many source files and objects, all empty, and a manifest with a row for each; changes three of the
sources and removes one object. Then: ``status`` is what ``lof archive status`` asks the manifest, ``decision`` is
what ``lof archive create`` does before it works on anything: walk the source, look at every file, list every
object, compare both with the rows. Measured twice: right after the files were made, and again.
"""

from __future__ import annotations

import hashlib
import os
import resource
import time
from pathlib import Path
from typing import Annotated

import typer

from lof.archive import Manifest, Policy, Row, open_sources
from lof.archive.decide import Decider, Decision
from lof.archive.entries import Entry
from lof.archive.manifest import STREAMS
from lof.archive.names import object_name
from lof.archive.store import Store
from pipelines.command import run

_EMPTY = hashlib.sha256().hexdigest()
_BATCH, _FOLDER = 5000, 1000


def main(work: Path, files: Annotated[int, typer.Option(min=10)] = 1_000_000) -> None:
    """Make, measure, print."""
    source, dst = work / "photos", work / "archive"
    for number in range(files):
        _touch(source / f"{number // _FOLDER:04}" / f"{number}.png")
    (found,) = open_sources([str(source)], dst)
    started = time.perf_counter()
    with Store(dst, create=True) as store:
        batch = []
        for entry in found.entries():
            batch.append(_row(entry))
            if entry.kind == "file":
                _touch(dst / batch[-1].object)
            if len(batch) == _BATCH:
                store.manifest.put(*batch)
                batch.clear()
        store.manifest.put(*batch)
    print(f"made {files} rows and objects in {time.perf_counter() - started:.1f} s")
    for number in range(3):
        (source / "0000" / f"{number}.png").write_text("changed")
    (dst / STREAMS / source.name / "0000" / "9.png.lof").unlink()
    for _ in range(2):
        started = time.perf_counter()
        with Manifest(dst) as manifest:
            held = sum(total.files for total in manifest.totals())
            manifest.failures(20)
            manifest.count_failures()
        print(f"status: {held} entries in {time.perf_counter() - started:.3f} s")
        started = time.perf_counter()
        with Store(dst) as store:
            todo = [
                decision.entry.path
                for decision in Decider(store.manifest, "", Policy()).decide(found)
                if isinstance(decision, Decision) and decision.verdict != "done"
            ]
        print(f"decision: {len(todo)} to do, in {time.perf_counter() - started:.2f} s: {', '.join(todo[:9])}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"size of the manifest {os.stat(dst / 'manifest.sqlite').st_size / 1e6:.0f} MB, peak memory {peak:.0f} MB"
    )


def _touch(path: Path) -> None:
    try:
        handle = os.open(path, os.O_CREAT | os.O_WRONLY)
    except FileNotFoundError:
        path.parent.mkdir(parents=True)
        handle = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.close(handle)


def _row(entry: Entry) -> Row:
    if entry.kind != "file":
        return Row(entry.path, entry.kind, entry.origin, "stored", mtime_ns=entry.mtime_ns, mode=entry.mode)
    return Row(
        entry.path,
        "file",
        "folder",
        "streamed",
        sha256=_EMPTY,
        object=object_name(STREAMS, entry.path, ".lof"),
        object_sha256=_EMPTY,
        codec="tiny",
        quality_64=4 * 64,
        metric="mse",
        fingerprint=_EMPTY,
        profile="medium",
        profile_digest=_EMPTY[:16],
        lmbda=0.013,
        seed=0,
        format="PNG",
        height=512,
        width=768,
        bpp=0.4,
        psnr=32.0,
        ms_ssim=0.98,
        cost=0.9,
        pixels_sha256=_EMPTY,
        symbols_sha256=_EMPTY,
        mtime_ns=entry.mtime_ns,
        mode=entry.mode,
    )


if __name__ == "__main__":
    run(main)
