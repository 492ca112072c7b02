"""How figures are written for people: one form for the terminal and the page."""

from __future__ import annotations

import math
import re
import unicodedata

from rich.cells import cell_len, set_cell_size

ABSENT = "–"
INFINITE = "∞"

_PASSWORD = re.compile(r"(\w://[^\s/:@]*:)[^\s/@]+@")


def printable(text: str) -> str:
    """``text`` for people: every space is a plain one; control characters, lone surrogates and the like become
    �; the password of a URL becomes ``***``."""
    text = _PASSWORD.sub(r"\1***@", text)
    return "".join(
        c if c.isprintable() else " " if unicodedata.category(c) == "Zs" else "\ufffd" for c in text
    )


def decimal(value: float | None, places: int) -> str:
    """``0.412``; ``–`` for ``None``, ``∞`` for infinity."""
    if value is None:
        return ABSENT
    if math.isinf(value):
        return INFINITE
    return f"{value:.{places}f}".replace("-", "−")


def bits_per_pixel(value: float) -> str:
    """Three decimals, fewer from 10 on."""
    return decimal(value, 3 if value < 9.9995 else 2)


def decibels(value: float | None) -> str:
    """Two decimals; ``∞`` for a lossless result."""
    return decimal(value, 2)


def similarity(value: float | None) -> str:
    """Four decimals without the leading zero; ``–`` where the image is too small for MS-SSIM."""
    if value is None:
        return ABSENT
    text = decimal(value, 4)
    return "1.000" if text == "1.0000" else text.replace("0.", ".", 1)


def percent(share: float) -> str:
    """``−12.3 %`` of ``-0.123``, with the sign always shown but for zero."""
    text = f"{100 * share:+.1f}"
    return "0.0 %" if float(text) == 0 else f"{text.replace('-', '−')} %"


def count(value: int) -> str:
    """``12 400``: thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def plural(value: int, noun: str) -> str:
    """``1 stream``, ``12 400 streams``."""
    return f"{count(value)} {noun}{'s' * (value != 1)}"


def short_count(value: int) -> str:
    """At most five characters below 10 billion: ``12400``, ``124k``, ``12M``."""
    if value < 10**5:
        return str(value)
    return f"{value // 1000}k" if value < 10**7 else f"{value // 10**6}M"


def size(value: int | None) -> str:
    """``812 B``, ``4.91 kB``, ``125 MB``, in powers of 1000; ``–`` for ``None``."""
    if value is None:
        return ABSENT
    if value < 1000:
        return f"{value} B"
    scaled = float(value)
    for unit in ("kB", "MB", "GB", "TB"):
        scaled /= 1000
        if scaled < 999.5 or unit == "TB":
            break
    return f"{scaled:.{max(0, 3 - len(str(int(scaled))))}f} {unit}"


def duration(seconds: float) -> str:
    """``3.4 s``, ``42 s``, ``5m12s``, ``3h05m``: at most six characters below 100 hours."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def shorten(text: str, width: int) -> str:
    """``text`` cut in its middle to ``width`` terminal cells: the ends of a path say more than its middle."""
    if cell_len(text) <= width:
        return text
    if width < 2:
        return "…"[:width]
    tail = (width - 1) * 3 // 5
    return f"{set_cell_size(text, width - 1 - tail)}…{set_cell_size(text[::-1], tail)[::-1]}"
