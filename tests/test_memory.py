"""Memory that stays with the process from step to step while a search runs."""

from __future__ import annotations

import ctypes
import platform
import resource

import psutil
import pytest

from lof.memory import PLENTY, MemoryKept

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


def test_a_step_reuses_the_pages_of_the_one_before() -> None:
    with MemoryKept(SIZE):
        faults_of_a_step()
        assert faults_of_a_step() < PAGES // 100
    faults_of_a_step()
    assert faults_of_a_step() > PAGES // 2  # outside, the system hands them out anew


def test_all_memory_goes_back_at_the_end_and_after_an_error() -> None:
    before = resident()

    def fail_after_a_step() -> None:
        with MemoryKept(SIZE):
            faults_of_a_step()
            assert resident() - before > SIZE // 2
            raise KeyError

    with pytest.raises(KeyError):
        fail_after_a_step()
    assert resident() - before < SIZE // 2


def test_memory_beyond_what_a_step_can_use_goes_back_at_once() -> None:
    before = resident()
    with MemoryKept(SIZE) as roomy, MemoryKept(SIZE // 8) as tight:
        faults_of_a_step()
        roomy.check()
        assert resident() - before > SIZE // 2
        tight.check()
        assert resident() - before < SIZE // 2


def test_nothing_is_kept_where_memory_is_short() -> None:
    with MemoryKept(psutil.virtual_memory().total // PLENTY + 1) as memory:
        assert not memory.active
        faults_of_a_step()
        assert faults_of_a_step() > PAGES // 2
