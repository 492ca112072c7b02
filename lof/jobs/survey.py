"""A size for all images of a job together, and what of it each of them gets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from lof import pools
from lof.errors import UsageError
from lof.files.inputs import Source
from lof.jobs.events import Surveyed
from lof.jobs.settings import JobSettings
from lof.jobs.work import read_source, without_metadata
from lof.pictures.picture import Picture
from lof.pools import Finished, Pool, Work

if TYPE_CHECKING:
    from lof.targets import Ladder
    from lof.targets.total import Sizes

_log = logging.getLogger(__name__)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Survey(Work[Item, "Ladder", "Sizes | None"]):
    """The sizes of each image's plain encodings; ``None`` for one that has none, as the job itself will say why.

    Attributes:
        read: makes the picture of an item, in the worker; a module's function, as it travels pickled.
        name: what the item is called in a dashboard; likewise.
    """

    settings: JobSettings
    read: Callable[[Item], Picture]
    name: Callable[[Item], object]

    def open(self) -> Ladder:
        return self.settings.ladder()

    def do(self, tool: Ladder, item: Item, report: Callable[[Any], None]) -> Sizes | None:
        from lof.targets import plain_sizes

        settings = self.settings
        try:
            picture, _ = without_metadata(self.read(item), settings)
            return plain_sizes(
                picture,
                tool,
                format=settings.format,
                metric=settings.metric,
                portable=settings.portable,
                memory=settings.memory,
            )
        except Exception:
            _log.debug("an image has no share of the total", exc_info=True)
            return None

    def lost(self, item: Item, reason: str) -> None:
        return None

    def label(self, item: Item) -> str:
        return f"survey {self.name(item)}"


def _read(source: Source) -> Picture:
    return read_source(source.path)[0]


def find_shares(
    sources: Sequence[Source],
    settings: JobSettings,
    pool: Pool,
    on_event: Callable[[Surveyed], None],
    taken: Mapping[str, int],
) -> dict[str, int]:
    """The most bytes for each source that can be read, by its relative path; together the size that is asked for.

    A job that goes on gives the others the shares that they would have had. Where these are too much, as pictures have
    come to it since, they share what is left.

    Args:
        taken: bytes of the streams that are there and stay.

    Raises:
        UsageError: there are more files than bytes left.
    """
    from lof.targets import shares

    found: dict[str, Sizes] = {}
    done = 0

    def note(event: pools.Event) -> None:
        nonlocal done
        if isinstance(event, Finished):
            done += 1
            if event.outcome is not None:
                found[event.item.relative.as_posix()] = event.outcome
            on_event(Surveyed(done, len(sources)))

    pool.run(iter(sources), Survey(settings, _read, attrgetter("relative")), note)
    total = settings.target.size if settings.target is not None else None
    assert total is not None
    others = {name: sizes for name, sizes in found.items() if name not in taken}
    left = total - sum(taken.values())
    parts = {name: size for name, size in shares(found, total).items() if name in others}
    if sum(parts.values()) > left > 0:
        parts = shares(others, left)
    if sum(parts.values()) > left:
        again = ", or add --redo to share it out anew" if taken else ""
        raise UsageError(
            f"--total: {max(left, 0)} of {total} bytes are left for {len(others)} images; ask for more{again}"
        )
    return parts
