"""Values of profiles as TOML."""

from __future__ import annotations

import json
from typing import Any


def toml_value(value: Any) -> str:
    """A value of a profile as TOML writes it."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    # JSON's strings, numbers and booleans are also TOML's.
    return json.dumps(value, ensure_ascii=False)
