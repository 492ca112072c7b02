"""``lof archive verify``: is everything there that the manifest names, and is it what it says?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lof.archive import objects
from lof.archive.events import Checked, OnEvent, listener
from lof.archive.manifest import Manifest
from lof.archive.store import reading
from lof.archive.weights import kept_weights
from lof.archive.work import Decode, Decoded, DecodeItem
from lof.pools import Pool

Wrong = Literal["damaged", "missing", "unchecked", "unexpected", "failed"]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. ``name`` is a path in the archive, or a file below DST."""

    wrong: Wrong
    name: str
    error: str


@dataclass
class Verdict:
    """What a check came to. ``findings`` is empty if all is well.

    Attributes:
        rounded: streams that were read right and in whose images this machine rounds single pixels otherwise
            than the one that wrote them.
    """

    streams: int = 0
    rounded: int = 0
    stored: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 if anything was found, else 0."""
        return 1 if self.findings else 0


def verify(
    dst: Path, pool: Pool, *, weights: Path | None = None, on_event: OnEvent = lambda event: None
) -> Verdict:
    """Decode every stream, read every stored file, compare all with the manifest; nothing is written.

    What :func:`lof.archive.create` failed at, and nobody has mended since, is a finding too.

    Raises:
        ArchiveError: there is no archive, or its manifest is damaged, of another version, or holds what lof never
            writes.
        OutputError: a process is at work in it.
        WorkerError: workers cannot start.
    """
    started = time.perf_counter()
    with reading(dst) as manifest:
        manifest.check()
        job = _Verify(dst, manifest, weights, on_event)
        pool.run(job.items(), Decode(), listener(on_event, job.judge))
        job.look_around()
        for path, error in manifest.failures():
            job.found("failed", path, error)
    job.verdict.seconds = time.perf_counter() - started
    return job.verdict


class _Verify:
    def __init__(self, dst: Path, manifest: Manifest, weights: Path | None, on_event: OnEvent) -> None:
        self.dst, self.manifest, self.weights, self.on_event = dst, manifest, weights, on_event
        self.verdict = Verdict()

    def items(self) -> Iterator[DecodeItem]:
        """The streams that are the bytes of the manifest; everything else is judged on the way."""
        for row in self.manifest.rows():
            if row.kind == "hardlink" and self.manifest.get(row.link) is None:
                self.found("missing", row.path, f"repeats {row.link}, which the archive does not have")
            try:
                if row.state == "streamed":
                    stream = objects.stream(self.dst, row)
                    yield DecodeItem.of(row, stream, self.weights or kept_weights(self.dst, row))
                elif row.object:
                    self.verdict.stored += 1
                    for _ in objects.content(self.dst, row):
                        pass
                    self.on_event(Checked(row.path))
            except objects.ObjectError as error:
                self.found(error.wrong, row.path, str(error))
                self.on_event(Checked(row.path, error.wrong))

    def judge(self, item: DecodeItem, decoded: Decoded) -> None:
        """Judge what workers decoded; called by the pool."""
        self.verdict.streams += decoded.checked
        self.verdict.rounded += decoded.rounded
        if decoded.error:
            self.found("damaged" if decoded.checked else "unchecked", item.path, decoded.error)
        self.on_event(Checked(item.path, decoded.error))

    def found(self, wrong: Wrong, name: str, error: str) -> None:
        """Note a finding."""
        self.verdict.findings.append(Finding(wrong, name, error))

    def look_around(self) -> None:
        """Find files that belong to no row."""
        for name in objects.names_in(self.dst):
            if self.manifest.by_object(name) is None:
                self.found("unexpected", name, "is not in the manifest; lof did not write it or lost its row")
