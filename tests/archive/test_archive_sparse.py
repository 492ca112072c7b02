"""Sparse members of tar files: their holes are a few bytes in the tar and may be any number of zeros out of it."""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import QUICK, rows

from lof.archive import Limits, Summary, create, open_sources, restore
from lof.pools import ThisProcess


def archive(source: Path, dst: Path, limits: Limits = Limits()) -> Summary:
    return create(open_sources([str(source)], dst, limits), dst, QUICK, ThisProcess())


def sparse(name: str, content: bytes, size: int, *ranges: tuple[int, int]) -> bytes:
    """A member of a tar in GNU's old sparse format: ``ranges`` of a file of ``size`` bytes are in ``content``."""
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    numbers = [number for offset_and_length in ranges for number in offset_and_length]
    for at, number in zip((386, 398, 410, 422, 434, 446), numbers, strict=False):
        header[at : at + 12] = b"%011o\0" % number
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % 512)


_MORE = bytes(1024)  # the end mark of a tar


def test_holes_of_a_sparse_tar_come_back_as_zeros(tmp_path: Path) -> None:
    scans = tmp_path / "scans.tar"
    content = os.urandom(512)
    size = 3 << 20
    scans.write_bytes(
        sparse("tail", content, size, (size - 512, 512))
        + sparse("head", content, size, (0, 512), (size, 0))
        + sparse("hole", b"", 512, (512, 0))
        + _MORE
    )
    summary = archive(scans, tmp_path / "dst", Limits(free=1 << 20, ratio=9000))
    assert summary.errors == []
    restore(tmp_path / "dst", tmp_path / "out", ThisProcess())
    assert (tmp_path / "out/scans/tail").read_bytes() == bytes(size - 512) + content
    assert (tmp_path / "out/scans/head").read_bytes() == content + bytes(size - 512)
    assert (tmp_path / "out/scans/hole").read_bytes() == bytes(512)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    "ranges",
    [
        ((2**31 - 512, 512),),
        ((2**30, 2**30 - 1),),  # claims data that are not there
        ((2**31 - 1, 0), (0, 2**31 - 1)),  # the second range is never read, the first says that all is a hole
    ],
)
def test_a_sparse_tar_that_inflates_without_end_is_refused_before_it_does(
    tmp_path: Path, pack: Callable[[bytes], bytes], ranges: tuple[tuple[int, int], ...]
) -> None:
    scans = tmp_path / "scans.tar"
    scans.write_bytes(
        pack(
            sparse("bomb", b"x" * 512, 2**31, *ranges) + sparse("good", b"x" * 512, 1024, (512, 512)) + _MORE
        )
    )
    archive(scans, tmp_path / "dst")
    found = rows(tmp_path / "dst")
    assert f"{scans}: 'bomb': inflates to more than 200 times its size" in found["scans/bomb"].error
    assert found["scans/good"].state == "stored"
    assert [path.name for path in (tmp_path / "dst/stored/scans").iterdir()] == ["good"]


def test_many_sparse_members_share_what_one_tar_may_inflate_to(tmp_path: Path) -> None:
    scans = tmp_path / "scans.tar"
    scans.write_bytes(b"".join(sparse(str(i), b"", 1 << 20, (1 << 20, 0)) for i in range(9)) + _MORE)
    summary = archive(scans, tmp_path / "dst", Limits(free=4 << 20))
    assert len(summary.errors) == 9 - 3  # the tar itself counts too
    assert all("like a bomb" in error for _, error in summary.errors)
