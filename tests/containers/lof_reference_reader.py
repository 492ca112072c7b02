"""A second reader of lof's own container, written from the docstring of ``lof/containers/lof.py`` alone."""

from __future__ import annotations

import struct
import zlib

from lof.containers import Stream


def reference_read(data: bytes) -> Stream:
    """The stream of a whole file; anything else ends in an assertion or worse."""
    body, crc = data[:-4], struct.unpack("<I", data[-4:])[0]
    assert crc == zlib.crc32(body)
    assert body[:4] == b"\xc1of\x02"
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
        6: "msp-fast",
        7: "msp-base",
        8: "msp-high",
        9: "bmshj2018-factorized-relu",
        10: "cheng2020-anchor",
        11: "cheng2020-attn",
        14: "msp-tiny",
        15: "tiny",
        16: "lapped",
        17: "jpeg",
        18: "lapped-tiny",
        19: "jpeg-descriptors",
        20: "jpeg-descriptors-tiny",
        21: "jointiq",
        22: "jointiq-tiny",
    }
    number = varint()
    codec = numbers[number] if number else take(varint()).decode()
    quality = varint() / 64
    flags, fingerprint, digest = struct.unpack("B4s4s", take(9))
    height, width = varint(), varint()
    strings = tuple(take(varint()) for _ in range(flags % 16 + 1))
    boxes = {}
    while at < len(body):
        kind = take(4)
        boxes[kind] = take(varint())
    metric = ("mse", "ms-ssim")[flags // 16]
    return Stream(codec, quality, metric, height, width, strings, fingerprint, digest, boxes)
