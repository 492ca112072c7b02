"""What a JPEG carries for a codec of lof beside its picture: application segments that every viewer skips.

A codec whose name begins with ``jpeg-`` has two strings: a plain JPEG, and what its own decoder needs to make more of
it. The second travels in segments APP10. Numbers are big-endian::

    2           FF EA
    2           length of what follows, these two bytes included
    4           "lof" and a zero byte: others use APP10 for other things
    1           version, 1
    1, 1        number of this segment, from 1 on, and how many there are

    the contents of all of them, joined in order:
    1, n        length of the codec's name, and the name, ASCII
    4           first bytes of the SHA-256 over the codec's weights
    4           digest of its symbols, see :mod:`lof.containers.digest`
    …           the string
    4           CRC-32 of the joined contents before it
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from lof.errors import StreamError

PREFIX: Final = "jpeg-"
"""How the names of such codecs begin."""
MARKER: Final = 0xEA
_MAGIC: Final = b"lof\0"
_VERSION: Final = 1
_HEAD: Final = 2 + 2 + len(_MAGIC) + 3
_ROOM: Final = 0xFFFF - _HEAD + 2
_MOST: Final = 255
_NAME: Final = re.compile(rb"jpeg-[A-Za-z0-9._-]{1,59}")
_SEGMENT: Final = re.compile(b"\xff" + re.escape(bytes([MARKER])) + b".." + re.escape(_MAGIC), re.DOTALL)


def has_side(data: bytes) -> bool:
    """Whether a file is a JPEG that carries something for a codec of lof, damaged or not."""
    return data.startswith(b"\xff\xd8\xff") and _SEGMENT.search(data) is not None


@dataclass(frozen=True)
class Side:
    """See the module.

    Attributes:
        codec: its name.
        fingerprint, digest: 4 bytes each.
        string: the codec's second.
    """

    codec: str
    fingerprint: bytes
    digest: bytes
    string: bytes

    def segments(self, name: str) -> bytes:
        """All of it.

        Raises:
            StreamError: it has no place; the message starts with ``name``.
        """
        body = bytes([len(self.codec)]) + self.codec.encode() + self.fingerprint + self.digest + self.string
        body += zlib.crc32(body).to_bytes(4)
        parts = [body[at : at + _ROOM] for at in range(0, len(body), _ROOM)]
        sizes = {len(self.fingerprint), len(self.digest)}
        if len(parts) > _MOST or sizes != {4} or not _NAME.fullmatch(self.codec.encode()):
            raise StreamError(f"{name}: a JPEG has no place for this stream; write a lof file instead")
        return b"".join(
            bytes([0xFF, MARKER])
            + (len(part) + _HEAD - 2).to_bytes(2)
            + _MAGIC
            + bytes([_VERSION, number, len(parts)])
            + part
            for number, part in enumerate(parts, start=1)
        )

    @classmethod
    def read(cls, segments: Sequence[bytes]) -> Self | None:
        """What a JPEG's segments APP10 hold, each from its marker on; ``None`` where none of them is lof's.

        Raises:
            ValueError: they are damaged, or of a newer version; the message says so in a few words.
        """
        own = [segment for segment in segments if segment[4 : 4 + len(_MAGIC)] == _MAGIC]
        if not own:
            return None
        if len(own) > _MOST:
            raise ValueError("damaged")
        heads = [segment[4 + len(_MAGIC) : _HEAD] for segment in own]
        if any(head[:1] > bytes([_VERSION]) for head in heads):
            raise ValueError("of a newer version of lof")
        if heads != [bytes([_VERSION, number, len(own)]) for number in range(1, len(own) + 1)]:
            raise ValueError("incomplete")
        body = b"".join(segment[_HEAD:] for segment in own)
        name, rest = body[1 : 1 + body[0]] if body else b"", body[1 + body[0] : -4] if body else b""
        if zlib.crc32(body[:-4]).to_bytes(4) != body[-4:] or len(rest) < 8 or not _NAME.fullmatch(name):
            raise ValueError("damaged")
        return cls(name.decode(), rest[:4], rest[4:8], rest[8:])
