"""Memory of a search: refused where it cannot fit, kept from step to step where there is plenty."""

from __future__ import annotations

import ctypes
from types import TracebackType

import psutil
import torch

from lof.errors import SearchError

PLENTY = 3
"""Times what a search needs must be free for :class:`MemoryKept` to act; it may come to use a good part of that."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h


def require_memory(needed: int, device: torch.device, what: str) -> None:
    """Refuse work that cannot fit, before the system's out-of-memory killer does.

    Args:
        needed: bytes at the peak, estimated.
        what: the subject of the message, for example ``a 9000×6000 image``.

    Raises:
        SearchError: less is free.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed > free:
        raise SearchError(
            f"{what} needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free; "
            f"cut it into parts, lower --jobs, or use a larger machine"
        )


class MemoryKept:
    """While it lasts, memory that this process frees stays with it for the next step; all goes back at the end.

    glibc hands large blocks back at once, and the system clears each page anew when the next step asks for
    them: a million page faults for a Kodak image with ``fast``, a third of the time of a search on 3 megapixels.
    Blocks that are kept do not always fit what is asked for next, so it takes more memory, and does nothing
    where less than :data:`PLENTY` times what is needed is free, or with another C library than glibc.

    Args:
        needed: bytes of the search at its peak, estimated.
    """

    def __init__(self, needed: int) -> None:
        self.needed = needed
        self._libc = ctypes.CDLL(None)
        self._process = psutil.Process()
        self._start = 0
        self.active = False

    def __enter__(self) -> MemoryKept:
        plenty = psutil.virtual_memory().available > PLENTY * self.needed
        self.active = plenty and hasattr(self._libc, "mallopt")
        if self.active:
            self._start = self._process.memory_info().rss
            self._libc.mallopt(_M_MMAP_MAX, 0)
            self._libc.mallopt(_M_TRIM_THRESHOLD, -1)
        return self

    def check(self) -> None:
        """Between two steps: give back what is free, should that have become more than a step can use."""
        if self.active and self._process.memory_info().rss - self._start > (PLENTY - 1) * self.needed:
            self._libc.malloc_trim(0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.active:
            self._libc.mallopt(_M_MMAP_MAX, 65536)  # glibc's default; the others as its own adaptation ends
            self._libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
            self._libc.mallopt(_M_TRIM_THRESHOLD, 64 * 2**20)
            self._libc.malloc_trim(0)
