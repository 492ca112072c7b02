"""An existing JPEG in fewer bytes, with the same coefficients: other Huffman codes and scans, and nothing else.

Any JPEG that mozjpeg reads: grey, YCbCr, RGB and CMYK, every subsampling, progressive, with restart markers (which go).
All segments of metadata stay. That the picture is the same is not taken on trust but compared, file by file.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from typing import Final

import numpy as np

from lof.codecs.jpeg.files import METADATA, coefficients, decoded
from lof.errors import StreamError
from lof.machine.memory import require_memory

_MARKER: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_END: Final = 0xD9
_PACK: Final = """
import sys, mozjpeg_lossless_optimization as mozjpeg
sys.stdout.buffer.write(mozjpeg.optimize(sys.stdin.buffer.read(), copy=mozjpeg.COPY_MARKERS.ALL))
"""
_LARGEST: Final = 1023
_BYTES_PER_PIXEL: Final = 32
"""Pixels and coefficients before and after, and a plane of them in 64 bits."""


def repacked(data: bytes) -> bytes:
    """The smaller of ``data`` and the same picture packed anew.

    Raises:
        StreamError: damaged, of a kind that cannot be packed anew, or something would be lost.
    """
    before, end = _metadata(data)
    if spare := len(data) - end:
        raise StreamError(
            f"holds {spare} bytes behind its picture (a film or further pictures), which would be lost; "
            "keep it as it is"
        )
    pixels = decoded(data, raw=True, fits=_require_memory)
    _, planes, tables = coefficients(data)
    # mozjpeg ends the process where it is to write what a JPEG of 8 bits cannot hold.
    if any(np.abs(plane.astype(int)).max(initial=0) > _LARGEST for plane in planes):
        raise StreamError("is damaged (coefficients out of range); replace it with the complete file")
    packed = _packed(data)
    _, new_planes, new_tables = coefficients(packed)
    same = (
        np.array_equal(pixels, decoded(packed, raw=True))
        and _metadata(packed)[0] == before
        and all(map(np.array_equal, (*planes, tables), (*new_planes, new_tables)))
    )
    if not same:
        raise StreamError("would not be the same picture after packing; keep it as it is")
    return min(data, packed, key=len)


def _require_memory(height: int, width: int) -> None:
    require_memory(height * width * _BYTES_PER_PIXEL, None, f"a {width}×{height} image", "read")


def _packed(data: bytes) -> bytes:
    # In a process of its own, which mozjpeg ends at every error.
    done = subprocess.run([sys.executable, "-P", "-c", _PACK], input=data, capture_output=True, check=False)
    if done.returncode != 0 or not done.stdout:
        raise StreamError(
            "is a JPEG that mozjpeg does not read (arithmetic coding, more than 8 bits or damage); keep it as it is"
        )
    return done.stdout


def _metadata(data: bytes) -> tuple[Counter[bytes], int]:
    """Segments of metadata, and where the picture ends."""
    found: Counter[bytes] = Counter()
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while match := _MARKER.search(data, at):
        kind, at = match[1][0], match.end()
        if kind == _END:
            return found, at
        size = int.from_bytes(data[at : at + 2])
        if kind in METADATA:
            found[bytes([kind]) + data[at : at + size]] += 1
        at += size
    raise StreamError("is no JPEG, or one cut short; replace it with the complete file")
