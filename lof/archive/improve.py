"""``lof archive improve``: come back with more effort, starting from the streams that are there."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lof.archive import objects
from lof.archive.entries import Entry, Source, chunks
from lof.archive.events import OnEvent, Outcome, Settled, listener
from lof.archive.schema import Row
from lof.archive.store import Store
from lof.archive.weights import kept_weights
from lof.archive.work import FOR_METRIC, FOR_REGION, FOR_TARGET, Kept, Search, SearchItem, Streamed
from lof.errors import ArchiveError, UsageError
from lof.jobs import JobSettings
from lof.pools import Pool


@dataclass
class Improved(Outcome):
    """What a call of :func:`improve` came to.

    Attributes:
        before, after: bytes of the replaced streams.
        gain: mean relative change of their cost, rate + λ·distortion; -0.01 is 1 % lower.
        kept: streams whose search found nothing better.
        tried: streams that the same search was tried on before, and those that were made for a target or a region.
        missing: streams whose original is not in the sources.
    """

    replaced: int = 0
    kept: int = 0
    tried: int = 0
    missing: int = 0
    before: int = 0
    after: int = 0
    gain: float = 0.0


def improve(
    dst: Path,
    sources: Sequence[Source],
    settings: JobSettings,
    pool: Pool,
    *,
    on_event: OnEvent = lambda event: None,
) -> Improved:
    """Search further from every stream whose original is in ``sources``; codec, quality and λ stay its own.

    A stream is replaced only by one of lower true cost, which has been decoded. The search that a stream was
    tried with is noted, so that the same call continues where it was stopped.

    Args:
        sources: as from :func:`lof.archive.open_sources`, under the names that they have in the archive.
        settings: profile, seed, device, precision and weights of the search; the rest is each stream's own.

    Raises:
        UsageError: the archive has no source of that name.
        OutputError, ArchiveError, WorkerError: as :func:`lof.archive.create`.
    """
    started = time.perf_counter()
    with Store(dst) as store:
        _refuse_unknown_names(store, sources)
        job = _Improve(store, sources, settings, on_event)
        pool.run(job.items(), Search(job.first_settings()), listener(on_event, job.keep))
        streams = sum(total.files for total in store.manifest.totals() if total.state == "streamed")
    job.summary.missing = streams - job.seen
    job.summary.seconds = time.perf_counter() - started
    return job.summary


def _refuse_unknown_names(store: Store, sources: Sequence[Source]) -> None:
    known = [row.name for row in store.manifest.sources()]
    for source in sources:
        if source.name not in known:
            raise UsageError(
                f"{source.path}: the archive has no source {source.name}, only {', '.join(known)}; "
                "give it the name that it had"
            )


class _Improve:
    def __init__(
        self, store: Store, sources: Sequence[Source], settings: JobSettings, on_event: OnEvent
    ) -> None:
        self.store, self.sources, self.settings, self.on_event = store, sources, settings, on_event
        self.search = f"{settings.profile.digest} {settings.seed}"
        self.summary, self.seen = Improved(), 0
        self.flying: dict[str, Row] = {}

    def first_settings(self) -> JobSettings:
        """Those of the first stream; workers load its codec, with the weights that the archive keeps."""
        first = next(self.store.manifest.rows("state = 'streamed'"), None)
        return self.settings if first is None else self._own(first)

    def items(self) -> Iterator[SearchItem]:
        """The streams to search further, with their originals."""
        for source in self.sources:
            try:
                for entry in source.entries():
                    row = None if entry.open is None else self.store.manifest.get(entry.path)
                    if row is not None and row.state == "streamed":
                        self.seen += 1
                        yield from self._look_at(entry, row)
            except ArchiveError as problem:
                self.summary.errors.append((source.name, str(problem)))

    def keep(self, item: SearchItem, outcome: Streamed | Kept) -> None:
        """Replace what became better; called by the pool."""
        row = self.flying.pop(item.path)
        if isinstance(outcome, Streamed):
            columns = outcome.columns | {"seconds": row.seconds + outcome.columns["seconds"]}
            staged = self.store.stage([outcome.data])
            older, row = row, self.store.commit(replace(row, tried=self.search, **columns), staged)
            self._count(older, row)
        elif outcome.error:
            self._wrong(row, outcome.error)
            return
        else:
            row = self.store.commit(replace(row, tried=self.search, seconds=row.seconds + outcome.seconds))
            self.summary.kept += 1
        self.on_event(Settled(row))

    def _look_at(self, entry: Entry, row: Row) -> Iterator[SearchItem]:
        notes = row.notes.split("\n")
        if row.tried == self.search or any(note.startswith((FOR_TARGET, FOR_REGION)) for note in notes):
            self.summary.tried += 1
            return
        try:
            assert entry.open is not None
            with entry.open() as reader:
                data = b"".join(chunks(reader))
            if hashlib.sha256(data).hexdigest() != row.sha256:
                raise ArchiveError("its original has changed; run `lof archive create` for it first")
            stream = objects.stream(self.store.folder, row)
        except ArchiveError as error:
            remedy = "; run `lof archive create --recheck`" if isinstance(error, objects.ObjectError) else ""
            self._wrong(row, f"{error}{remedy}")
            return
        self.flying[row.path] = row
        cost = math.inf if row.cost is None else row.cost
        yield SearchItem(row.path, data, stream, cost, self._own(row))

    def _own(self, row: Row) -> JobSettings:
        """What a stream was made with."""
        metrics = [
            note.removeprefix(FOR_METRIC) for note in row.notes.split("\n") if note.startswith(FOR_METRIC)
        ]
        return replace(
            self.settings,
            codec=row.codec or self.settings.codec,
            quality=row.quality,
            metric=next(iter(metrics), row.metric or self.settings.metric),
            lmbda=row.lmbda,
            weights=self.settings.weights or kept_weights(self.store.folder, row),
        )

    def _count(self, older: Row, row: Row) -> None:
        summary = self.summary
        summary.before += older.object_size
        summary.after += row.object_size
        summary.replaced += 1
        if older.cost and row.cost:
            summary.gain += (row.cost / older.cost - 1 - summary.gain) / summary.replaced

    def _wrong(self, row: Row, error: str) -> None:
        """Nothing changes: the stream in the archive is as good as before."""
        self.summary.errors.append((row.path, error))
        self.on_event(Settled(replace(row, error=error)))
