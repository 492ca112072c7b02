"""The codec of the documentation, for tests that spoil it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lof.codecs import Codec, Request

README = Path(__file__).parents[2] / "lof" / "codecs" / "README.md"


def python_blocks() -> list[str]:
    """The Python in the documentation: a codec, and how to check it."""
    return re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def guest(version: int = 1) -> Any:
    """The module of the documentation's codec; it is not registered, so that no other test sees it."""
    module: dict[str, Any] = {}
    source = python_blocks()[0].replace("@register(SPEC)", "")
    exec(source.replace('b"cosine 1"', f'b"cosine {version}"'), module)
    return SimpleNamespace(**module)


def loaded(kind: type[Codec], quality: float = 4.0) -> Codec:
    """A codec of such a class, as its loader makes it."""
    spec = guest().SPEC
    return kind(Request(spec, "mse", quality, spec.rate_point("mse", quality)))  # type: ignore[call-arg]
