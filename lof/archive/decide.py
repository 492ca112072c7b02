"""The resume decision: which entries have to be worked on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lof.archive.entries import Entry, Source
from lof.archive.events import Unchanged
from lof.archive.folder import FolderSource
from lof.archive.manifest import Manifest, Outline
from lof.archive.names import to_bytes
from lof.archive.objects import is_whole
from lof.archive.schema import Row
from lof.archive.store import Listing
from lof.archive.walk import Seen
from lof.archive.work import BELOW_FLOOR, LOST, NOT_SMALLER

_MANY = 1000  # files that are done, told of at once

Verdict = Literal["done", "other settings", "look", "redo", "fail"]
"""What to do about an entry: nothing; nothing, though it was done with other settings; work on it if its content turns
out to be new; work on it in any case; note that it cannot be archived."""


class Decision(NamedTuple):
    """An entry, its row if the archive has one, and what to do about it."""

    entry: Entry
    row: Row | None
    verdict: Verdict


@dataclass(frozen=True)
class Policy:
    """What counts as done.

    Attributes:
        redo: not what was done with other settings. Where all streams share a size and an image is to be searched, not
            what was done with the same settings either: :func:`lof.archive.total.share_anew`.
        recheck: only what is whole, which means to read every object.
    """

    redo: bool = False
    recheck: bool = False


class Decider:
    """Decides about the entries of sources.

    Args:
        manifest: ``None`` if there is no archive yet.
        digest: of the settings of now.

    Attributes:
        anew: whether every stream is to be searched again.
    """

    anew = False

    def __init__(self, manifest: Manifest | None, digest: str, policy: Policy) -> None:
        self.manifest, self.digest, self.policy = manifest, digest, policy
        self.objects = None if manifest is None else Listing(manifest.path.parent)

    def decide(self, source: Source) -> Iterator[Unchanged | Decision]:
        """What to do about each entry of a source.

        Most files of a folder are done, as an outline of their row tells: they come many at once, and of the
        others alone is more looked up.
        """
        if self.manifest is None or not isinstance(source, FolderSource) or self.policy.recheck or self.anew:
            yield from map(self._about, source.entries())
            return
        files = size = 0
        outlines = self.manifest.outlines(source.name, self.digest)
        for seen, outline in _side_by_side(source.seen(), outlines):
            done = outline is not None and seen[:4] == outline[:4] and self._has(outline[4])
            if done:
                files, size = files + 1, size + seen[2]
            if files == _MANY or (files and not done):
                yield Unchanged(files, size)
                files = size = 0
            if not done:
                yield self._about(source.entry(seen))
        if files:
            yield Unchanged(files, size)

    def _about(self, entry: Entry) -> Decision:
        row = None if self.manifest is None else self.manifest.get(entry.path)
        return Decision(entry, row, "fail" if entry.error else self._verdict(entry, row))

    def _verdict(self, entry: Entry, row: Row | None) -> Verdict:
        if row is None or row.kind != entry.kind:
            return "redo"
        same = (entry.mtime_ns, entry.mode) == (row.mtime_ns, row.mode)
        if entry.kind != "file":
            return "done" if same and entry.link == row.link and not row.error else "look"
        other = row.settings != self.digest
        by_settings = row.why in (NOT_SMALLER, BELOW_FLOOR, LOST)
        again = self.anew or (other and self.policy.redo)
        if row.error or (other and by_settings) or (again and not row.why):
            return "redo"
        if not self._has(row.object) or (self.policy.recheck and not self._is_whole(row)):
            return "redo"
        if not same or entry.size != row.size:
            return "look"
        return "other settings" if other and not row.why else "done"

    def _has(self, name: str) -> bool:
        return self.objects is not None and self.objects.has(name)

    def _is_whole(self, row: Row) -> bool:
        return self.manifest is not None and is_whole(self.manifest.path.parent, row)


def _side_by_side(items: Iterator[Seen], rows: Iterator[Outline]) -> Iterator[tuple[Seen, Outline | None]]:
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
