"""The layout of CompressAI's examples/codec.py: agreement with CompressAI itself, and strictness."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from compressai import models, zoo
from compressai.zoo.image import cfgs
from hypothesis import given, settings
from hypothesis import strategies as st

from lof.containers import Stream, container
from lof.containers.base import MAX_SIDE, METRICS
from lof.containers.compressai import PADDING, ZOO_MODELS
from lof.errors import StreamError

COMPRESSAI = container("compressai")
read, write = COMPRESSAI.unpack, COMPRESSAI.pack

KODAK = Stream("mbt2018-mean", 3, "mse", 512, 768, (b"y" * 64, b"z" * 12))
SMALL = Stream("bmshj2018-factorized", 8, "ms-ssim", 1, 65, (b"",))

GOLDEN = {
    "0302000002000000030008000000080000000c0000000200000003797979000000027a7a": replace(
        KODAK, strings=(b"yyy", b"zz")
    ),
    "001700000001000000410800000004000000080000000100000000": SMALL,
}


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    codec = draw(st.sampled_from(sorted(ZOO_MODELS)))
    model = ZOO_MODELS[codec]
    height = draw(st.sampled_from([1, 63, 64, 65, 512]) | st.integers(1, 1024))
    width = draw(st.sampled_from([1, 63, 64, 65, 768]) | st.integers(1, 1024))
    strings = draw(st.lists(st.binary(max_size=200), min_size=model.strings, max_size=model.strings))
    quality, metric = draw(st.integers(1, model.qualities)), draw(st.sampled_from(METRICS))
    return Stream(codec, quality, metric, height, width, tuple(strings))


def reference_read(data: bytes) -> tuple[Stream, tuple[int, ...]]:
    """The steps of the script's decoder, with the numbers of the installed zoo: the stream, and the latent shape."""
    file = io.BytesIO(data)

    def uints(count: int) -> tuple[int, ...]:
        return struct.unpack(f">{count}I", file.read(4 * count))

    model, code = struct.unpack(">2B", file.read(2))
    height, width = uints(2)
    assert struct.unpack(">B", file.read(1)) == (8,)
    shape = uints(2)
    strings = tuple(file.read(uints(1)[0]) for _ in range(uints(1)[0]))
    assert not file.read()
    metric = {0: "mse", 1: "ms-ssim"}[code >> 4]
    return Stream(list(zoo.models)[model], (code & 15) + 1, metric, height, width, strings), shape


@given(streams())
@settings(deadline=None)
def test_what_is_written_is_read_back_by_both_readers(stream: Stream) -> None:
    data = write(stream)
    assert read(data) == stream
    assert reference_read(data)[0] == stream


def test_the_bytes_of_the_layout_are_those_of_the_script() -> None:
    for text, stream in GOLDEN.items():
        assert read(bytes.fromhex(text)) == stream
        assert write(stream).hex() == text


def test_the_table_agrees_with_the_zoo() -> None:
    names = list(zoo.models)
    for name, model in ZOO_MODELS.items():
        assert names[model.number] == name
        assert sorted(cfgs[name]) == list(range(1, model.qualities + 1))
    without_variable_rate = [name for name in zoo.image_models if not name.endswith("-vbr")]
    assert list(ZOO_MODELS) == without_variable_rate


NETWORKS = {
    "bmshj2018-factorized": (models.FactorizedPrior, (4, 4)),
    "bmshj2018-factorized-relu": (models.FactorizedPriorReLU, (4, 4)),
    "bmshj2018-hyperprior": (models.ScaleHyperprior, (4, 4)),
    "mbt2018-mean": (models.MeanScaleHyperprior, (4, 4)),
    "mbt2018": (models.JointAutoregressiveHierarchicalPriors, (4, 4)),
    "cheng2020-anchor": (models.Cheng2020Anchor, (4,)),
    "cheng2020-attn": (models.Cheng2020Attention, (4,)),
}


@pytest.mark.parametrize("codec", sorted(ZOO_MODELS))
def test_the_models_return_the_shape_and_the_strings_that_the_table_says(codec: str) -> None:
    torch.manual_seed(1)
    network_class, sizes = NETWORKS[codec]
    network = network_class(*sizes).eval()
    network.update()
    height, width = 33, 70
    padded = [-(-side // PADDING) * PADDING for side in (height, width)]
    with torch.no_grad():
        out = network.compress(torch.rand(1, 3, *padded))
    strings = tuple(per_image[0] for per_image in out["strings"])
    assert tuple(out["shape"]) == ZOO_MODELS[codec].latent_shape(height, width)
    assert len(strings) == ZOO_MODELS[codec].strings
    held, shape = reference_read(write(Stream(codec, 1, "mse", height, width, strings)))
    with torch.no_grad():
        decoded = network.decompress([[string] for string in held.strings], shape)["x_hat"]
    assert list(decoded.shape) == [1, 3, *padded]


def test_only_the_zoo_codecs_for_images_of_fixed_rate_can_be_held() -> None:
    assert COMPRESSAI.holds("mbt2018-mean")
    assert not COMPRESSAI.holds("mean-scale-96")
    assert not COMPRESSAI.holds("mbt2018-mean-vbr")
    assert not COMPRESSAI.holds("ssf2020")


def test_no_file_of_the_layout_is_taken_for_a_lof_file() -> None:
    for number in range(len(zoo.models)):
        assert not container("lof").recognises(bytes([number]) + b"of")


@pytest.mark.parametrize("stream", [KODAK, SMALL], ids=["kodak", "small"])
def test_a_file_cut_anywhere_is_one_clear_error(stream: Stream) -> None:
    data = write(stream)
    for end in range(len(data)):
        with pytest.raises(StreamError, match=r"^cut\.bin: is cut short .*; copy it again from its source$"):
            read(data[:end], "cut.bin")


def hostile(rng: random.Random) -> Iterator[bytes]:
    """Files with each header bit flipped, with bytes replaced, inserted or overwritten; random bytes."""
    files = [write(stream) for stream in (KODAK, SMALL)]
    for data in files:
        for at in range(23):
            for bit in range(8):
                yield data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
    for _ in range(4000):
        data = bytearray(rng.choice(files))
        at, noise = rng.randrange(len(data) + 1), rng.randbytes(rng.choice([0, 1, 2, 5, 40]))
        match rng.randrange(4):
            case 0:
                data[at : at + len(noise)] = noise
            case 1:
                data[at:at] = noise
            case 2:
                data[at : at + 4] = b"\xff\xff\xff\xff"
            case _:
                data = bytearray([rng.randrange(8)]) + rng.randbytes(rng.randrange(60))
        yield bytes(data)


def test_hostile_bytes_give_a_stream_error_or_a_canonical_stream() -> None:
    accepted = refused = 0
    for data in hostile(random.Random(2022)):
        try:
            stream = read(data)
        except StreamError:
            refused += 1
        else:
            assert write(stream) == data
            assert reference_read(data)[0] == stream
            accepted += 1
    assert accepted > 100
    assert refused > 2000


def test_reading_hostile_bytes_allocates_in_proportion_to_them() -> None:
    tracemalloc.start()
    try:
        for data in hostile(random.Random(7)):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with contextlib.suppress(StreamError):
                read(data)
            assert tracemalloc.get_traced_memory()[1] - before < 2 * len(data) + 20_000
    finally:
        tracemalloc.stop()


def header(**changes: object) -> bytes:
    fields = {"model": 3, "code": 2, "size": (512, 768), "depth": 8, "shape": (8, 12), "count": 2} | changes
    flat = [
        number for value in fields.values() for number in (value if isinstance(value, tuple) else (value,))
    ]
    return struct.pack(">BBIIBIII", *flat)


STRINGS = b"\0\0\0\x01y\0\0\0\x01z"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"\x89PNG\r\n\x1a\n" + bytes(40),
            "is no file of CompressAI's codec.py .*; check the path",
        ),
        (header(model=7) + STRINGS, "is no file of CompressAI's codec.py"),
        (header(code=8) + STRINGS, "mbt2018-mean has the qualities 1 to 8, not 9"),
        (header(model=5, code=6) + STRINGS, "cheng2020-anchor has the qualities 1 to 6, not 7"),
        (header(code=0x22) + STRINGS, "there is no metric number 2"),
        (header(depth=10) + STRINGS, "says 10 bits per sample where lof reads 8"),
        (
            header()[:10] + header()[11:] + STRINGS,
            "says 0 bits per sample .*left this number out.; encode the image",
        ),
        (header(count=1) + STRINGS[:5], "the number of strings of mbt2018-mean is 2, not 1"),
        (header(count=2**32 - 1) + STRINGS, "the number of strings of mbt2018-mean is 2, not 4294967295"),
        (header(model=0, shape=(32, 48)) + STRINGS, "strings of bmshj2018-factorized is 1, not 2"),
        (header(size=(0, 768), shape=(0, 12)) + STRINGS, "768 × 0 pixels are out of range"),
        (header(size=(65536, 1), shape=(1024, 1)) + STRINGS, "1 × 65536 pixels are out of range"),
        (
            header(size=(2**14, 2**14), shape=(256, 256)) + STRINGS,
            "pixels cannot come from 2 bytes of strings",
        ),
        (header(size=(513, 768)) + STRINGS, "latent shape 8 × 12 does not fit its image, which needs 9 × 12"),
        (header(shape=(32, 48)) + STRINGS, "latent shape 32 × 48 does not fit"),
        (header() + STRINGS + b"\0", "the bytes after its last string .1. belong to nothing"),
        (header() + b"\xff\xff\xff\xff" + STRINGS, "is cut short .4294967295 bytes wanted"),
    ],
)
def test_each_way_of_being_wrong_has_its_message(data: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=rf"^holiday\.bin: .*{message}") as caught:
        read(data, "holiday.bin")
    text = str(caught.value)
    assert text.count("holiday.bin") == 1
    assert "\n" not in text
    assert text.rpartition("; ")[2].startswith(("copy ", "check ", "encode ", "compress "))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codec": "mean-scale-96"}, "no place for the codec mean-scale-96.*; write a lof file instead"),
        ({"quality": 0}, "qualities 1 to 8, not 0"),
        ({"quality": 9}, "qualities 1 to 8, not 9"),
        ({"metric": "psnr"}, "metric 'psnr' is not one of mse, ms-ssim"),
        ({"height": 0}, "768 × 0 pixels are out of range"),
        ({"width": MAX_SIDE + 1}, "pixels are out of range"),
        ({"quality": 1.5}, "qualities 1 to 8, not 1.5"),
        (
            {"boxes": {b"exif": b"II"}},
            "CompressAI's layout holds no metadata; leave it out or write a lof file",
        ),
        ({"strings": (b"y",)}, "strings of mbt2018-mean is 2, not 1"),
    ],
)
def test_a_field_out_of_range_is_refused_by_the_writer(changes: dict[str, object], message: str) -> None:
    with pytest.raises(StreamError, match=rf"^out\.bin: .*{message}"):
        write(replace(KODAK, **changes), "out.bin")
