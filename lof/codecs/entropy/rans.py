"""Reading strings that CompressAI's rANS decoder would otherwise read beyond their end."""

from __future__ import annotations


def is_rans(string: bytes) -> bool:
    """Whether a string is one of whole 32-bit words, whose first two hold a state that rANS can be in.

    CompressAI's decoder checks neither, and in a smaller state it takes twice as much for a symbol.
    """
    return len(string) >= 8 and len(string) % 4 == 0 and int.from_bytes(string[:8], "little") >= 2**31


def slack(string: bytes, elements: int) -> bytes:
    """Zeros to append to a string of so many symbols before it is decoded.

    CompressAI's rANS decoder reads on where a string ends too early; a valid string never reaches the
    zeros, a crafted one does not reach foreign memory. A symbol in the table takes at most 16 bits; one
    outside it says in ones, by fours, how many fours of bits follow: 15 for each, so that every word of
    ones is good for 64 bytes more.
    """
    return bytes(4 * elements + 65536 + 64 * string.count(b"\xff" * 4))
