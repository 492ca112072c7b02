"""The resume decision: which entries have to be worked on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from lof.archive.entries import Entry, Refused
from lof.archive.manifest import Brief, Manifest, Outline
from lof.archive.names import to_bytes
from lof.archive.sources import Source
from lof.archive.store import Store
from lof.archive.work import BELOW_FLOOR, NOT_SMALLER
from lof.files import sha256

Row = TypeVar("Row", Brief, Outline)


class Found(NamedTuple):
    """An entry, and its row in brief if the archive has one."""

    entry: Entry | Refused
    brief: Brief | None


class Verdict(NamedTuple):
    """What to do about an entry.

    Attributes:
        done: nothing.
        must_search: even if its content turns out to be what the archive has already.
        other_settings: it was done with other settings than those of now.
    """

    done: bool
    must_search: bool
    other_settings: bool


_DONE, _CHANGED, _AGAIN = (
    Verdict(True, False, False),
    Verdict(False, False, False),
    Verdict(False, True, False),
)


@dataclass(frozen=True)
class Policy:
    """What counts as done.

    Attributes:
        redo: not what was done with other settings.
        recheck: only what is whole, which means to read every object.
    """

    redo: bool = False
    recheck: bool = False

    def verdict(self, entry: Entry, brief: Brief | None, digest: str, store: Store) -> Verdict:
        """Decide about an entry; ``digest`` is that of the settings."""
        if brief is None or brief.kind != entry.kind:
            return _AGAIN
        same = (entry.mtime_ns, entry.mode) == (brief.mtime_ns, brief.mode)
        if entry.kind != "file":
            return _DONE if same and entry.link == brief.link and not brief.error else _CHANGED
        other = brief.settings != digest
        by_settings = brief.why in (NOT_SMALLER, BELOW_FLOOR)
        if brief.error or (other and by_settings) or (other and self.redo and not brief.why):
            return _AGAIN
        if not store.has(brief.object) or (self.recheck and not _is_whole(brief, store)):
            return _AGAIN
        if not same or entry.size != brief.size:
            return _CHANGED
        return Verdict(True, False, True) if other and not brief.why else _DONE


def decisions(
    source: Source, store: Store, digest: str, policy: Policy
) -> Iterator[tuple[Found, Verdict | None]]:
    """What to do about each entry of a source; ``None`` for those that cannot be archived.

    Of most files of a folder an outline of their row tells that they are done, so only of the others the row
    is read; a found one then comes without it.
    """
    if source.container != "folder" or policy.recheck:
        for entry, brief in entries_with_rows(source, store.manifest):
            known = Found(entry, brief)
            yield known, None if isinstance(entry, Refused) else policy.verdict(entry, brief, digest, store)
        return
    outlines = store.manifest.outlines(source.name, digest)
    for entry, outline in _side_by_side(source.entries(), outlines):
        if isinstance(entry, Refused):
            yield Found(entry, store.manifest.brief(entry.path)), None
            continue
        if outline is not None:
            _, size, mtime_ns, mode, name, done = outline
            if (
                done
                and (size, mtime_ns, mode) == (entry.size, entry.mtime_ns, entry.mode)
                and store.has(name)
            ):
                yield Found(entry, None), _DONE
                continue
        brief = None if outline is None else store.manifest.brief(entry.path)
        yield Found(entry, brief), policy.verdict(entry, brief, digest, store)


def entries_with_rows(source: Source, manifest: Manifest) -> Iterator[Found]:
    """The entries of a source, each with its row."""
    if source.container == "folder":
        for entry, brief in _side_by_side(source.entries(), manifest.briefs(source.name)):
            yield Found(entry, brief)
        return
    for entry in source.entries():
        yield Found(entry, manifest.brief(entry.path))


def _side_by_side(
    entries: Iterator[Entry | Refused], rows: Iterator[Row]
) -> Iterator[tuple[Entry | Refused, Row | None]]:
    """Entries and rows, both sorted by the bytes of their paths; a row's first field is its path."""
    row = next(rows, None)
    for entry in entries:
        path = entry.path
        while row is not None and row[0] != path and to_bytes(row[0]) < to_bytes(path):
            row = next(rows, None)
        if row is not None and row[0] == path:
            yield entry, row
            row = next(rows, None)
        else:
            yield entry, None


def _is_whole(brief: Brief, store: Store) -> bool:
    row = store.manifest.get(brief.path)
    return row is not None and sha256(store.folder / row.object) == row.object_sha256
