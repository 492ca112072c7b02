"""What holds for every container, and the digest of the symbols."""

from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import lof
from lof.containers import CONTAINERS, Stream, container, container_of, unpack
from lof.containers.digest import check_digest, symbols_digest
from lof.errors import StreamError, UsageError
from lof.pictures.picture import BOX_NAMES

STREAM = Stream("mbt2018-mean", 3, "mse", 65, 63, (b"y" * 64, b"z" * 12), b"1234", b"abcd")
EXIF = bytes.fromhex("49492a0008000000 0100 1201 0300 01000000 01000000 00000000")
BOXES = {
    b"iccp": bytes(36) + b"acsp" + bytes(200),
    b"exif": EXIF,
    b"xmpd": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>",
    b"iptc": b"\x1c\x02\x05\x00\x04name",
    b"reso": struct.pack(">IIB", 11811, 11811, 1),
}
"""A box of each kind that says something, as containers that put it where others look for it want it."""


def jpeg_stream() -> Stream:
    """What JPEGs hold: the file of a picture of one colour, of no program in particular."""
    file = io.BytesIO()
    Image.new("RGB", (63, 65), "teal").save(file, "JPEG", quality=75)
    return replace(unpack(file.getvalue()), container="")


def stream_for(name: str) -> Stream:
    return jpeg_stream() if name == "jpeg" else STREAM


SYMBOLS = {"z": np.array([[[1, -2]]]), "y": np.arange(-4, 4).reshape(2, 2, 2)}


@pytest.fixture(params=sorted(CONTAINERS))
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_a_container_recognises_its_own_files_and_nobody_elses(name: str) -> None:
    data = container(name).pack(stream_for(name))
    assert container_of(data) is container(name)
    assert [known.name for known in CONTAINERS.values() if known.recognises(data[:4])] == [name]


def test_a_file_says_what_it_was_given_and_which_container_it_is(name: str) -> None:
    stream = stream_for(name)
    read = unpack(container(name).pack(stream))
    assert read.container == name
    assert read in (stream, replace(stream, fingerprint=b"", digest=b""), replace(stream, fingerprint=b""))


def test_the_suffixes_tell_containers_apart() -> None:
    suffixes = [known.suffix for known in CONTAINERS.values()]
    assert len(set(suffixes)) == len(suffixes)
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in suffixes)


def test_a_container_keeps_the_metadata_that_it_names_and_refuses_the_rest(name: str) -> None:
    assert BOXES.keys() == BOX_NAMES.keys()
    for kind, box in BOXES.items():
        boxed = replace(stream_for(name), boxes={kind: box})
        if container(name).keeps(kind, box):
            assert unpack(container(name).pack(boxed)).boxes == {kind: box}
        else:
            with pytest.raises(StreamError, match=r"^out: .* holds no metadata; leave it out or write"):
                container(name).pack(boxed, "out")


def test_our_container_keeps_every_kind_of_metadata_and_no_box_that_it_does_not_understand() -> None:
    assert all(container("lof").keeps(kind, b"") for kind in BOX_NAMES)
    assert not any(container("lof").keeps(kind, b"") for kind in [b"Iccp", b"icc", b"ic-p", b"1ccp"])


def test_a_limit_on_pixels_holds_in_every_container(name: str) -> None:
    data = container(name).pack(stream_for(name))
    assert unpack(data, max_pixels=65 * 63).width == 63
    with pytest.raises(StreamError, match=r"^big: 63 × 65 pixels are more than the limit of 4094; raise"):
        unpack(data, "big", 65 * 63 - 1)


def test_our_container_holds_every_codec_and_compressais_those_of_the_zoo() -> None:
    container("lof").require("somebodys")
    container("compressai").require("mbt2018")
    with pytest.raises(
        UsageError, match=r"^format compressai holds zoo codecs only, not tiny; use --format lof$"
    ):
        container("compressai").require("tiny")


def test_an_unknown_container_is_a_usage_error_that_lists_the_known_ones() -> None:
    known = ", ".join(CONTAINERS)
    with pytest.raises(UsageError, match=rf"^format 'zip': unknown; use one of {known}$"):
        container("zip")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n", "is no stream"),
        (b"\xc1", "is no stream"),
        (b"\xff", "is no stream"),
    ],
)
def test_a_file_in_no_container_is_one_clear_error(data: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=rf"^a\.txt: {message} \(.*\); check the path$"):
        container_of(data, "a.txt")


def test_each_container_rounds_as_its_decoders_do() -> None:
    decoded = torch.tensor([-0.1, 0.0, 0.4 / 255, 0.6 / 255, 99.9 / 255, 254.6 / 255, 1.0, 1.1]).expand(
        3, 1, 8
    )
    found = {known: CONTAINERS[known].to_pixels(decoded)[0, :, 0].tolist() for known in CONTAINERS}
    assert found["lof"] == [0, 0, 0, 1, 100, 255, 255, 255]
    assert found["compressai"] == [0, 0, 0, 0, 99, 254, 255, 255]


def test_levels_that_a_container_gives_stay_what_they_are(name: str) -> None:
    levels = np.arange(256, dtype=np.float32).reshape(1, 16, 16).repeat(3, 0)
    decoded = torch.from_numpy(levels) / 255
    same = container(name).to_pixels(decoded + container(name).pixel_offset / 255)
    assert np.array_equal(same, levels.transpose(1, 2, 0))


def test_containers_need_neither_torch_nor_the_codecs() -> None:
    code = """
import sys, lof.containers, lof.containers.digest
loaded = {"torch", "compressai", "lof.codecs", "lof.api"} & set(sys.modules)
sys.exit(f"{loaded}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class TestDigest:
    def test_it_is_what_its_description_says(self) -> None:
        described = b"\x01z" + struct.pack("<3I2i", 1, 1, 2, 1, -2)
        described += b"\x01y" + struct.pack("<3I8i", 2, 2, 2, *range(-4, 4))
        assert symbols_digest(SYMBOLS) == hashlib.sha256(described).digest()[:4]

    def test_its_bytes_never_change(self) -> None:
        assert symbols_digest(SYMBOLS).hex() == "a52a1ca4"

    def test_the_type_of_the_integers_and_a_batch_of_one_make_no_difference(self) -> None:
        for dtype in (np.int8, np.int16, np.int32, np.int64, ">i4"):
            same = {key: value.astype(dtype)[None] for key, value in SYMBOLS.items()}
            assert symbols_digest(same) == symbols_digest(SYMBOLS)
        strided = {key: np.asfortranarray(value) for key, value in SYMBOLS.items()}
        assert symbols_digest(strided) == symbols_digest(SYMBOLS)

    @pytest.mark.parametrize(
        "other",
        [
            {"z": SYMBOLS["z"] + 1, "y": SYMBOLS["y"]},
            {"z": SYMBOLS["z"], "y": -SYMBOLS["y"]},
            {"y": SYMBOLS["y"], "z": SYMBOLS["z"]},
            {"z": SYMBOLS["z"], "x": SYMBOLS["y"]},
            {"z": SYMBOLS["z"].reshape(2, 1, 1), "y": SYMBOLS["y"]},
            {"y": SYMBOLS["y"]},
        ],
    )
    def test_any_other_symbols_names_order_or_shape_show(self, other: dict[str, NDArray[np.int64]]) -> None:
        assert symbols_digest(other) != symbols_digest(SYMBOLS)

    def test_what_is_no_set_of_integers_of_one_image_is_refused(self) -> None:
        with pytest.raises(TypeError, match="the symbols of y are float32, not integers"):
            symbols_digest({"y": np.zeros((1, 1, 1), np.float32)})
        with pytest.raises(ValueError, match="the symbols of y are those of several images"):
            symbols_digest({"y": np.zeros((2, 1, 1, 1), np.int32)})

    def test_other_symbols_than_were_written_are_an_error_with_the_file_the_cause_and_the_way_out(
        self,
    ) -> None:
        written = replace(STREAM, digest=symbols_digest(SYMBOLS))
        check_digest(written, SYMBOLS, "a.lof")
        check_digest(replace(written, digest=b""), {}, "a.bin")
        with pytest.raises(
            StreamError, match=r"^a\.lof: decodes to noise here, .* on a machine like the writer's"
        ) as caught:
            check_digest(written, {"z": SYMBOLS["z"], "y": SYMBOLS["y"] + 1}, "a.lof")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("fingerprint", "portable"), [(STREAM.fingerprint, True), (hashlib.sha256().digest()[:4], False)]
    )
    def test_no_cpu_is_blamed_where_it_cannot_be_the_cause(self, fingerprint: bytes, portable: bool) -> None:
        written = replace(STREAM, digest=symbols_digest(SYMBOLS), fingerprint=fingerprint)
        with pytest.raises(
            StreamError, match=r"^a\.lof: other symbols .* version of mbt2018-mean; "
        ) as caught:
            check_digest(written, {name: -one for name, one in SYMBOLS.items()}, "a.lof", portable=portable)
        assert "CPU" not in str(caught.value)

    @pytest.mark.parametrize("codec", ["tiny", "msp-tiny"])
    def test_every_stream_carries_the_digest_of_what_its_decoder_reads(
        self, codec: str, crop: NDArray[np.uint8]
    ) -> None:
        loaded = lof.load_codec(codec, device="cpu")
        stream = unpack(lof.encode(crop, codec=loaded))
        symbols = loaded.decompress(stream.strings, stream.height, stream.width).symbols
        check_digest(stream, {key: symbols[key].numpy() for key in loaded.latents}, "a.lof")
        symbols["y"][0, 0, 0, 0] += 1
        with pytest.raises(StreamError, match="noise"):
            check_digest(stream, {key: symbols[key].numpy() for key in loaded.latents}, "a.lof")


def test_other_codecs_whose_names_begin_like_jpeg_have_no_place_in_a_jpeg() -> None:
    assert lof.containers.container_for("jpeg-xl") == "lof"
    assert lof.containers.container_for("jpeg-descriptors") == "jpeg"


@pytest.mark.parametrize("quality", [4.5, 0.0, 150.0])
def test_a_jpeg_has_whole_qualities(quality: float) -> None:
    stream = unpack(lof.encode(np.full((8, 8, 3), 90, np.uint8), codec="jpeg"))
    with pytest.raises(StreamError, match=rf"whole qualities from 1 to 100, not {quality:g}"):
        container("jpeg").pack(replace(stream, quality=quality))
