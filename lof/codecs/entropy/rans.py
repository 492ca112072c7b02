"""CompressAI's rANS coder, and what it must be told of a string so that it does not read beyond the end."""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from typing import Any


def _coder() -> Any:
    """The module ``compressai.ans``, without the package around it.

    ``import compressai`` takes seconds: it loads data sets of point clouds and all of PyTorch's compiler.
    """
    name = "compressai.ans"
    if "compressai" in sys.modules:
        return importlib.import_module(name)
    package = importlib.util.find_spec("compressai")
    spec = package and PathFinder.find_spec(name, package.submodule_search_locations)
    if not spec or not spec.loader:
        raise ImportError("no module named compressai.ans; install compressai again")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules.pop(
        name, None
    )  # or `compressai.ans` would be no attribute of the package when that is imported
    return module


ans = _coder()
"""Has ``RansDecoder`` and ``BufferedRansEncoder``."""


def is_rans(string: bytes) -> bool:
    """Whether a string is one of whole 32-bit words, whose first two hold a state that rANS can be in.

    CompressAI's decoder checks neither, and in a smaller state it takes twice as much for a symbol.
    """
    return len(string) >= 8 and len(string) % 4 == 0 and int.from_bytes(string[:8], "little") >= 2**31


def slack(string: bytes, elements: int) -> bytes:
    """Zeros to append to a string of so many symbols before it is decoded.

    CompressAI's rANS decoder reads on where a string ends too early; a valid string never reaches the
    zeros, a crafted one does not reach foreign memory. A symbol in the table takes at most 16 bits; one
    outside it says in ones, by fours, how many fours of bits follow: 15 for each, so that every word of
    ones is good for 64 bytes more.
    """
    return bytes(4 * elements + 65536 + 64 * string.count(b"\xff" * 4))


@contextmanager
def uncollected() -> Iterator[None]:
    """For code that fills lists for the coder: Python's search for cycles would go through them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
