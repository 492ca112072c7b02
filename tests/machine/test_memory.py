"""Memory that stays with the process from step to step while a search runs."""

from __future__ import annotations

import ctypes
import platform
import resource
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import psutil
import pytest
from fresh import fresh

from lof.errors import LowMemoryError
from lof.machine.memory import PLENTY, MemoryKept, Work, limited_groups, require_memory

SIZE = 256 * 2**20
PAGES = SIZE // resource.getpagesize()

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")


def faults_of_a_step() -> int:
    """Page faults of a block that is taken, written and freed."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.memset.argtypes, libc.free.argtypes = (
        [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(SIZE)
    libc.memset(block, 1, SIZE)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    return psutil.Process().memory_info().rss


def a_step_reuses_the_pages_of_the_one_before() -> None:
    with MemoryKept(SIZE):
        faults_of_a_step()
        assert faults_of_a_step() < PAGES // 100
    faults_of_a_step()
    assert faults_of_a_step() > PAGES // 2  # outside, the system hands them out anew


def all_memory_goes_back_at_the_end_and_after_an_error() -> None:
    before = resident()

    def fail_after_a_step() -> None:
        with MemoryKept(SIZE):
            faults_of_a_step()
            assert resident() - before > SIZE // 2
            raise KeyError

    with pytest.raises(KeyError):
        fail_after_a_step()
    assert resident() - before < SIZE // 2


def memory_beyond_what_a_step_can_use_goes_back_at_once() -> None:
    before = resident()
    with MemoryKept(SIZE) as roomy, MemoryKept(SIZE // 8) as tight:
        faults_of_a_step()
        roomy.check()
        assert resident() - before > SIZE // 2
        tight.check()
        assert resident() - before < SIZE // 2


def nothing_is_kept_where_memory_is_short() -> None:
    with MemoryKept(psutil.virtual_memory().total // PLENTY + 1) as memory:
        assert not memory.active
        faults_of_a_step()
        assert faults_of_a_step() > PAGES // 2


def memory_that_others_have_taken_is_given_back_for_good() -> None:
    before = resident()
    with MemoryKept(SIZE) as memory:
        faults_of_a_step()
        memory.needed = psutil.virtual_memory().total  # as if others had left less than a search needs
        memory.check()
        assert resident() - before < SIZE // 2
        faults_of_a_step()
        assert faults_of_a_step() > PAGES // 2
    assert not memory.active


@pytest.mark.parametrize(
    "claim",
    [
        a_step_reuses_the_pages_of_the_one_before,
        all_memory_goes_back_at_the_end_and_after_an_error,
        memory_beyond_what_a_step_can_use_goes_back_at_once,
        nothing_is_kept_where_memory_is_short,
        memory_that_others_have_taken_is_given_back_for_good,
    ],
)
def test_of_memory_that_is_kept(claim: Callable[[], None]) -> None:
    # In a process of its own: an allocation that fails, as other tests want it, moves a thread to another of glibc's
    # arenas for good, and there large blocks are never kept.
    process = fresh(claim)
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("work", get_args(Work))
def test_whatever_does_not_fit_is_one_clear_error(work: Work) -> None:
    with pytest.raises(
        LowMemoryError, match=rf"^a picture needs about 1000000\.0 GB of memory to {work} and .*; \w"
    ):
        require_memory(10**15, None, "a picture", work)


def write(folder: Path, **files: str) -> None:
    """Files of a control group, ``__`` for the dot in their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize("path", ["/pod/container", "/", "/of/the/host"])
def test_a_container_s_limit_counts_whatever_path_it_is_told(tmp_path: Path, path: str) -> None:
    (tmp_path / "membership").write_text(f"0::{path}\n")
    mount = tmp_path / "mount"
    seen = mount / path.lstrip("/") if path == "/pod/container" else mount
    write(
        seen,
        memory__max="2000000000\n",
        memory__current="1500000000\n",
        memory__stat="anon 1\ninactive_file 7\n",
    )
    (group,) = limited_groups(tmp_path / "membership", mount)
    assert group.free() == 500_000_007
    (seen / "memory.current").write_text("2100000000\n")
    assert group.free() == 0
    (seen / "memory.stat").unlink()  # as in sandboxes that keep no account
    assert group.free() == 2_000_000_000


def test_the_limits_of_outer_groups_count_and_none_is_none(tmp_path: Path) -> None:
    (tmp_path / "membership").write_text("9:memory:/outer/inner\n1:cpu:/outer\n0::/outer/inner\n")
    v1 = {"memory__usage_in_bytes": "10\n", "memory__stat": "total_inactive_file 2\n"}
    endless = str(2**63 - 4096)
    write(tmp_path / "memory", memory__limit_in_bytes=endless, **v1)
    write(tmp_path / "memory/outer", memory__limit_in_bytes="100\n", **v1)
    write(tmp_path / "memory/outer/inner", memory__limit_in_bytes=endless, **v1)
    write(
        tmp_path / "outer/inner",
        memory__max="max\n",
        memory__current="10\n",
        memory__stat="inactive_file 2\n",
    )
    assert [group.free() for group in limited_groups(tmp_path / "membership", tmp_path)] == [92]
    assert limited_groups(tmp_path / "not-linux", tmp_path) == []
