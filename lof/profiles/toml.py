"""Profiles as TOML text."""

from __future__ import annotations

import json
import re
from typing import Any

from lof.profiles.schema import Profile


def profile_toml(profile: Profile) -> str:
    """The profile with its defaults filled in; parses back to the same profile. No line end at its end."""
    content = profile.model_dump(exclude_none=True)
    stages = content.pop("stage")
    blocks = [_pairs(content)] + [f"[[stage]]\n{_pairs(stage)}" for stage in stages]
    return f"# at most {profile.evaluations} gradient evaluations\n" + "\n\n".join(blocks)


def _toml_value(value: Any) -> str:
    """A value of a profile as TOML writes it."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{_key(key)} = {_toml_value(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    # JSON's strings, numbers and booleans are also TOML's, which escapes one character more.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else _toml_value(key)


def _pairs(content: dict[str, Any]) -> str:
    return "\n".join(f"{key} = {_toml_value(value)}" for key, value in content.items())
