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
from lof_reference_reader import reference_read

from lof.codecs import codec_specs
from lof.containers import MAX_PIXELS, Stream, container
from lof.containers.base import KNOWN_PIXELS_PER_BYTE, MAX_SIDE, METRICS, PIXELS_PER_BYTE, check_size
from lof.containers.lof import (
    CODEC_NUMBERS,
    MAGIC,
    MAX_BOXES,
    MAX_QUALITY,
    MAX_STRINGS,
    QUALITY_UNIT,
    VERSION,
)
from lof.errors import StreamError

LOF = container("lof")
read, write = LOF.unpack, LOF.pack

MARKS = {"fingerprint": b"\x01\x23\x45\x67", "digest": b"\x89\xab\xcd\xef"}
KODAK = Stream("mean-scale-96", 3, "mse", 512, 768, (b"y" * 300, b"z" * 12), **MARKS)
BOXED = Stream(
    codec="someone.else_7-x",
    quality=999 + 63 / 64,
    metric="ms-ssim",
    fingerprint=b"\xff\x00\x80\x7f",
    digest=b"\x00\xff\x7f\x80",
    height=1,
    width=MAX_SIDE,
    strings=(b"", b"abc", b"\x00" * 128),
    boxes={b"exif": b"", b"iccp": b"profile", b"xzY8": bytes(200)},
)
FLAT = Stream("tiny", 1 / 64, "mse", 1, 1, (b"",), fingerprint=bytes(4), digest=bytes(4))

# Format version 2: these bytes never change.
GOLDEN = {
    "c16f66020f0100000000000000000001010061e84578": FLAT,
    "c16f660203e001010123456789abcdef80048006050000000001027a7a70c405c3": Stream(
        "bmshj2018-hyperprior", 3.5, "mse", 512, 768, (b"\0\0\0\0\x01", b"zz"), **MARKS
    ),
    "c16f660200096d73702d312e305f7880f40312ff00807f00010203ffff03"
    "01066162636465660001806963637002aabb7369646500b2bcdeee": Stream(
        codec="msp-1.0_x",
        quality=1000,
        metric="ms-ssim",
        fingerprint=b"\xff\x00\x80\x7f",
        digest=b"\x00\x01\x02\x03",
        height=MAX_SIDE,
        width=1,
        strings=(b"abcdef", b"", b"\x80"),
        boxes={b"iccp": b"\xaa\xbb", b"side": b""},
    ),
}

sizes = st.one_of(
    st.sampled_from([1, 127, 128, 16383, 16384, MAX_SIDE]), st.integers(min_value=1, max_value=MAX_SIDE)
)
kinds = st.from_regex(rb"[a-z][A-Za-z0-9]{3}", fullmatch=True)
names = st.one_of(
    st.sampled_from(sorted(CODEC_NUMBERS)),
    st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
)
streams = st.builds(
    Stream,
    codec=names,
    quality=st.integers(1, MAX_QUALITY * QUALITY_UNIT).map(lambda units: units / QUALITY_UNIT),
    metric=st.sampled_from(METRICS),
    fingerprint=st.binary(min_size=4, max_size=4),
    digest=st.binary(min_size=4, max_size=4),
    height=sizes,
    width=sizes,
    strings=st.lists(st.binary(max_size=300), min_size=1, max_size=MAX_STRINGS).map(tuple),
    boxes=st.dictionaries(kinds, st.binary(max_size=200), max_size=5),
).filter(lambda s: s.height * s.width <= min(MAX_PIXELS, (sum(map(len, s.strings)) + 16) * 2**16))


def sealed(body: bytes) -> bytes:
    """``body`` with the checksum that makes a reader look at its fields."""
    return body + struct.pack("<I", zlib.crc32(body))


@given(streams)
@settings(deadline=None)
def test_what_is_written_is_read_back_by_both_readers(stream: Stream) -> None:
    data = write(stream)
    assert read(data) == stream
    assert reference_read(data) == stream


@pytest.mark.parametrize(
    "changes",
    [
        {"quality": 1 / 64},
        {"quality": 1000},
        {"quality": 3.984375},
        {"metric": "ms-ssim"},
        {"height": 1, "width": 1},
        {"height": MAX_SIDE, "width": 1},
        {"height": 1, "width": MAX_SIDE},
        {"height": 2**14, "width": 2**14, "strings": (bytes(4080),)},
        {"codec": "x", "height": 2**14, "width": 2**14, "strings": (bytes(240),)},
        {"digest": b"\xff\xff\xff\xff"},
        {"fingerprint": b"\xff\xff\xff\xff"},
        {"codec": "x"},
        {"codec": "Z" * 64},
        {"strings": tuple(bytes([i]) * i for i in range(MAX_STRINGS))},
        {"strings": (bytes(2**21),)},
        {"boxes": {b"b%03d" % i: b"" for i in range(MAX_BOXES)}},
        {"boxes": {b"side": bytes(2**14)}},
        *({"codec": codec} for codec in CODEC_NUMBERS),
    ],
    ids=lambda changes: "+".join(sorted(changes)),
)
def test_the_extremes_of_every_field_survive(changes: dict[str, object]) -> None:
    stream = replace(KODAK, **changes)
    assert read(write(stream)) == stream
    assert reference_read(write(stream)) == stream


def test_the_bytes_of_version_2_never_change() -> None:
    for text, stream in GOLDEN.items():
        assert read(bytes.fromhex(text)) == stream
        assert write(stream).hex() == text


@pytest.mark.parametrize("codec", sorted(CODEC_NUMBERS))
@pytest.mark.parametrize(
    ("size", "lengths"),
    [
        ((1, 1), (0,)),
        ((512, 768), (240, 12)),
        ((4096, MAX_SIDE), (2**21 - 1, 2**21 - 1)),
        ((2**14, 2**14), (2**21 - 1, 2**14)),
    ],
)
def test_the_overhead_is_at_most_32_bytes(
    codec: str, size: tuple[int, int], lengths: tuple[int, ...]
) -> None:
    strings = tuple(bytes(length) for length in lengths)
    stream = replace(KODAK, codec=codec, quality=255, height=size[0], width=size[1], strings=strings)
    assert len(write(stream)) - sum(lengths) <= 32


def test_a_kodak_image_costs_27_bytes_over_its_strings() -> None:
    assert len(write(KODAK)) - sum(map(len, KODAK.strings)) == 27


def test_a_file_is_known_by_its_first_three_bytes() -> None:
    assert LOF.recognises(write(KODAK)[:3])
    assert not LOF.recognises(b"\x89PNG")
    assert not LOF.recognises(MAGIC[:2])


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


@pytest.mark.parametrize("extra", [b"\0", b"iccp", write(FLAT)])
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
                body = bytearray(MAGIC + b"\x02" + rng.randbytes(rng.randrange(60)))
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
    data = sealed(MAGIC + b"\x02" + tail)
    try:
        stream = read(data)
    except StreamError:
        return
    assert write(stream) == data


def test_reading_hostile_bytes_allocates_in_proportion_to_them() -> None:
    cases = list(hostile(random.Random(7)))
    cases.append(
        sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00" + b"".join(b"b%03d\0" % i for i in range(999)))
    )
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


HEAD = MAGIC + bytes([VERSION])
REST = b"\x01\x00" + bytes(8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is damaged or cut short"),
        (b"\xc1", "is damaged or cut short"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "is not a lof file .*; check the path"),
        (b"lof", "is not a lof file .*; check the path"),
        (MAGIC + b"\x03", r"has format version 3, newer than this lof reads \(2\); update lof"),
        (sealed(MAGIC + b"\x01" + bytes(20)), "there is no format version 1"),
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
        (sealed(HEAD + b"\x0f\x00\x00" + bytes(8) + b"\x01\x01\x00"), r"quality 0 is no multiple of 1/64"),
        (
            sealed(HEAD + b"\x0f\x81\xf4\x03\x00" + bytes(8) + b"\x01\x01\x00"),
            r"quality 1000\.015625 is no multiple of 1/64 up to 1000",
        ),
        (sealed(HEAD + b"\x0f\x01\x20" + bytes(8) + b"\x01\x01\x00"), r"reserved bits of its flags \(0x20\)"),
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
        (sealed(HEAD + b"\x0f" + REST + b"\x01\x01"), "is cut short .1 bytes wanted at byte 17, 0 left"),
        (sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00\x00"), "is cut short .4 bytes wanted"),
        (sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00icc"), "is cut short .4 bytes wanted"),
        (sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00iccp"), "is cut short .1 bytes wanted"),
        (sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00iccp\x05abcd"), "is cut short .5 bytes wanted"),
        (
            sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00ic-p\x00"),
            "box kind b'ic-p' is not a letter and three",
        ),
        (
            sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00_icc\x00"),
            "box kind b'_icc' is not a letter and three",
        ),
        (
            sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00Iccp\x00"),
            "cannot be shown without its box Iccp, unknown to this lof; update lof",
        ),
        (
            sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00iccp\x00iccp\x01a"),
            "its box b'iccp' comes after b'iccp', not in order",
        ),
        (
            sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00iccp\x00exif\x01a"),
            "its box b'exif' comes after b'iccp', not in order",
        ),
        (
            sealed(HEAD + b"\x0f" + REST + b"\x01\x01\x00" + b"".join(b"b%03d\0" % i for i in range(65))),
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
        ({"quality": 0}, "quality 0 is no multiple of 1/64 up to 1000"),
        ({"quality": -1}, "quality -1 is no"),
        ({"quality": 1001}, "quality 1001 is no"),
        ({"quality": 0.3}, "quality 0.3 is no multiple of 1/64"),
        ({"quality": float("nan")}, "quality nan is no"),
        ({"quality": float("inf")}, "quality inf is no"),
        ({"metric": "psnr"}, "the metric 'psnr' is not one of mse, ms-ssim"),
        ({"fingerprint": b"123"}, "the fingerprint has 3 bytes instead of 4"),
        ({"digest": b""}, "the digest has 0 bytes instead of 4"),
        ({"height": 0}, "768 × 0 pixels"),
        ({"height": -1}, "768 × -1 pixels"),
        ({"width": MAX_SIDE + 1}, "65536 × 512 pixels"),
        (
            {"height": 2**14, "width": 2**14 + 1, "strings": (bytes(999),)},
            "16385 × 16384 pixels are out of range",
        ),
        ({"height": 2**14, "width": 2**14, "strings": (bytes(4079),)}, "cannot come from 4079 bytes"),
        (
            {"codec": "x", "height": 2**14, "width": 2**14, "strings": (bytes(239),)},
            "cannot come from 239 bytes",
        ),
        ({"strings": ()}, "0 strings instead of 1 to 16"),
        ({"strings": (b"",) * 17}, "17 strings instead of 1 to 16"),
        ({"strings": (Huge(),)}, "4 GiB"),
        ({"boxes": {b"icc": b""}}, "box kind b'icc'"),
        ({"boxes": {b"iccpx": b""}}, "box kind b'iccpx'"),
        ({"boxes": {b"ic p": b""}}, "box kind b'ic p'"),
        ({"boxes": {b"Iccp": b""}}, "cannot be shown without its box Iccp"),
        ({"boxes": {b"b%03d" % i: b"" for i in range(65)}}, "more than 64 boxes"),
        ({"boxes": {b"iccp": Huge()}}, "4 GiB"),
    ],
)
def test_a_field_out_of_range_is_refused_by_the_writer(changes: dict[str, object], message: str) -> None:
    with pytest.raises(StreamError, match=rf"^out\.lof: .*{message}"):
        write(replace(KODAK, **changes), "out.lof")


def test_small_boxes_of_unknown_kinds_are_kept() -> None:
    boxes = {b"zzzz": b"later", b"exif": b"now", b"a000": b""}
    assert read(write(replace(KODAK, boxes=boxes))).boxes == boxes


def test_the_order_of_the_boxes_that_are_given_makes_no_difference() -> None:
    boxes = {b"zzzz": b"later", b"exif": b"now", b"a000": b""}
    assert write(replace(KODAK, boxes=boxes)) == write(replace(KODAK, boxes=dict(sorted(boxes.items()))))


def test_every_codec_that_lof_registers_has_a_number() -> None:
    own = {spec.name for spec in codec_specs(hidden=True) if spec.source != "none"}
    assert len(own) > 8
    assert own <= set(CODEC_NUMBERS)
    assert len(set(CODEC_NUMBERS.values())) == len(CODEC_NUMBERS)


def test_a_large_flat_image_is_plausible_and_a_forged_one_is_not() -> None:
    def flat(codec: str, height: int, width: int, size: int) -> Stream:
        return replace(KODAK, codec=codec, height=height, width=width, strings=(bytes(size),))

    for known, most in ((True, KNOWN_PIXELS_PER_BYTE), (False, PIXELS_PER_BYTE)):
        codec = "mean-scale-96" if known else "x"
        for height, width in ((3000, 4000), (2**14, 2**14)):
            check_size(flat(codec, height, width, height * width // most), "flat.lof", pixels_per_byte=most)
    with pytest.raises(StreamError, match="cannot come from 8 bytes of strings"):
        write(flat("x", 2**14, 2**14, 8))
    with pytest.raises(StreamError, match="cannot come from 148 bytes of strings"):
        write(flat("mean-scale-96", 4096, 4096, 148))


def test_an_image_above_the_limit_of_the_reader_is_refused() -> None:
    data = write(KODAK)
    assert read(data, max_pixels=512 * 768) == KODAK
    with pytest.raises(
        StreamError, match=r"^big\.lof: 768 × 512 pixels are more than the limit of 393215; raise"
    ):
        read(data, "big.lof", max_pixels=512 * 768 - 1)
