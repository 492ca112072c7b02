"""``lof archive create``: from sources to streams, continued where it was left."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lof.archive.decide import Found, Policy, Verdict, decisions
from lof.archive.entries import Entry, Refused, chunks
from lof.archive.events import OnEvent, Settled, Unchanged
from lof.archive.manifest import Brief, Row, SourceRow
from lof.archive.names import object_name
from lof.archive.sources import Source
from lof.archive.staging import Staged
from lof.archive.store import STORED, STREAMS, Store
from lof.archive.weights import keep_weights
from lof.archive.work import (
    NO_IMAGE,
    TOO_LARGE,
    Floors,
    Kept,
    Search,
    SearchItem,
    Streamed,
    format_of,
)
from lof.errors import ArchiveError, UsageError
from lof.jobs import JobSettings
from lof.pools import Advanced, Event, Finished, Pool, Started

_UNREAD = "not read to its end yet; run `lof archive create` again"
LARGEST = 256 << 20
"""Bytes of the largest file that workers get; larger ones are stored as they are."""


@dataclass
class Summary:
    """What a call came to.

    Attributes:
        errors: path and what went wrong, of files and of whole sources.
        other_settings: files that were done with other settings before, and stay so.
    """

    streamed: int = 0
    stored: int = 0
    unchanged: int = 0
    other_settings: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    errors: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 if anything went wrong, else 0."""
        return 1 if self.errors else 0


def create(
    sources: Sequence[Source],
    dst: Path,
    settings: JobSettings,
    pool: Pool,
    *,
    floors: Floors = Floors(),
    policy: Policy = Policy(),
    moved: bool = False,
    on_event: OnEvent = lambda event: None,
) -> Summary:
    """Archive everything in ``sources``; what is in the archive already and unchanged is left as it is.

    Images become streams. What is no image, would not get smaller or misses a floor is stored byte for byte.
    Files that are gone from a source stay in the archive. Killed at any moment, the same call continues.
    Sources are only read.

    Args:
        sources: as from :func:`lof.archive.open_sources`.
        moved: the sources are allowed to be elsewhere than when they were archived before.
        on_event: called in this process and thread.

    Raises:
        UsageError: the settings fit no codec, or the archive holds another source of the same name.
        OutputError: ``dst`` cannot be written, or another process is at work in it.
        ArchiveError: ``dst`` is no archive and not empty, or its manifest is damaged or newer.
        WeightsError: the weights cannot be had.
        WorkerError: workers cannot start.
    """
    started = time.perf_counter()
    digest = settings_digest(settings, floors)
    with Store(dst, create=True) as store:
        _refuse_other_sources(store, sources, moved)
        keep_weights(dst, settings.load("cpu"))
        job = _Create(store, sources, digest, policy, on_event)
        pool.run(job.items(), Search(settings, floors), job.listen)
    job.summary.seconds = time.perf_counter() - started
    return job.summary


def settings_digest(settings: JobSettings, floors: Floors) -> str:
    """16 hexadecimal digits over everything that decides what becomes of an image."""
    content = f"{settings.digest(settings.load('cpu'))} {floors.psnr} {floors.ms_ssim}"
    return hashlib.sha256(content.encode()).hexdigest()[:16]


class _Create:
    def __init__(
        self, store: Store, sources: Sequence[Source], digest: str, policy: Policy, on_event: OnEvent
    ) -> None:
        self.store, self.sources, self.digest, self.policy = store, sources, digest, policy
        self.on_event = on_event
        self.summary = Summary()
        self.flying: dict[str, Row] = {}
        self.plain: list[Row] = []

    def items(self) -> Iterator[SearchItem]:
        """The images that workers have to see; all else is done on the way."""
        for source in self.sources:
            error = ""
            try:
                for decision in decisions(source, self.store, self.digest, self.policy):
                    if isinstance(decision, Unchanged):
                        self._pass(decision)
                    elif (item := self._look_at(*decision)) is not None:
                        yield item
            except ArchiveError as problem:
                error = str(problem)
                self.summary.errors.append((source.name, error))
            self._flush()
            self.store.manifest.put_source(SourceRow(source.name, str(source.path), source.container, error))

    def listen(self, event: Event) -> None:
        """Keep what workers made; called by the pool."""
        match event:
            case Started(item, worker, attempt):
                self.on_event(Started(item.path, worker, attempt))
            case Advanced(item, progress):
                self.on_event(Advanced(item.path, progress))
            case Finished(item, outcome):
                self._keep(item, outcome)

    def _look_at(self, found: Found, verdict: Verdict | None) -> SearchItem | None:
        entry, brief = found
        if isinstance(entry, Refused) or verdict is None:
            self._fail(Refused(entry.path, entry.container, getattr(entry, "error", "")), brief)
            return None
        if verdict.done:
            self.summary.other_settings += verdict.other_settings
            self._pass(Unchanged(1, entry.size))
            return None
        if entry.kind != "file":
            self._put_plain(entry, brief)
            return None
        try:
            return self._read(entry, brief, must_search=verdict.must_search)
        except ArchiveError as error:
            self._fail(Refused(entry.path, entry.container, str(error)), brief)
            return None

    def _read(self, entry: Entry, brief: Brief | None, *, must_search: bool) -> SearchItem | None:
        """Read a file: an image goes on to the workers, anything else is stored here and now."""
        data, staged, why = _content(entry, self.store)
        sha256 = staged.sha256 if staged else hashlib.sha256(data).hexdigest()
        row = _row(entry, sha256, staged.size if staged else len(data))
        if not must_search and brief is not None and self._only_touched(row):
            if staged is not None:
                staged.discard()
            return None
        if staged is not None:
            self._store(row, staged, why)
            return None
        self.flying[entry.path] = row
        return SearchItem(entry.path, data)

    def _only_touched(self, row: Row) -> bool:
        """Whether the content is what the archive has already; the times and mode are then noted."""
        known = self.store.manifest.get(row.path)
        if known is None or known.kind != "file" or known.sha256 != row.sha256 or known.error:
            return False
        self.store.commit(replace(known, mtime_ns=row.mtime_ns, mode=row.mode, container=row.container))
        self._pass(Unchanged(1, row.size))
        return True

    def _pass(self, unchanged: Unchanged) -> None:
        self.summary.unchanged += unchanged.files
        self.on_event(unchanged)

    def _keep(self, item: SearchItem, outcome: Streamed | Kept) -> None:
        row = self.flying.pop(item.path)
        if isinstance(outcome, Kept):
            staged = self.store.stage([item.data])
            self._store(row, staged, outcome.why, outcome.detail, outcome.error, outcome.seconds)
            return
        name = object_name(STREAMS, row.path, ".lof")
        row = replace(row, state="streamed", object=name, settings=self.digest, **outcome.columns)
        row = self.store.commit(row, self.store.stage([outcome.data]))
        self.summary.streamed += 1
        self._settled(row)

    def _store(
        self, row: Row, staged: Staged, why: str, detail: str = "", error: str = "", seconds: float = 0.0
    ) -> None:
        name = object_name(STORED, row.path)
        row = replace(
            row, why=why, detail=detail, error=error, object=name, settings=self.digest, seconds=seconds
        )
        row = self.store.commit(row, staged)
        self.summary.stored += 1
        self._settled(row)

    def _settled(self, row: Row) -> None:
        self.summary.bytes_in += row.size
        self.summary.bytes_out += row.object_size
        if row.error:
            self.summary.errors.append((row.path, row.error))
        self.on_event(Settled(row))

    def _put_plain(self, entry: Entry, brief: Brief | None) -> None:
        """A folder or link: nothing but its row."""
        row = _row(entry, "", 0)
        if brief is not None and brief.object:
            self.store.commit(row)
            return
        self.plain.append(row)
        if len(self.plain) >= 500:
            self._flush()

    def _flush(self) -> None:
        self.store.manifest.put(*self.plain)
        self.plain.clear()

    def _fail(self, refused: Refused, brief: Brief | None) -> None:
        """What is in the archive already stays; the error is noted beside it."""
        known = None if brief is None else self.store.manifest.get(refused.path)
        if known is None:
            row = Row(refused.path, "file", refused.container, "failed", error=refused.error)
        else:
            row = replace(known, error=refused.error)
        self.store.commit(row)
        self.summary.errors.append((row.path, row.error))
        self.on_event(Settled(row))


def _content(entry: Entry, store: Store) -> tuple[bytes, Staged | None, str]:
    """The bytes of an image; of anything else a staged copy, and why it is stored as it is."""
    assert entry.open is not None
    staged = None
    try:
        with entry.open() as reader:
            head = reader.read(12)
            if format_of(head) is not None and entry.size <= LARGEST:
                return b"".join(chunks(reader, head)), None, ""
            staged = store.stage(chunks(reader, head))
        return b"", staged, NO_IMAGE if format_of(head) is None else TOO_LARGE
    except BaseException:
        if staged is not None:
            staged.discard()
        raise


def _row(entry: Entry, sha256: str, size: int) -> Row:
    return Row(
        entry.path,
        entry.kind,
        entry.container,
        "stored",
        size=size,
        mtime_ns=entry.mtime_ns,
        mode=entry.mode,
        link=entry.link,
        sha256=sha256,
    )


def _refuse_other_sources(store: Store, sources: Sequence[Source], moved: bool) -> None:
    known = {row.name: row for row in store.manifest.sources()}
    for source in sources:
        before = known.get(source.name)
        if before is not None and before.path != str(source.path) and not moved:
            raise UsageError(
                f"{source.path}: the archive holds {source.name} from {before.path} already; "
                "add --moved if it is the same, now elsewhere, or rename it"
            )
        if before is None:
            store.manifest.put_source(SourceRow(source.name, str(source.path), source.container, _UNREAD))
