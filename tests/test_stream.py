"""The container: frozen bytes, an independent reader, and what happens to files that are not whole."""

from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lof.containers.lof import (
    CODEC_NUMBERS,
    MAGIC,
    MAX_BOXES,
    MAX_PIXELS,
    MAX_SIDE,
    MAX_STRINGS,
    METRICS,
    OVERHEAD_LIMIT,
    Box,
    Stream,
    check_size,
    is_stream,
    read,
    write,
)
from lof.errors import StreamError

KODAK = Stream("mean-scale-96", 3, "mse", b"\x01\x23\x45\x67", 512, 768, (b"y" * 300, b"z" * 12))
BOXED = Stream(
    codec="someone.else_7-x",
    quality=255,
    metric="ms-ssim",
    fingerprint=b"\xff\x00\x80\x7f",
    height=1,
    width=MAX_SIDE,
    strings=(b"", b"abc", b"\x00" * 128),
    boxes=(Box(b"ICCP", b"profile"), Box(b"EXIF", b""), Box(b"x9Y8", bytes(200))),
)
FLAT = Stream("tiny", 1, "mse", b"\x00\x00\x00\x00", 1, 1, (b"",))

# Format version 1: these bytes never change.
GOLDEN = {
    "c16f66010f010000000000010100598db55f": FLAT,
    "c16f66010303010123456780048006050000000001027a7a193bf890": Stream(
        "bmshj2018-hyperprior", 3, "mse", b"\x01\x23\x45\x67", 512, 768, (b"\0\0\0\0\x01", b"zz")
    ),
    "c16f660100096d73702d312e305f78ff12ff00807fffff03"
    "01066162636465660001804943435002aabb5349444500d5cfe4f5": Stream(
        codec="msp-1.0_x",
        quality=255,
        metric="ms-ssim",
        fingerprint=b"\xff\x00\x80\x7f",
        height=MAX_SIDE,
        width=1,
        strings=(b"abcdef", b"", b"\x80"),
        boxes=(Box(b"ICCP", b"\xaa\xbb"), Box(b"SIDE", b"")),
    ),
}

sizes = st.one_of(
    st.sampled_from([1, 127, 128, 16383, 16384, MAX_SIDE]), st.integers(min_value=1, max_value=MAX_SIDE)
)
kinds = st.binary(min_size=4, max_size=4).map(lambda b: bytes(48 + c % 10 for c in b))
names = st.one_of(
    st.sampled_from(sorted(CODEC_NUMBERS)),
    st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
)
streams = st.builds(
    Stream,
    codec=names,
    quality=st.integers(1, 255),
    metric=st.sampled_from(METRICS),
    fingerprint=st.binary(min_size=4, max_size=4),
    height=sizes,
    width=sizes,
    strings=st.lists(st.binary(max_size=300), min_size=1, max_size=MAX_STRINGS).map(tuple),
    boxes=st.lists(
        st.builds(Box, kind=kinds, data=st.binary(max_size=200)), max_size=5, unique_by=lambda b: b.kind
    ).map(tuple),
).filter(lambda s: s.height * s.width <= min(MAX_PIXELS, (sum(map(len, s.strings)) + 16) * 2**20))


def sealed(body: bytes) -> bytes:
    """``body`` with the checksum that makes a reader look at its fields."""
    return body + struct.pack("<I", zlib.crc32(body))


def reference_read(data: bytes) -> Stream:
    """A second reader, written from the docstring of lof.containers.lof alone."""
    body, crc = data[:-4], struct.unpack("<I", data[-4:])[0]
    assert crc == zlib.crc32(body)
    assert body[:4] == b"\xc1of\x01"
    at = 4

    def take(n: int) -> bytes:
        nonlocal at
        at += n
        return body[at - n : at]

    def varint() -> int:
        value, shift, more = 0, 0, True
        while more:
            group = take(1)[0]
            value, shift, more = value + ((group % 128) << shift), shift + 7, group >= 128
        return value

    numbers = {
        1: "mean-scale-96",
        2: "bmshj2018-factorized",
        3: "bmshj2018-hyperprior",
        4: "mbt2018-mean",
        5: "mbt2018",
        15: "tiny",
    }
    number = varint()
    codec = numbers[number] if number else take(varint()).decode()
    quality, flags, fingerprint = struct.unpack("BB4s", take(6))
    height, width = varint(), varint()
    strings = tuple(take(varint()) for _ in range(flags % 16 + 1))
    boxes = []
    while at < len(body):
        boxes.append(Box(take(4), take(varint())))
    metric = ("mse", "ms-ssim")[flags // 16]
    return Stream(codec, quality, metric, fingerprint, height, width, strings, tuple(boxes))


@given(streams)
@settings(deadline=None)
def test_what_is_written_is_read_back_by_both_readers(stream: Stream) -> None:
    data = write(stream)
    assert read(data) == stream
    assert reference_read(data) == stream


@pytest.mark.parametrize(
    "changes",
    [
        {"quality": 1},
        {"quality": 255},
        {"metric": "ms-ssim"},
        {"height": 1, "width": 1},
        {"height": MAX_SIDE, "width": 1},
        {"height": 1, "width": MAX_SIDE},
        {"height": 2**14, "width": 2**14, "strings": (bytes(240),)},
        {"fingerprint": b"\xff\xff\xff\xff"},
        {"codec": "x"},
        {"codec": "Z" * 64},
        {"strings": tuple(bytes([i]) * i for i in range(MAX_STRINGS))},
        {"strings": (bytes(2**21),)},
        {"boxes": tuple(Box(b"%04d" % i, b"") for i in range(MAX_BOXES))},
        {"boxes": (Box(b"SIDE", bytes(2**14)),)},
        *({"codec": codec} for codec in CODEC_NUMBERS),
    ],
    ids=lambda changes: "+".join(sorted(changes)),
)
def test_the_extremes_of_every_field_survive(changes: dict[str, object]) -> None:
    stream = replace(KODAK, **changes)
    assert read(write(stream)) == stream
    assert reference_read(write(stream)) == stream


def test_the_bytes_of_version_1_never_change() -> None:
    for text, stream in GOLDEN.items():
        assert read(bytes.fromhex(text)) == stream
        assert write(stream).hex() == text


@pytest.mark.parametrize("codec", sorted(CODEC_NUMBERS))
@pytest.mark.parametrize(
    ("size", "lengths"),
    [
        ((1, 1), (0,)),
        ((512, 768), (240, 12)),
        ((4096, MAX_SIDE), (2**21, 2**21)),
        ((MAX_SIDE, 4096), (2**21, 127)),
    ],
)
def test_the_overhead_is_at_most_32_bytes(
    codec: str, size: tuple[int, int], lengths: tuple[int, ...]
) -> None:
    strings = tuple(bytes(length) for length in lengths)
    stream = replace(KODAK, codec=codec, height=size[0], width=size[1], strings=strings)
    # From 2^28 bytes on, too many for a test, each length takes one byte more.
    assert len(write(stream)) - sum(lengths) + len(lengths) <= OVERHEAD_LIMIT


def test_a_kodak_image_costs_22_bytes_over_its_strings() -> None:
    assert len(write(KODAK)) - sum(map(len, KODAK.strings)) == 22


def test_a_file_is_known_by_its_first_three_bytes() -> None:
    assert is_stream(write(KODAK)[:3])
    assert not is_stream(b"\x89PNG")
    assert not is_stream(MAGIC[:2])


@pytest.mark.parametrize("stream", [KODAK, BOXED, FLAT], ids=["kodak", "boxed", "flat"])
def test_a_stream_cut_anywhere_is_one_clear_error(stream: Stream) -> None:
    data = write(stream)
    for end in range(len(data)):
        with pytest.raises(
            StreamError, match=r"^cut\.lof: is damaged or cut short .*; copy it again"
        ) as caught:
            read(data[:end], "cut.lof")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stream", [KODAK, BOXED, FLAT], ids=["kodak", "boxed", "flat"])
def test_every_flipped_bit_is_caught(stream: Stream) -> None:
    data = write(stream)
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(StreamError, match=r"^flipped\.lof: "):
                read(bytes(damaged), "flipped.lof")


def test_a_damaged_file_is_called_damaged_and_not_unknown() -> None:
    data = bytearray(write(KODAK))
    data[4] = 99
    with pytest.raises(
        StreamError, match=r"^a\.lof: is damaged or cut short \(its checksum does not match\)"
    ):
        read(bytes(data), "a.lof")


@pytest.mark.parametrize("extra", [b"\0", b"ICCP", write(FLAT)])
def test_bytes_after_the_end_are_refused(extra: bytes) -> None:
    with pytest.raises(StreamError, match="checksum"):
        read(write(KODAK) + extra)


def hostile(rng: random.Random) -> Iterator[bytes]:
    """Streams with bytes replaced, inserted, removed or spliced, and random ones, most well sealed."""
    bodies = [write(stream)[:-4] for stream in (KODAK, BOXED, FLAT)]
    for _ in range(6000):
        body = bytearray(rng.choice(bodies))
        at = rng.randrange(len(body) + 1)
        noise = rng.randbytes(rng.choice([0, 1, 2, 5, 40]))
        match rng.randrange(4):
            case 0:
                body[at : at + len(noise)] = noise
            case 1:
                body[at:at] = noise
            case 2:
                other = rng.choice(bodies)
                body[at:] = other[rng.randrange(len(other)) :]
            case _:
                body = bytearray(MAGIC + b"\x01" + rng.randbytes(rng.randrange(60)))
        yield sealed(bytes(body)) if rng.random() < 0.9 else bytes(body)
    # Numbers as large as they get, where a length, a count or a size is expected.
    for body in bodies:
        for at in range(4, len(body)):
            yield sealed(body[:at] + b"\xff\xff\xff\xff\x0f" + body[at + 1 :])
            yield sealed(body[:at] + b"\xff" * 9 + body[at + 1 :])


def test_hostile_bytes_give_a_stream_error_or_a_canonical_stream() -> None:
    accepted = refused = 0
    for data in hostile(random.Random(2022)):
        try:
            stream = read(data, "hostile.lof")
        except StreamError:
            refused += 1
        else:
            assert write(stream) == data
            assert reference_read(data) == stream
            accepted += 1
    assert accepted > 300
    assert refused > 3000


@given(st.binary(max_size=80))
@settings(deadline=None, max_examples=300)
def test_any_body_with_a_good_checksum_is_refused_or_canonical(tail: bytes) -> None:
    data = sealed(MAGIC + b"\x01" + tail)
    try:
        stream = read(data)
    except StreamError:
        return
    assert write(stream) == data


def test_reading_hostile_bytes_allocates_in_proportion_to_them() -> None:
    cases = list(hostile(random.Random(7)))
    many_boxes = (
        MAGIC
        + b"\x01\x0f\x01\x00"
        + bytes(4)
        + b"\x01\x01\x00"
        + b"".join(b"%04d\0" % i for i in range(9999))
    )
    cases.append(sealed(many_boxes))
    tracemalloc.start()
    try:
        for data in cases:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with contextlib.suppress(StreamError):
                read(data)
            assert tracemalloc.get_traced_memory()[1] - before < 2 * len(data) + 20_000
    finally:
        tracemalloc.stop()


HEAD = MAGIC + b"\x01"
REST = b"\x01\x00" + bytes(4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is damaged or cut short"),
        (b"\xc1", "is damaged or cut short"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "is not a lof file .*; check the path"),
        (b"lof", "is not a lof file .*; check the path"),
        (MAGIC + b"\x02", r"has format version 2, newer than this lof reads \(1\); update lof"),
        (sealed(MAGIC + b"\x00" + bytes(20)), "there is no format version 0"),
        (sealed(HEAD + b"\x63" + REST + b"\x01\x01\x00"), "codec number 99, unknown to this lof; update lof"),
        (sealed(HEAD + b"\x8f\x00" + REST + b"\x01\x01\x00"), "not in its shortest form"),
        (sealed(HEAD + b"\xff\xff\xff\xff\x10" + REST + b"\x01\x01\x00"), "not in its shortest form"),
        (sealed(HEAD + b"\xff\xff\xff\xff\xff\x01" + REST), "not in its shortest form"),
        (sealed(HEAD + b"\x00\x00" + REST + b"\x01\x01\x00"), "codec name has 0 characters"),
        (sealed(HEAD + b"\x00\x41" + b"a" * 65 + REST + b"\x01\x01\x00"), "codec name has 65 characters"),
        (sealed(HEAD + b"\x00\x02a/" + REST + b"\x01\x01\x00"), "codec name 'a/' is not 1 to 64 of"),
        (sealed(HEAD + b"\x00\x02a\xe9" + REST + b"\x01\x01\x00"), "codec name 'aé' is not 1 to 64 of"),
        (sealed(HEAD + b"\x00\x02a\n" + REST + b"\x01\x01\x00"), r"codec name 'a\\n' is not 1 to 64 of"),
        (
            sealed(HEAD + b"\x00\x04tiny" + REST + b"\x01\x01\x00"),
            "spells out the codec tiny, which has a number",
        ),
        (sealed(HEAD + b"\x0f\x00\x00" + bytes(4) + b"\x01\x01\x00"), "quality 0 is not in 1..255"),
        (sealed(HEAD + b"\x0f\x01\x20" + bytes(4) + b"\x01\x01\x00"), r"reserved bits of its flags \(0x20\)"),
        (
            sealed(HEAD + b"\x0f" + REST + b"\x00\x05\x00"),
            "5 × 0 pixels are out of range .*; compress a smaller",
        ),
        (sealed(HEAD + b"\x0f" + REST + b"\x80\x80\x04\x05\x00"), "5 × 65536 pixels are out of range"),
        (
            sealed(HEAD + b"\x0f" + REST + b"\x80\x80\x02\x80\x80\x02\x00"),
            "32768 × 32768 pixels are out of range",
        ),
        (
            sealed(HEAD + b"\x0f" + REST + b"\x80\x80\x01\x80\x80\x01\x00"),
            "cannot come from 0 bytes of strings",
        ),
        (
            sealed(HEAD + b"\x0f" + REST + b"\x01\x01\xff\xff\xff\xff\x0f"),
            "is cut short .4294967295 bytes wanted",
        ),
        (sealed(HEAD + b"\x0f" + REST + b"\x01\x01"), "is cut short .1 bytes wanted at byte 13, 0 left"),
        (sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00\x00"), "is cut short .4 bytes wanted"),
        (sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00ICC"), "is cut short .4 bytes wanted"),
        (sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00ICCP"), "is cut short .1 bytes wanted"),
        (sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00ICCP\x05abcd"), "is cut short .5 bytes wanted"),
        (sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00IC-P\x00"), "box kind b'IC-P' is not four ASCII"),
        (sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00ICCP\x00ICCP\x01a"), "two boxes of the kind ICCP"),
        (
            sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00" + b"".join(b"%04d\0" % i for i in range(65))),
            "more than 64 boxes",
        ),
    ],
)
def test_each_way_of_being_wrong_has_its_message(data: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=rf"^holiday\.lof: .*{message}") as caught:
        read(data, "holiday.lof")
    text = str(caught.value)
    assert text.count("holiday.lof") == 1
    assert "\n" not in text
    assert text.rpartition("; ")[2].startswith(("copy ", "check ", "update ", "compress "))


class Huge(bytes):
    """Says that it is 4 GiB long."""

    def __len__(self) -> int:
        return 2**32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codec": ""}, "the codec name ''"),
        ({"codec": "a" * 65}, "the codec name"),
        ({"codec": "naïve"}, "the codec name 'naïve'"),
        ({"codec": "a\n"}, "the codec name"),
        ({"quality": 0}, "quality 0"),
        ({"quality": 256}, "quality 256"),
        ({"metric": "psnr"}, "the metric 'psnr' is not one of mse, ms-ssim"),
        ({"fingerprint": b"123"}, "3 bytes instead of 4"),
        ({"height": 0}, "768 × 0 pixels"),
        ({"height": -1}, "768 × -1 pixels"),
        ({"width": MAX_SIDE + 1}, "65536 × 512 pixels"),
        (
            {"height": 2**14, "width": 2**14 + 1, "strings": (bytes(999),)},
            "16385 × 16384 pixels are out of range",
        ),
        ({"height": 2**14, "width": 2**14, "strings": (bytes(239),)}, "cannot come from 239 bytes"),
        ({"strings": ()}, "0 strings instead of 1 to 16"),
        ({"strings": (b"",) * 17}, "17 strings instead of 1 to 16"),
        ({"strings": (Huge(),)}, "4 GiB"),
        ({"boxes": (Box(b"ICC", b""),)}, "box kind b'ICC'"),
        ({"boxes": (Box(b"ICCPX", b""),)}, "box kind b'ICCPX'"),
        ({"boxes": (Box(b"IC P", b""),)}, "box kind b'IC P'"),
        (
            {"boxes": (Box(b"ICCP", b"1"), Box(b"EXIF", b""), Box(b"ICCP", b"2"))},
            "two boxes of the kind ICCP",
        ),
        ({"boxes": tuple(Box(b"%04d" % i, b"") for i in range(65))}, "more than 64 boxes"),
        ({"boxes": (Box(b"ICCP", Huge()),)}, "4 GiB"),
    ],
)
def test_a_field_out_of_range_is_refused_by_the_writer(changes: dict[str, object], message: str) -> None:
    with pytest.raises(StreamError, match=rf"^out\.lof: .*{message}"):
        write(replace(KODAK, **changes), "out.lof")


def test_boxes_of_unknown_kinds_are_kept_in_their_order() -> None:
    boxes = (Box(b"zzzz", b"later"), Box(b"EXIF", b"now"), Box(b"0000", b""))
    assert read(write(replace(KODAK, boxes=boxes))).boxes == boxes


def test_a_large_flat_image_is_plausible_and_a_forged_one_is_not() -> None:
    # The least that a codec of 128 latent channels can spend on 12 megapixels, and on the largest image.
    check_size(3000, 4000, 12_000_000 // 730_000, "flat.lof")
    check_size(2**14, 2**14, MAX_PIXELS // 730_000, "flat.lof")
    with pytest.raises(StreamError, match="cannot come from 8 bytes of strings"):
        check_size(2**14, 2**14, 8, "forged.lof")
