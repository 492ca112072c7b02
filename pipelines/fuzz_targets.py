"""What :mod:`pipelines.fuzz` reads: a reader for each kind of file, seeds for it, and ways to spoil them."""

from __future__ import annotations

import io
import random
import shutil
import sqlite3
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, features
from safetensors.torch import load, save

from lof.api import decode_stream, encode
from lof.archive import Manifest, restore, verify
from lof.codecs import codec_spec
from lof.containers import SUFFIXES, container_of, unpack
from lof.containers.lof import MAGIC
from lof.errors import StreamError
from lof.pictures.reading import read_picture
from lof.pools import ThisProcess
from lof.profiles import load_profile, profile_toml
from pipelines.fuzz import NUMBERS, Target, spoilt

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures" / "v0.1"
ARCHIVE, ZOO = FIXTURES / "archive", FIXTURES / "weights"
MAX_PIXELS = 2**20
"""A small file may be a large picture, which rightly takes its time and memory; no such file is a case here."""


def read_stream(data: bytes, folder: Path) -> object:
    """Decode a stream of any container."""
    stream = unpack(data, "case", MAX_PIXELS)
    own = codec_spec(stream.codec).source == "zoo"
    picture, _ = decode_stream(stream, name="case", weights=ZOO if own else None)
    return picture.pixels.shape


def spoil_stream(rng: random.Random, data: bytes) -> bytes:
    """The strings changed, or the checksum mended, so that what a decoder gets is not refused before."""
    try:
        kind = container_of(data)
        stream = kind.unpack(data)
        if rng.random() < 0.7:
            strings = [spoilt(rng, s, rng.randbytes(64)) if rng.random() < 0.7 else s for s in stream.strings]
            strings = [s[: len(s) // 4 * 4] for s in strings]  # whole words, or the coder refuses them
            size = rng.choice(
                ((stream.height, stream.width), (1, 1), (rng.randint(1, 300), rng.randint(1, 300)))
            )
            return kind.pack(replace(stream, strings=tuple(strings), height=size[0], width=size[1]))
    except StreamError:
        pass
    head = spoilt(rng, data[:-4], data)
    return head + zlib.crc32(head).to_bytes(4, "little") if head.startswith(MAGIC) else head


def stream_seeds() -> dict[str, bytes]:
    """One of each family in each container, as every later version must read them."""
    names = ("bmshj2018-*", "mbt2018-*", "tiny-*", "msp-tiny-*", "msp-base-mse-4*", "mean-scale-96-mse-4*")
    paths = [path for name in names for path in FIXTURES.glob(name) if path.suffix in SUFFIXES]
    return {path.name: path.read_bytes() for path in paths}


def read_manifest(data: bytes, folder: Path) -> object:
    """List, verify and restore an archive with this manifest."""
    dst = folder / "archive"
    shutil.copytree(ARCHIVE, dst)
    (dst / "manifest.sqlite").write_bytes(data)
    with Manifest(dst) as manifest:
        manifest.totals(), manifest.failures(), manifest.sources(), list(manifest.rows())
    found = verify(dst, ThisProcess())
    return len(found.findings), len(restore(dst, folder / "out", ThisProcess()).errors)


def spoil_manifest(rng: random.Random, data: bytes) -> bytes:
    """A value of a row replaced, as somebody could who has SQLite."""
    with sqlite3.connect(":memory:", isolation_level=None) as database:
        try:
            database.deserialize(data)
            table = rng.choice(("files", "files", "sources", "totals", "pending"))
            column = rng.choice([found[1] for found in database.execute(f"PRAGMA table_info({table})")])
            path = "streams/../" * rng.randrange(3) + "a" * rng.choice((1, 300)) + "/x"
            value = rng.choice(
                (
                    None,
                    -1,
                    2**62,
                    1e308,
                    float("inf"),
                    "",
                    "x",
                    "../x",
                    "/x",
                    path,
                    b"\xff\0",
                    "a\0b",
                    "{}",
                    "[]",
                )
            )
            database.execute(f"UPDATE {table} SET {column} = ? WHERE random() % 2 = 0", (value,))
        except sqlite3.Error:
            return spoilt(rng, data, data)
        return database.serialize()


def read_profile(data: bytes, folder: Path) -> object:
    """Load a profile and print it."""
    path = folder / "case.toml"
    path.write_bytes(data)
    return bool(profile_toml(load_profile(path)))


def spoil_words(rng: random.Random, data: bytes) -> bytes:
    """A word replaced by another one or by an odd value."""
    words = data.split(b" ")
    odd = (
        b"nan",
        b"inf",
        b"-1",
        b"1e400",
        b"9" * 5000,
        b"[]",
        b"{}",
        b'""',
        b"[" * 2000,
        b"1979-05-27",
        b"true",
    )
    words[rng.randrange(len(words))] = rng.choice((*odd, *words))
    return b" ".join(words)


def read_weights(data: bytes, folder: Path) -> object:
    """Load weights, then write and read a picture with them."""
    names = {b"prior.": "msp-tiny", b"h_s.": "mbt2018-mean", b"": "bmshj2018-factorized"}
    name = next(name for part, name in names.items() if part in data[:20000])
    quality = 4 if name == "msp-tiny" else 1
    suffix = ".pth" if data[:2] == b"PK" else ".safetensors"
    (folder / f"{name}-{quality}{suffix}").write_bytes(data)
    codec = codec_spec(name).load(quality, weights=folder, device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return codec.decompress(unpack(encode(pixels, codec=codec)).strings, 40, 50).image.shape


def weights_seeds() -> dict[str, bytes]:
    """Small ones of three families, and one as PyTorch saves it."""
    tiny = Path(__file__).parents[1] / "lof" / "codecs" / "data" / "msp-tiny-4.safetensors"
    small = [ZOO / "bmshj2018-factorized-1.safetensors", ZOO / "mbt2018-mean-1.safetensors"]
    seeds = {path.name: path.read_bytes() for path in (tiny, *small)}
    buffer = io.BytesIO()
    torch.save(load(small[0].read_bytes()), buffer)
    return seeds | {"bmshj2018-factorized-1.pth": buffer.getvalue()}


def spoil_weights(rng: random.Random, data: bytes) -> bytes:
    """A tensor given odd values, another shape or another type."""
    if data[:2] == b"PK":
        return spoilt(rng, data, data)
    try:
        state = load(data)
    except Exception:  # spoilt before
        return spoilt(rng, data, data)
    tables = [
        key for key in state if key.rpartition(".")[2].startswith(("_", "sizes", "order", "scale", "quant"))
    ]
    key = rng.choice(rng.choice((tables or list(state), list(state))))
    value = state[key].clone()
    match rng.randrange(5):
        case 0 if value.numel():
            odd = [*NUMBERS, -1, -(2**31)] + ([1e38, float("nan")] if value.is_floating_point() else [])
            places = value.reshape(-1).double()
            places[torch.randint(value.numel(), (rng.choice((1, 1, 5)),))] = float(rng.choice(odd))
            limits = torch.finfo(value.dtype) if value.is_floating_point() else torch.iinfo(value.dtype)
            value = places.clamp(limits.min, limits.max).reshape(value.shape).to(value.dtype)
        case 1:
            value = value * rng.choice((0, -1, 2))
        case 2:
            value = value[:-1] if value.ndim else value[None]
        case 3:
            value = value.reshape(1, *value.shape) if rng.random() < 0.5 else value.reshape(-1)
        case _:
            value = value.to(rng.choice((torch.float16, torch.int64, torch.uint8, torch.bool)))
    state[key] = value.contiguous()
    if rng.random() < 0.1:
        del state[rng.choice(list(state))]
    return save(state)


def read_image(data: bytes, folder: Path) -> object:
    """Read a picture of whatever format."""
    return read_picture("case", data, max_pixels=MAX_PIXELS).pixels.shape


def picture_seeds() -> dict[str, bytes]:
    """One picture in the formats that Pillow writes here, with an ICC profile and EXIF."""
    ramp = np.add.outer(np.arange(40), np.arange(33)) * 3 % 256
    image = Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2], 2).astype(np.uint8))
    exif = Image.Exif()
    exif[274], exif[305] = 6, "lof"
    seeds = {}
    for name, of in (("JPEG", image), ("PNG", image), ("TIFF", image), ("BMP", image), ("PPM", image)):
        seeds[name] = _saved(of, name, exif=exif.tobytes()) if name in ("JPEG", "PNG") else _saved(of, name)
    seeds |= {"GIF": _saved(image.convert("P"), "GIF"), "CMYK": _saved(image.convert("CMYK"), "JPEG")}
    seeds |= {
        "progressive": _saved(image, "JPEG", progressive=True),
        "LA": _saved(image.convert("LA"), "PNG"),
    }
    for name, feature in (("WEBP", "webp"), ("JPEG2000", "jpg_2000"), ("AVIF", "avif")):
        if features.check(feature):
            seeds[name] = _saved(image, name)
    return seeds


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def spoil_image(rng: random.Random, data: bytes) -> bytes:
    """A segment of a JPEG or a chunk of a PNG changed, doubled or left out; lengths and checksums are mended."""
    if data[:4] == b"\x89PNG":
        parts = list(_chunks(data))
    elif data[:2] == b"\xff\xd8":
        parts = list(_segments(data))
    else:
        parts = []
    if not parts:  # another format, or one that an earlier case has cut short
        return spoilt(rng, data, data)
    at = rng.randrange(len(parts))
    kind, content = parts[at]
    match rng.randrange(4):
        case 0:
            del parts[at]
        case 1:
            parts.insert(rng.randrange(len(parts) + 1), parts[at])
        case _:
            parts[at] = (kind, spoilt(rng, content, rng.choice(parts)[1]))
    if data[:4] == b"\x89PNG":
        whole = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts)
        return data[:8] + b"".join(whole)
    return data[:2] + b"".join(
        k + (c if k == b"\xff\xda" else struct.pack(">H", min(len(c) + 2, 65535)) + c) for k, c in parts
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        yield data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        place += 12 + size


def _segments(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 2
    while place + 4 <= len(data):
        kind, (size,) = data[place : place + 2], struct.unpack_from(">H", data, place + 2)
        if kind == b"\xff\xda":  # the entropy-coded rest
            yield kind, data[place + 2 :]
            return
        yield kind, data[place + 4 : place + 2 + size]
        place += 2 + size


def profile_seeds() -> dict[str, bytes]:
    """The profiles that ship."""
    return {name: profile_toml(load_profile(name)).encode() for name in ("fast", "medium", "high", "max")}


TARGETS: Mapping[str, Target] = {
    "stream": Target(read_stream, stream_seeds, spoil_stream),
    "manifest": Target(
        read_manifest, lambda: {"manifest": (ARCHIVE / "manifest.sqlite").read_bytes()}, spoil_manifest
    ),
    "profile": Target(read_profile, profile_seeds, spoil_words),
    "weights": Target(read_weights, weights_seeds, spoil_weights),
    "picture": Target(read_image, picture_seeds, spoil_image),
}
