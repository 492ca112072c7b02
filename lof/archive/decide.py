"""The resume decision: which entries have to be worked on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from lof.archive.entries import Entry, Refused
from lof.archive.manifest import Brief, Manifest
from lof.archive.names import to_bytes
from lof.archive.sources import Source
from lof.archive.store import Store
from lof.archive.work import BELOW_FLOOR, NOT_SMALLER
from lof.files import sha256


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
        if store.size_of(brief.object) != brief.object_size or (self.recheck and not _is_whole(brief, store)):
            return _AGAIN
        if not same or entry.size != brief.size:
            return _CHANGED
        return Verdict(True, False, True) if other and not brief.why else _DONE


def entries_with_rows(source: Source, manifest: Manifest) -> Iterator[Found]:
    """The entries of a source, each with its row.

    A folder's entries come in the order of the manifest, so both are read once, side by side.
    """
    if source.container != "folder":
        for entry in source.entries():
            yield Found(entry, manifest.brief(entry.path))
        return
    rows = manifest.briefs(source.name)
    row = next(rows, None)
    for entry in source.entries():
        path = entry.path
        if row is not None and row.path == path:
            yield Found(entry, row)
            row = next(rows, None)
            continue
        while row is not None and to_bytes(row.path) < to_bytes(path):
            row = next(rows, None)
        yield Found(entry, row if row is not None and row.path == path else None)


def _is_whole(brief: Brief, store: Store) -> bool:
    row = store.manifest.get(brief.path)
    return row is not None and sha256(store.folder / row.object) == row.object_sha256
