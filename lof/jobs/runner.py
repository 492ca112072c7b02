"""A job: many sources to one output folder, continued where it was left."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from lof import pools
from lof.errors import OutputError, UsageError, one_line
from lof.files.inputs import Source, output_path
from lof.files.storage import Location, is_remote, require_shared, sha256, size_and_version, walk
from lof.jobs.batches import batches
from lof.jobs.events import Advanced, Event, Finished, OnEvent, Record, Skipped, Started
from lof.jobs.identity import is_unchanged, place_of
from lof.jobs.manifest import Manifest, Row
from lof.jobs.own import REPORTS, reason_to_keep, refuse_others
from lof.jobs.remote_manifest import open_manifest, open_snapshot
from lof.jobs.settings import JobSettings
from lof.jobs.survey import find_shares
from lof.jobs.work import Optimise, failed_record
from lof.pools import Pool, ThisProcess, make_pool


@dataclass(frozen=True)
class Plan:
    """What a job would do.

    Attributes:
        todo: sources to work on.
        skipped: those that are done and unchanged, with their records.
        known: records of those of ``todo`` that are done and unchanged, but not yet compared with all other formats.
        replaced: those of ``todo`` whose stream was made with other settings.
        refused: those that will fail, with the records that say so: their streams would replace those of other pictures
            or ones that somebody has changed.
    """

    todo: list[Source] = field(default_factory=list)
    skipped: list[tuple[Source, Record]] = field(default_factory=list)
    replaced: list[Source] = field(default_factory=list)
    known: dict[Source, Record] = field(default_factory=dict)
    refused: list[tuple[Source, Record]] = field(default_factory=list)


@dataclass
class Summary:
    """What a job came to.

    Attributes:
        records: one per source of the call, in the order of the sources; a failed one has an ``error``.
        seconds: wall-clock time of the whole job.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    records: list[Record] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 if anything failed, else 0."""
        return 1 if self.failed else 0


def plan_job(sources: Sequence[Source], out: Location, settings: JobSettings, *, force: bool = False) -> Plan:
    """What :func:`run_job` would do; writes nothing.

    Raises:
        LofError: as :func:`run_job`.
    """
    digest = settings.digest(settings.load("cpu"), maps=False)
    written = _checked_outputs(sources, out, settings, force)
    with open_snapshot(out) as manifest:
        return _plan(sources, out, settings, digest, manifest, written, force)


def run_job(
    sources: Sequence[Source],
    out: Location,
    settings: JobSettings,
    *,
    jobs: int = 1,
    pool: Pool | None = None,
    batch: int = 1,
    redo: bool = False,
    force: bool = False,
    until: float | None = None,
    on_event: OnEvent = lambda event: None,
) -> Summary:
    """Optimise every source into ``out``; what is done already and unchanged is skipped.

    A source is unchanged while its size and time, or its SHA-256, its map in a folder of regions, and the settings are
    those of its row in the manifest, and its stream is on disk as it was written. Interrupted at any moment,
    the folder holds whole files only, and the same call continues. What is wrong with one image costs that image alone.
    Sources are never modified.

    Args:
        sources: as from :func:`lof.files.inputs.find`.
        jobs: images at a time. 1 works in this process; more work in fresh ones, so a script that calls
            this needs the ``if __name__ == "__main__"`` guard. Bytes may differ between different ``jobs``,
            see :func:`lof.pools.threads_per_worker`.
        pool: the workers, where they are not ``jobs`` processes here, see :func:`lof.pools.make_pool`.
        batch: images of one size that are searched together; more than 1 pays on GPUs.
        redo: replace streams in ``out`` that were made with other settings; with a total, all where there is a new one.
        force: replace files in ``out`` that lof did not write; and streams that somebody has changed or that are of
            pictures that lie elsewhere, without which these pictures are failures.
        until: a time as of :func:`time.time` after which searches end and keep the best that they have found.
        on_event: called in this process and thread.

    Raises:
        UsageError: the settings fit no codec, an output would overwrite a source, or, without ``redo``, a
            stream made with other settings, or, without ``force``, a file of somebody else.
        OutputError: ``out`` cannot be written, or another job is at work in it.
        WeightsError: the weights cannot be had.
        WorkerError: worker processes cannot start.
    """
    started = time.perf_counter()
    digest = settings.digest(settings.load("cpu"), maps=False)
    written = _checked_outputs(sources, out, settings, force)
    pool = pool or make_pool(jobs)
    if not isinstance(pool, ThisProcess):
        for place in [out, *(source.path for source in sources)]:
            require_shared(place)
    with open_manifest(out) as manifest:
        plan = _plan(sources, out, settings, digest, manifest, written, force)
        if plan.replaced and not redo:
            raise UsageError(
                f"{out}: holds streams made with other settings ({len(plan.replaced)} of these images); "
                "choose another folder with -o, or add --redo to replace them"
            )
        anew = settings.total and any(source not in plan.known for source in plan.todo)
        if anew and redo:
            plan.todo.extend(source for source, _ in plan.skipped)
            plan.skipped.clear()
            plan.known.clear()
        keeper = _Keeper(manifest, plan, digest, on_event)
        for source, record in plan.skipped:
            keeper(Skipped(source, record))
        for source, record in plan.refused:
            keeper(Finished(source, record))
        known = {source.relative.as_posix(): record for source, record in plan.known.items()}
        there = [*plan.skipped, *plan.known.items()]
        taken = {source.relative.as_posix(): record["optimised"]["size"] for source, record in there}
        refused = {source for source, _ in plan.refused}
        sharing = [source for source in sources if source not in refused]
        parts = find_shares(sharing, settings, pool, on_event, taken) if anew else {}
        work = Optimise(out, settings, until, known, parts)
        work.clean_up(tuple(plan.todo))
        in_order = isinstance(pool, ThisProcess) and batch == 1
        items = ((source,) for source in plan.todo) if in_order else batches(plan.todo, batch)
        pool.run(items, work, partial(_pass_on, keeper))
    summary = keeper.summary
    summary.records = [keeper.records[source] for source in sources]
    summary.seconds = time.perf_counter() - started
    return summary


class _Keeper:
    """Writes what was finished into the manifest, counts it, and passes the event on."""

    def __init__(self, manifest: Manifest, plan: Plan, digest: str, on_event: OnEvent) -> None:
        self.manifest, self.digest, self.on_event = manifest, digest, on_event
        self.before = {source: source.version or size_and_version(source.path) for source in plan.todo}
        self.summary = Summary()
        self.records: dict[Source, Record] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Skipped(source, record):
                self._note_place(source)
                self.summary.skipped += 1
                self.records[source] = record
            case Finished(source, record):
                if record["state"] == "done" or not self._was_done(source):
                    self.manifest.put(self._row(source, record))
                self.summary.done += record["state"] == "done"
                self.summary.failed += record["state"] == "failed"
                self.records[source] = record
        self.on_event(event)

    def _was_done(self, source: Source) -> bool:
        """What is known of a stream stays known where its picture fails now: it may be read again tomorrow."""
        row = self.manifest.get(source.relative.as_posix())
        return row is not None and row.state == "done"

    def _note_place(self, source: Source) -> None:
        """A folder that was moved is known by its content now; what changes in it later, by its place."""
        row, place = self.manifest.get(source.relative.as_posix()), place_of(source.path)
        if row is not None and row.place != place:
            self.manifest.put(replace(row, place=place))

    def _row(self, source: Source, record: Record) -> Row:
        # The time is from before the source was read: had it changed since, its hash would be asked.
        size, mtime_ns = self.before.get(source) or (0, 0)
        row = Row(source.relative.as_posix(), size, mtime_ns, self.digest, record["state"], record)
        if record["state"] != "done":
            return row
        return replace(
            row,
            size=record["source_size"],
            sha256=record["source_sha256"],
            output=record["output"],
            output_size=record["optimised"]["size"],
            output_sha256=record["output_sha256"],
            place=place_of(source.path),
        )


def _plan(
    sources: Sequence[Source],
    out: Location,
    settings: JobSettings,
    digest: str,
    manifest: Manifest | None,
    written: dict[str, tuple[int, int]] | None,
    force: bool,
) -> Plan:
    plan = Plan()
    for source in sources:
        row = manifest.get(source.relative.as_posix()) if manifest else None
        output = output_path(source, out, settings.suffix)
        whole = row is not None and row.state == "done" and _is_written(row, output, written)
        done = row if row is not None and row.is_done and whole else None
        if done is not None and done.settings == digest and is_unchanged(source, done, settings):
            if done.record.get("against", {}).keys() >= set(settings.against):
                plan.skipped.append((source, done.record | {"state": "skipped"}))
            else:
                plan.todo.append(source)
                plan.known[source] = done.record
            continue
        if row is not None and not force:
            reason = reason_to_keep(source, row, out, settings, written, whole=whole)
            if reason is not None:
                plan.refused.append((source, failed_record(source, reason)))
                continue
        plan.todo.append(source)
        if done is not None and done.settings != digest:
            plan.replaced.append(source)
    return plan


def _listed(out: Location) -> dict[str, tuple[int, int]] | None:
    if not is_remote(out):
        return None
    try:
        return walk(out)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OutputError(f"{out}: cannot be listed ({one_line(error)}); check its permissions") from error


def _is_written(row: Row, output: Location, written: dict[str, tuple[int, int]] | None) -> bool:
    """Whether a stream is there and whole. In a store its length decides: to read it would be to fetch it."""
    if written is not None:
        return row.output_size == written.get(row.output, (None, None))[0]
    try:
        return os.stat(str(output)).st_size == row.output_size and sha256(output) == row.output_sha256
    except OSError:
        return False


def _pass_on(keeper: _Keeper, event: pools.Event) -> None:
    """An event about a batch becomes one for each of its images."""
    match event:
        case Started(batch, worker, attempt):
            for source in batch:
                keeper(Started(source, worker, attempt))
        case Advanced(batch, (places, progress)):
            for place, gain in zip(places, progress.gain, strict=True):
                keeper(Advanced(batch[place], replace(progress, gain=[gain])))
        case Finished(batch, records, attempt):
            for source, record in zip(batch, records, strict=True):
                if record["state"] == "done" and attempt > 1:
                    record["notes"].append("done at the second attempt, its first worker process died")
                keeper(Finished(source, record, attempt))
        case _:
            keeper(event)


def _checked_outputs(
    sources: Sequence[Source], out: Location, settings: JobSettings, force: bool
) -> dict[str, tuple[int, int]] | None:
    """What a store holds below ``out``, see :func:`_listed`, once it is known that nothing would be lost."""
    _refuse_to_overwrite(sources, out, settings)
    written = _listed(out)
    if not force:
        refuse_others(sources, out, settings, written)
    return written


def _refuse_to_overwrite(sources: Sequence[Source], out: Location, settings: JobSettings) -> None:
    inputs = {identity: source.path for source in sources if (identity := _identity(source.path))}
    outputs = [output_path(source, out, settings.suffix) for source in sources]
    for output in [*outputs, *(out / name for name in REPORTS)]:
        if (identity := _identity(output)) in inputs:
            raise UsageError(
                f"{output}: would overwrite the input {inputs[identity]}; choose another folder with -o"
            )


def _identity(path: Location) -> tuple[int, int] | str | None:
    if is_remote(path):
        return str(path)
    try:
        status = os.stat(str(path))
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
