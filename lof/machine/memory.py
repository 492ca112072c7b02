"""Memory of a search: refused where it cannot fit, kept from step to step where there is plenty."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import psutil

from lof.errors import LowMemoryError

if TYPE_CHECKING:
    import torch

PLENTY = 3
"""Times what a search needs must be free for :class:`MemoryKept` to act; it may come to use a good part of that."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h


Work = Literal["search", "decode", "read", "compare"]
_REMEDIES: dict[Work, str] = {
    "search": "lower --jobs, use a larger machine, or search it in windows (lof optimize --memory)",
    "decode": "so it cannot be checked here; free some memory, lower --jobs, or use a larger machine",
    "read": "free some memory, or scale it down",
    "compare": "free some memory, or compare smaller pictures",
}


def require_memory(
    needed: int,
    device: torch.device | None,
    what: str,
    work: Work = "search",
) -> None:
    """Refuse work that cannot fit, before the system's out-of-memory killer does.

    Args:
        needed: bytes at the peak, estimated.
        device: whose memory; the machine's own for ``None``.
        what: the subject of the message, for example ``a 9000×6000 image``.
        work: what is to be done with it.

    Raises:
        LowMemoryError: less is free. That says nothing about a file.
    """
    if device is not None and device.type == "cuda":
        import torch

        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = free_memory()
    if needed > free:
        raise LowMemoryError(
            f"{what} needs about {needed / 1e9:.1f} GB of memory to {work} and {free / 1e9:.1f} GB are free; "
            f"{_REMEDIES[work]}"
        )


def free_memory() -> int:
    """Bytes that this process can still take: what the machine, its container and its own limit let it have."""
    machine: int = psutil.virtual_memory().available
    return min([machine, *_below_own_limit(), *(group.free() for group in _own_groups())])


def _below_own_limit() -> list[int]:
    """What ``ulimit -v`` leaves, if it limits."""
    try:
        from resource import RLIM_INFINITY, RLIMIT_AS, getrlimit
    except ImportError:  # not Unix
        return []
    limit, _ = getrlimit(RLIMIT_AS)
    return [] if limit == RLIM_INFINITY else [max(0, limit - psutil.Process().memory_info().vms)]


@dataclass(frozen=True)
class ControlGroup:
    """A control group of Linux, version 2 or 1, that limits memory: what a container is made of."""

    folder: Path
    limit: int
    usage: str
    reclaimable: str

    def free(self) -> int:
        """Bytes below the limit; page cache that the kernel would give up first counts as free.

        All of the limit where the group does not tell, which some sandboxes' don't, or is gone: an estimate
        that is missing is no reason for a search to fail.
        """
        try:
            used = int((self.folder / self.usage).read_text())
            stat = dict(line.split() for line in (self.folder / "memory.stat").read_text().splitlines())
            return max(0, self.limit - used + int(stat.get(self.reclaimable, 0)))
        except (OSError, ValueError):
            return self.limit


def limited_groups(membership: Path, mount: Path) -> list[ControlGroup]:
    """The control groups that limit the memory of a process, if any.

    Args:
        membership: a ``/proc/PID/cgroup``.
        mount: where control groups are mounted. A container sees its own group there as the root, whatever
            path its membership says, so each group up to the root is asked.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, *names = mount, "memory.max", "memory.current", "inactive_file"
        elif controllers == "memory":
            root = mount / "memory"
            limit, *names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        group = root / path.lstrip("/")
        for folder in [group, *group.parents]:
            if not folder.is_relative_to(root):
                break
            try:
                text = (folder / limit).read_text().strip()
            except OSError:  # the root has none, and a container does not see what is above it
                continue
            if text != "max" and int(text) < psutil.virtual_memory().total:
                found.append(ControlGroup(folder, int(text), *names))
    return found


@functools.cache  # asked for in every step of a search; a limit seldom moves
def _own_groups() -> list[ControlGroup]:
    return limited_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))


def give_back() -> None:
    """Hand the system what this process has freed, where the C library is glibc."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


class MemoryKept:
    """While it lasts, memory that this process frees stays with it for the next step; all goes back at the end.

    glibc hands large blocks back at once, and the system clears each page anew when the next step asks for
    them: a million page faults for a Kodak image with ``fast``, a third of the time of a search on 3 megapixels.
    Blocks that are kept do not always fit what is asked for next, so it takes more memory, and does nothing
    where less than :data:`PLENTY` times what is needed is free, or with another C library than glibc. It stops
    as soon as others have left too little.

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
        self.active = free_memory() > PLENTY * self.needed and hasattr(self._libc, "mallopt")
        if self.active:
            self._start = self._process.memory_info().rss
            self._libc.mallopt(_M_MMAP_MAX, 0)
            self._libc.mallopt(_M_TRIM_THRESHOLD, -1)
        return self

    def check(self) -> None:
        """Between two steps: give back what is free, should that have become more than a step can use.

        Where less is free than a search needs, give it back for good: every process judges for itself, and
        several that began together may have counted on the same memory.
        """
        if not self.active:
            return
        if free_memory() < self.needed:
            self._stop()
        elif self._process.memory_info().rss - self._start > (PLENTY - 1) * self.needed:
            self._libc.malloc_trim(0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.active:
            self._stop()

    def _stop(self) -> None:
        self.active = False
        self._libc.mallopt(_M_MMAP_MAX, 65536)  # glibc's default; the others as its own adaptation ends
        self._libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        self._libc.mallopt(_M_TRIM_THRESHOLD, 64 * 2**20)
        self._libc.malloc_trim(0)
