"""Which images go to a worker together, and in which order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from lof.errors import LofError
from lof.files.inputs import Source
from lof.pictures.reading import read_size

Batch = tuple[Source, ...]
"""Images of one size by their headers."""

Size = tuple[int, int] | None

WINDOW = 64
"""How many images ahead are looked at."""

_MOST_PIXELS = 2**24  # of a batch of several; larger images have no need of company
_READERS = 8  # headers in a store take a round trip each


def batches(sources: Iterable[Source], most: int, window: int = WINDOW) -> Iterator[Batch]:
    """Group images of one size, up to ``most`` at once; of what is in sight, full and large batches first.

    A large image that came last would hold up the end of the job while other workers stand idle. At most
    ``window`` images are held, whatever the number of sources; sizes come from the headers.
    """
    waiting: dict[Size, deque[Source]] = {}
    held = 0
    sources = iter(sources)
    with ThreadPoolExecutor(_READERS) as readers:
        while True:
            seen = list(islice(sources, window - held))
            for source, size in zip(seen, readers.map(size_of, seen), strict=True):
                waiting.setdefault(size, deque()).append(source)
            held += len(seen)
            if not held:
                return
            size = max(waiting, key=lambda s: (len(waiting[s]) >= _fitting(s, most), _pixels(s)))
            group = waiting[size]
            batch = tuple(group.popleft() for _ in range(min(len(group), _fitting(size, most))))
            if not group:
                del waiting[size]
            held -= len(batch)
            yield batch


def size_of(source: Source) -> Size:
    """Width and height by the header, or ``None`` where that holds no image that lof takes."""
    try:
        return read_size(source.path)
    except LofError:
        return None


def _fitting(size: Size, most: int) -> int:
    return max(1, min(most, _MOST_PIXELS // max(1, _pixels(size))))


def _pixels(size: Size) -> int:
    return size[0] * size[1] if size else 0
