"""What a JPEG carries beside its picture: known bytes, and whatever is wrong with them leaves a plain JPEG."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from PIL import Image

from lof.containers import Stream, container, unpack
from lof.containers.jpeg_side import Side
from lof.errors import StreamError

SIDE = Side("jpeg-x", b"\x01\x02\x03\x04", b"\x0a\x0b\x0c\x0d", b"string")


@pytest.fixture(scope="module")
def plain() -> Stream:
    file = io.BytesIO()
    Image.new("RGB", (63, 65), "teal").save(file, "JPEG", quality=75)
    return unpack(file.getvalue())


def test_a_segment_has_known_bytes() -> None:
    assert SIDE.segments("x").hex(" ") == (
        "ff ea 00 22 6c 6f 66 00 01 01 01 06 6a 70 65 67 2d 78 01 02 03 04 0a 0b 0c 0d "
        "73 74 72 69 6e 67 86 67 00 7b"
    )


def test_a_long_string_is_spread_over_segments_and_joined_again() -> None:
    long = replace(SIDE, string=bytes(range(256)) * 600)
    data = long.segments("x")
    parts = []
    while data:
        size = 2 + int.from_bytes(data[2:4])
        parts.append(data[:size])
        data = data[size:]
    assert len(parts) == 3
    assert Side.read([b"\xff\xea\x00\x06JFXX", *parts]) == long
    for wrong in (parts[:2], parts[1:], parts[::-1], [*parts, parts[0]]):
        with pytest.raises(ValueError, match="incomplete"):
            Side.read(wrong)


def test_a_file_of_such_a_codec_is_the_plain_jpeg_for_everybody_else(plain: Stream) -> None:
    stream = replace(
        plain,
        codec="jpeg-descriptors-tiny",
        strings=(*plain.strings, b"more"),
        fingerprint=b"1234",
        digest=b"abcd",
    )
    data = container("jpeg").pack(stream)
    read = unpack(data)
    assert read == stream
    assert read.plain == plain
    assert not read.note
    with Image.open(io.BytesIO(data)) as image, Image.open(io.BytesIO(plain.strings[0])) as theirs:
        assert image.convert("RGB").tobytes() == theirs.convert("RGB").tobytes()
    at = data.index(b"\xff\xea")
    without = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4]) :]
    assert unpack(without) == plain


def test_whatever_is_wrong_with_it_leaves_the_plain_jpeg_and_a_note(plain: Stream) -> None:
    stream = replace(
        plain,
        codec="jpeg-descriptors-tiny",
        strings=(*plain.strings, b"more"),
        fingerprint=b"1234",
        digest=b"abcd",
    )
    data = container("jpeg").pack(stream)
    at = data.index(b"\xff\xea")
    for place in range(at + 8, at + 2 + int.from_bytes(data[at + 2 : at + 4])):
        damaged = bytearray(data)
        damaged[place] ^= 1
        read = unpack(bytes(damaged), "a.jpg")
        assert read == plain, place
        assert read.note.startswith("a.jpg: what lof added to this JPEG is ")
        assert read.note.endswith("; this is the plain picture")
    newer = bytearray(data)
    newer[at + 8] = 2
    assert "of a newer version of lof" in unpack(bytes(newer)).note


def test_what_has_no_place_is_refused(plain: Stream) -> None:
    for codec, strings in (
        ("jpeg-descriptors-tiny", 1),
        ("jpeg-descriptors-tiny", 3),
        ("jpeg", 2),
        ("jpeg-\n", 2),
        ("jpeg-" + "x" * 60, 2),
    ):
        stream = replace(plain, codec=codec, strings=(*plain.strings, b"", b"")[:strings])
        with pytest.raises(StreamError, match=r"^out: a JPEG has no place for"):
            container("jpeg").pack(replace(stream, fingerprint=b"1234", digest=b"abcd"), "out")


def test_more_segments_than_there_can_be_are_damage() -> None:
    (one,) = re.findall(rb"\xff\xea.*", SIDE.segments("a"), re.DOTALL)
    with pytest.raises(ValueError, match=r"^damaged$"):
        Side.read([one] * 256)
