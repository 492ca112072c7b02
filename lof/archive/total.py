"""A size for all streams of an archive together, and what of it each image gets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from lof.archive.decide import Decider
from lof.archive.entries import Entry, Source, chunks
from lof.archive.events import OnEvent, Surveyed, Unchanged
from lof.archive.manifest import Manifest
from lof.archive.objects import LARGEST
from lof.archive.work import SearchItem, format_of
from lof.errors import ArchiveError, UsageError
from lof.jobs import JobSettings
from lof.jobs.survey import Survey
from lof.pictures.picture import Picture
from lof.pictures.reading import read_picture
from lof.pools import Finished, Pool

if TYPE_CHECKING:
    from lof.pools import Event as PoolEvent
    from lof.targets.total import Sizes


def share_anew(sources: Sequence[Source], decider: Decider) -> None:
    """Have all streams searched again where that is asked for and an image is to be searched anyway."""
    decider.anew = decider.policy.redo and next(_images(sources, decider), None) is not None


def find_shares(
    manifest: Manifest,
    sources: Sequence[Source],
    decider: Decider,
    settings: JobSettings,
    pool: Pool,
    on_event: OnEvent,
) -> dict[str, int]:
    """The most bytes for each image that is to be searched, by its path.

    Streams that were made with the same settings before, and stay, count: with them it is the size that is asked for.

    Raises:
        UsageError: they have taken it all, or nearly.
    """
    from lof.targets import shares

    share_anew(sources, decider)
    found: dict[str, Sizes | None] = {}

    def note(event: PoolEvent) -> None:
        if isinstance(event, Finished):
            found[event.item.path] = event.outcome
            on_event(Surveyed(len(found)))

    pool.run(_images(sources, decider), Survey(settings, _read, attrgetter("path")), note)
    total = settings.target.size if settings.target is not None else None
    assert total is not None
    streams = manifest.rows("state = 'streamed' AND settings = ?", decider.digest)
    left = total - sum(row.object_size for row in streams if row.path not in found)
    sizes = {path: points for path, points in found.items() if points is not None}
    parts = shares(sizes, left) if left > 0 else {}
    if sizes and (left <= 0 or sum(parts.values()) > left):
        raise UsageError(
            f"--total: {max(left, 0)} of {total} bytes are left for {len(sizes)} images; ask for more"
        )
    return parts


def _read(item: SearchItem) -> Picture:
    return read_picture(item.path, item.data)


def _images(sources: Sequence[Source], decider: Decider) -> Iterator[SearchItem]:
    """Those that are to be searched. What cannot be read is left to the search to tell."""
    for source in sources:
        try:
            for decision in decider.decide(source):
                if not isinstance(decision, Unchanged) and decision.verdict in ("look", "redo"):
                    data = _image_in(decision.entry)
                    known = decision.row if decision.verdict == "look" else None
                    if data and (known is None or known.sha256 != hashlib.sha256(data).hexdigest()):
                        yield SearchItem(decision.entry.path, data)
        except ArchiveError:
            continue


def _image_in(entry: Entry) -> bytes:
    """Empty for all else."""
    if entry.kind != "file" or entry.open is None or entry.size > LARGEST:
        return b""
    try:
        with entry.open() as reader:
            head = reader.read(12)
            return b"" if format_of(head) is None else b"".join(chunks(reader, head))
    except ArchiveError:
        return b""
