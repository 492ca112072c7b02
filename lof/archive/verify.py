"""``lof archive verify``: is everything there that the manifest names, and is it what it says?"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lof.archive.events import Checked, OnEvent
from lof.archive.manifest import Manifest, Row
from lof.archive.store import STORED, STREAMS, reading
from lof.archive.work import Decode, Decoded, DecodeItem
from lof.files.atomic import sha256
from lof.pools import Advanced, Event, Finished, Pool, Started

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

    Raises:
        ArchiveError: there is no archive, or its manifest cannot be read or is of a newer version.
        OutputError: a process is at work in it.
        WorkerError: workers cannot start.
    """
    started = time.perf_counter()
    with reading(dst) as manifest:
        job = _Verify(dst, manifest, on_event)
        broken = manifest.check()
        if broken is not None:
            job.found("damaged", manifest.path.name, f"{broken}; copy it back from a backup")
        pool.run(job.items(), Decode(weights, dst), job.listen)
        job.look_around()
        for source in manifest.sources():
            if source.error:
                job.found("failed", source.name, source.error)
    job.verdict.seconds = time.perf_counter() - started
    return job.verdict


class _Verify:
    def __init__(self, dst: Path, manifest: Manifest, on_event: OnEvent) -> None:
        self.dst, self.manifest, self.on_event = dst, manifest, on_event
        self.verdict = Verdict()

    def items(self) -> Iterator[DecodeItem]:
        """The streams that are the bytes of the manifest; everything else is judged on the way."""
        for row in self.manifest.rows():
            if row.error:
                self.found("failed", row.path, row.error)
            if row.kind == "hardlink" and self.manifest.brief(row.link) is None:
                self.found("missing", row.path, f"repeats {row.link}, which the archive does not have")
            if not row.object:
                continue
            if row.state == "streamed":
                stream = self._read(row)
                if stream is not None:
                    yield DecodeItem(row.path, stream, row.pixels_sha256 or "", row.symbols_sha256)
            else:
                self._check_stored(row)

    def listen(self, event: Event) -> None:
        """Judge what workers decoded; called by the pool."""
        match event:
            case Started(item, worker, attempt):
                self.on_event(Started(item.path, worker, attempt))
            case Advanced(item, progress):
                self.on_event(Advanced(item.path, progress))
            case Finished(DecodeItem(path), Decoded(_, error, checked, rounded)):
                self.verdict.streams += checked
                self.verdict.rounded += rounded
                if error:
                    self.found("damaged" if checked else "unchecked", path, error)
                self.on_event(Checked(path, error))

    def found(self, wrong: Wrong, name: str, error: str) -> None:
        """Note a finding."""
        self.verdict.findings.append(Finding(wrong, name, error))

    def look_around(self) -> None:
        """Find files that belong to no row."""
        for area in (STREAMS, STORED):
            for folder, _, names in os.walk(self.dst / area):
                for name in names:
                    place = Path(folder, name).relative_to(self.dst).as_posix()
                    if self.manifest.by_object(place) is None:
                        self.found(
                            "unexpected",
                            place,
                            "is not in the manifest; lof did not write it or lost its row",
                        )

    def _read(self, row: Row) -> bytes | None:
        try:
            stream = (self.dst / row.object).read_bytes()
        except OSError as error:
            self._unreadable(row, error)
            return None
        if hashlib.sha256(stream).hexdigest() != row.object_sha256:
            self._damaged(row)
            return None
        return stream

    def _check_stored(self, row: Row) -> None:
        try:
            digest = sha256(self.dst / row.object)
        except OSError as error:
            self._unreadable(row, error)
            return
        self.verdict.stored += 1
        if digest != row.object_sha256 or digest != row.sha256:
            self._damaged(row)
            return
        self.on_event(Checked(row.path))

    def _unreadable(self, row: Row, error: OSError) -> None:
        wrong: Wrong = "missing" if isinstance(error, FileNotFoundError | NotADirectoryError) else "damaged"
        self.found(wrong, row.path, f"{row.object} cannot be read ({error.strerror})")
        self.on_event(Checked(row.path, wrong))

    def _damaged(self, row: Row) -> None:
        self.found("damaged", row.path, f"{row.object} is not as it was written")
        self.on_event(Checked(row.path, "damaged"))
