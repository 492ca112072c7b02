"""The resume decision: which entries have to be worked on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from lof.archive.entries import Entry, Refused
from lof.archive.events import Unchanged
from lof.archive.folder import FolderSource
from lof.archive.manifest import Brief, Manifest, Outline
from lof.archive.names import to_bytes
from lof.archive.sources import Source
from lof.archive.store import Store
from lof.archive.walk import Seen
from lof.archive.work import BELOW_FLOOR, NOT_SMALLER
from lof.files.atomic import sha256

Item = TypeVar("Item", bound=tuple[Any, ...])
Row = TypeVar("Row", Brief, Outline)
_MANY = 1000  # files that are done, told of at once


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
) -> Iterator[Unchanged | tuple[Found, Verdict | None]]:
    """What to do about each entry of a source; ``None`` for those that cannot be archived.

    Most files of a folder are done, as an outline of their row tells: they come many at once, and of the
    others alone is more looked up.
    """
    if not isinstance(source, FolderSource) or policy.recheck:
        for found in entries_with_rows(source, store.manifest):
            yield found, _verdict(found, digest, store, policy)
        return
    files = size = 0
    outlines = store.manifest.outlines(source.name, digest)
    for seen, outline in _side_by_side(source.seen(), outlines):
        done = outline is not None and _is_done(seen, outline, store)
        if done:
            files, size = files + 1, size + seen[2]
        if files == _MANY or (files and not done):
            yield Unchanged(files, size)
            files = size = 0
        if not done:
            found = Found(source.entry(seen), store.manifest.brief(seen[0]))
            yield found, _verdict(found, digest, store, policy)
    if files:
        yield Unchanged(files, size)


def entries_with_rows(source: Source, manifest: Manifest) -> Iterator[Found]:
    """The entries of a source, each with its row."""
    if source.container == "folder":
        for entry, brief in _side_by_side(source.entries(), manifest.briefs(source.name)):
            yield Found(entry, brief)
        return
    for entry in source.entries():
        yield Found(entry, manifest.brief(entry.path))


def _side_by_side(items: Iterator[Item], rows: Iterator[Row]) -> Iterator[tuple[Item, Row | None]]:
    """What is in a source, each with its row; both are sorted by the bytes of their first field, the path."""
    row = next(rows, None)
    for item in items:
        path = item[0]
        while row is not None and row[0] != path and to_bytes(row[0]) < to_bytes(path):
            row = next(rows, None)
        if row is not None and row[0] == path:
            yield item, row
            row = next(rows, None)
        else:
            yield item, None


def _is_done(seen: Seen, outline: Outline, store: Store) -> bool:
    return seen[:4] == outline[:4] and store.has(outline[4])


def _verdict(found: Found, digest: str, store: Store, policy: Policy) -> Verdict | None:
    entry, brief = found
    return None if isinstance(entry, Refused) else policy.verdict(entry, brief, digest, store)


def _is_whole(brief: Brief, store: Store) -> bool:
    row = store.manifest.get(brief.path)
    return row is not None and sha256(store.folder / row.object) == row.object_sha256
