"""``lof archive create``: from sources to streams, continued where it was left."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from lof.archive.decide import Decider, Decision, Policy
from lof.archive.entries import Entry, Source, chunks
from lof.archive.events import OnEvent, Outcome, Settled, Unchanged, listener
from lof.archive.manifest import NAME, Manifest, SourceRow
from lof.archive.objects import LARGEST
from lof.archive.schema import Row
from lof.archive.store import Store
from lof.archive.total import find_shares, share_anew
from lof.archive.weights import keep_weights
from lof.archive.work import NO_IMAGE, TOO_LARGE, Floors, Kept, Search, SearchItem, Streamed, format_of
from lof.errors import ArchiveError, UsageError
from lof.files.atomic import Staged
from lof.jobs import JobSettings
from lof.pools import Pool
from lof.results import Target

_UNREAD = "not read to its end yet; run `lof archive create` again"


@dataclass
class Summary(Outcome):
    """What a call of :func:`create` came to.

    Attributes:
        other_settings: files that were done with other settings before, and stay so.
        notes: what was done to pictures or dropped of them, and in how many; with the first one's path.
    """

    streamed: int = 0
    stored: int = 0
    unchanged: int = 0
    other_settings: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    notes: dict[str, tuple[int, str]] = field(default_factory=dict)


class Planned(NamedTuple):
    """What :func:`create` would do with a file: search a stream, store it as it is, leave it, fail at it."""

    path: str
    size: int
    do: Literal["search", "store", "unchanged", "fail"]
    error: str = ""


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
    Sources are only read. What cannot be archived is a failure in the manifest until it gets in, is gone from its
    source or is left out.

    Args:
        sources: as from :func:`lof.archive.open_sources`.
        moved: the sources are allowed to be elsewhere than when they were archived before.
        on_event: called in this process and thread.

    Raises:
        UsageError: the settings fit no codec, or the archive holds another source of the same name.
        OutputError: ``dst`` cannot be written, or another process is at work in it.
        ArchiveError: ``dst`` is no archive and not empty, or its manifest is damaged or of another version.
        WeightsError: the weights cannot be had.
        WorkerError: workers cannot start.
    """
    started = time.perf_counter()
    digest = settings_digest(settings, floors)
    with Store(dst, create=True) as store:
        _refuse_other_sources(store.manifest, sources, moved)
        first = settings.load("cpu")
        keep_weights(dst, first)
        decider = Decider(store.manifest, digest, policy)
        parts = (
            find_shares(store.manifest, sources, decider, settings, pool, on_event) if settings.total else {}
        )
        job = _Create(store, sources, decider, settings, parts, on_event)
        job.kept.add(first.fingerprint.hex())
        for source in sources:
            job.put_source(source, _UNREAD)
        pool.run(job.items(), Search(settings, floors), listener(on_event, job.keep))
        job.close_failures()
    job.summary.seconds = time.perf_counter() - started
    return job.summary


def plan(
    sources: Sequence[Source],
    dst: Path,
    settings: JobSettings,
    *,
    floors: Floors = Floors(),
    policy: Policy = Policy(),
    moved: bool = False,
) -> Iterator[Planned | Unchanged]:
    """What :func:`create` would do, file by file; nothing is written. Errors are those of :func:`create`."""
    digest = settings_digest(settings, floors)
    manifest = Manifest(dst) if (dst / NAME).is_file() else None
    try:
        if manifest is not None:
            _refuse_other_sources(manifest, sources, moved)
        decider = Decider(manifest, digest, policy)
        if settings.total:
            share_anew(sources, decider)
        for source in sources:
            try:
                for decision in decider.decide(source):
                    if isinstance(decision, Unchanged):
                        yield decision
                    elif decision.entry.kind == "file" or decision.entry.error:
                        yield _planned(decision)
            except ArchiveError as error:
                yield Planned(source.name, 0, "fail", str(error))
    finally:
        if manifest is not None:
            manifest.close()


def settings_digest(settings: JobSettings, floors: Floors) -> str:
    """16 hexadecimal digits over everything that decides what becomes of an image.

    Raises:
        UsageError: the settings fit no codec.
    """
    content = f"{settings.digest(settings.load('cpu'))} {floors.psnr} {floors.ms_ssim}"
    return hashlib.sha256(content.encode()).hexdigest()[:16]


class _Create:
    def __init__(
        self,
        store: Store,
        sources: Sequence[Source],
        decider: Decider,
        settings: JobSettings,
        shares: Mapping[str, int],
        on_event: OnEvent,
    ) -> None:
        self.store, self.sources, self.decider, self.on_event = store, sources, decider, on_event
        self.settings, self.shares = settings, shares
        self.summary = Summary()
        self.flying: dict[str, Row] = {}
        self.plain: list[Row] = []
        self.complete: list[Source] = []
        self.kept: set[str] = set()

    def items(self) -> Iterator[SearchItem]:
        """The images that workers have to see; all else is done on the way."""
        for source in self.sources:
            error = ""
            try:
                for decision in self.decider.decide(source):
                    if isinstance(decision, Unchanged):
                        self._pass(decision)
                    else:
                        yield from self._look_at(*decision)
                self.complete.append(source)
            except ArchiveError as problem:
                error = str(problem)
                self.summary.errors.append((source.name, error))
            self._flush()
            self.put_source(source, error)

    def keep(self, item: SearchItem, outcome: Streamed | Kept) -> None:
        """Keep what workers made; called by the pool."""
        row = self.flying.pop(item.path)
        if isinstance(outcome, Streamed):
            row = replace(row, state="streamed", settings=self.decider.digest, **outcome.columns)
            self._keep_weights(row)
            self.summary.streamed += 1
            self._settled(self.store.commit(row, self.store.stage([outcome.data])))
        else:
            row = replace(row, why=outcome.why, detail=outcome.detail, error=outcome.error)
            self._store(replace(row, seconds=outcome.seconds), self.store.stage([item.data]))

    def _keep_weights(self, row: Row) -> None:
        """For a target a stream may have another quality than the first, whose weights may be others."""
        assert row.fingerprint is not None
        if row.fingerprint not in self.kept:
            keep_weights(self.store.folder, self.settings.load("cpu", quality=row.quality))
            self.kept.add(row.fingerprint)

    def put_source(self, source: Source, error: str) -> None:
        """Note how far a source has been read."""
        exclude = json.dumps(source.exclude)
        self.store.manifest.put_source(
            SourceRow(source.name, str(source.path), source.origin, exclude, error)
        )

    def close_failures(self) -> None:
        """Forget what failed before and is there no more, in sources that were read to their end."""
        still_open = {path for path, _ in self.summary.errors}
        for source in self.complete:
            self.store.manifest.close_failures(source.name, still_open)

    def _look_at(self, entry: Entry, row: Row | None, verdict: str) -> Iterator[SearchItem]:
        if verdict == "fail":
            self._fail(entry, row, entry.error)
        elif verdict in ("done", "other settings"):
            self.summary.other_settings += verdict == "other settings"
            self._pass(Unchanged(1, entry.size))
        elif entry.kind != "file":
            self._put_plain(entry, row)
        else:
            try:
                yield from self._read(entry, row if verdict == "look" else None)
            except ArchiveError as error:
                self._fail(entry, row, str(error))

    def _read(self, entry: Entry, known: Row | None) -> Iterator[SearchItem]:
        """Read a file: an image goes on to the workers, anything else is stored here and now.

        Args:
            known: its row, if nothing is to be done where the content is what the row says.
        """
        data, staged, why = _content(entry, self.store)
        sha256 = staged.sha256 if staged else hashlib.sha256(data).hexdigest()
        row = _row(entry, sha256, staged.size if staged else len(data))
        if known is not None and known.sha256 == sha256:
            if staged is not None:
                staged.discard()
            self.store.commit(replace(known, mtime_ns=row.mtime_ns, mode=row.mode, origin=row.origin))
            self._pass(Unchanged(1, row.size))
        elif staged is not None:
            self._store(replace(row, why=why), staged)
        else:
            self.flying[entry.path] = row
            yield SearchItem(
                entry.path,
                data,
                settings=self._own_settings(entry.path),
                map=_map_of(entry.path, self.settings),
            )

    def _own_settings(self, path: str) -> JobSettings | None:
        """Those of one image, where it has a share of a size for all."""
        size = self.shares.get(path)
        return None if size is None else replace(self.settings, target=Target(size=size), total=False)

    def _pass(self, unchanged: Unchanged) -> None:
        self.summary.unchanged += unchanged.files
        self.on_event(unchanged)

    def _store(self, row: Row, staged: Staged) -> None:
        self.summary.stored += 1
        self._settled(self.store.commit(replace(row, settings=self.decider.digest), staged))

    def _settled(self, row: Row) -> None:
        self.summary.bytes_in += row.size
        self.summary.bytes_out += row.object_size
        for note in filter(None, row.notes.split("\n")):
            count, first = self.summary.notes.get(note, (0, row.path))
            self.summary.notes[note] = count + 1, first
        if row.error:
            self.summary.errors.append((row.path, row.error))
        self.on_event(Settled(row))

    def _put_plain(self, entry: Entry, known: Row | None) -> None:
        """A folder or link: nothing but its row."""
        row = _row(entry, "", 0)
        if known is not None and known.object:
            self.store.commit(row)
            return
        self.plain.append(row)
        if len(self.plain) >= 500:
            self._flush()

    def _flush(self) -> None:
        self.store.manifest.put(*self.plain)
        self.plain.clear()

    def _fail(self, entry: Entry, known: Row | None, error: str) -> None:
        """What is in the archive already stays; the error is noted beside it."""
        self._flush()  # a folder that cannot be listed has been put down as a folder before
        known = known or self.store.manifest.get(entry.path)
        row = known or replace(_row(entry, "", 0), state="failed")
        row = self.store.commit(replace(row, error=error))
        self.summary.errors.append((row.path, error))
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


def _map_of(path: str, settings: JobSettings) -> bytes | None:
    """The file that says how much each pixel of an image counts, if there is one; the source's name is no part of
    where it lies.

    Raises:
        ArchiveError: it cannot be read.
    """
    if settings.regions is None or settings.regions.maps is None:
        return None
    place = settings.regions.map_of(PurePosixPath(*PurePosixPath(path).parts[1:]))
    try:
        return None if place is None else place.read_bytes()
    except OSError as error:
        raise ArchiveError(
            f"its map {place} cannot be read ({error.strerror}); check its permissions"
        ) from error


def _row(entry: Entry, sha256: str, size: int) -> Row:
    return Row(
        entry.path,
        entry.kind,
        entry.origin,
        "stored",
        size=size,
        mtime_ns=entry.mtime_ns,
        mode=entry.mode,
        link=entry.link,
        sha256=sha256,
    )


def _planned(decision: Decision) -> Planned:
    entry, _, verdict = decision
    if entry.error or entry.open is None:
        return Planned(entry.path, entry.size, "fail", entry.error)
    if verdict in ("done", "other settings"):
        return Planned(entry.path, entry.size, "unchanged")
    try:
        with entry.open() as reader:
            image = format_of(reader.read(12)) is not None and entry.size <= LARGEST
    except ArchiveError as error:
        return Planned(entry.path, entry.size, "fail", str(error))
    return Planned(entry.path, entry.size, "search" if image else "store")


def _refuse_other_sources(manifest: Manifest, sources: Sequence[Source], moved: bool) -> None:
    known = {row.name: row.path for row in manifest.sources()}
    for source in sources:
        before = known.get(source.name) or str(source.path)  # a rebuilt manifest does not know
        if before != str(source.path) and not moved:
            raise UsageError(
                f"{source.path}: the archive holds {source.name} from {before} already; "
                "add --moved if it is the same, now elsewhere, or rename it"
            )
