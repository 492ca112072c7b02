"""Ways to spoil a good file, for :mod:`pipelines.fuzz`: any bytes, and what is particular to a kind of file."""

from __future__ import annotations

import random
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from safetensors.torch import load, save

from lof.containers import container_of
from lof.containers.lof import MAGIC
from lof.errors import StreamError

NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    15,
    16,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
)


def spoilt(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """``data`` with one to four changes: bits, bytes, numbers, cut, doubled, left out, joined with ``other``."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        size = len(changed)
        # Headers are short and matter most.
        at = rng.randrange(min(size, rng.choice((64, 1024, 2**30))) + 1)
        end = min(size, at + rng.choice((1, 2, 4, 8, 64, 1024)))
        match rng.randrange(8):
            case 0 | 1 if at < size:
                changed[at] ^= 1 << rng.randrange(8)
            case 2 if at < size:
                changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 3:
                width = rng.choice((2, 4, 8))
                number = rng.choice(NUMBERS) & (1 << 8 * width) - 1
                changed[at : at + width] = number.to_bytes(width, rng.choice(("big", "little")))
            case 4:
                del changed[at:]
            case 5:
                del changed[at:end]
            case 6:
                changed[at:at] = changed[at:end] * rng.choice((1, 2, 100))
            case _:
                cut = rng.randrange(len(other) + 1)
                changed[at:end] = other[cut : cut + rng.choice((end - at, 64, 2**20))]
    return bytes(changed)


def spoil_stream(rng: random.Random, data: bytes) -> bytes:
    """The strings changed, or the checksum mended, so that what a decoder gets is not refused before."""
    if data[:2] == b"\xff\xd8" and rng.random() < 0.7:
        return spoil_image(rng, data)
    try:
        kind = container_of(data)
        stream = kind.unpack(data)
        if rng.random() < 0.7:
            strings = [spoilt(rng, s, rng.randbytes(64)) if rng.random() < 0.7 else s for s in stream.strings]
            strings = [s[: len(s) // 4 * 4] for s in strings]  # whole words, or the coder refuses them
            size = rng.choice(
                ((stream.height, stream.width), (1, 1), (rng.randint(1, 130), rng.randint(1, 130)))
            )
            return kind.pack(replace(stream, strings=tuple(strings), height=size[0], width=size[1]))
    except StreamError:
        pass
    head = spoilt(rng, data[:-4], data)
    return head + zlib.crc32(head).to_bytes(4, "little") if head.startswith(MAGIC) else head


def spoil_manifest(rng: random.Random, data: bytes) -> bytes:
    """A value of a row replaced, as somebody could who has SQLite."""
    with sqlite3.connect(":memory:", isolation_level=None) as database:
        database.deserialize(data)
        tables = [
            found[0] for found in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        table = rng.choice(tables)
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
        return database.serialize()


def spoil_packed(rng: random.Random, data: bytes) -> bytes:
    """A header of a tar changed and its checksum mended."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    headers = [at for at, block in enumerate(blocks) if block[257:262] == b"ustar" and len(block) == 512]
    if not headers:
        return spoilt(rng, data, data)
    at = rng.choice(headers)
    block = spoilt(rng, blocks[at], rng.choice(blocks))[:512].ljust(512, b"\0")
    total = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    blocks[at] = block[:148] + b"%06o\0 " % total + block[156:]
    return b"".join(blocks)


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


def spoil_weights(rng: random.Random, data: bytes) -> bytes:
    """A tensor given odd values, another shape or another type."""
    if data[:2] == b"PK":
        return spoilt(rng, data, data)
    state = load(data)
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
