"""Profiles from TOML files: those that lof ships, by name, and anybody's, by path."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from os.path import isfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lof.errors import LofError, ProfileError
from lof.files.storage import open_read
from lof.profiles.schema import Profile

BUILT_IN = ("fast", "medium", "high", "max")
"""Shipped profiles, cheapest first."""

_SENTENCES = {
    "extra_forbidden": "unknown key; {unknown}",
    "missing": "is missing",
    "value_error": "{error}",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "multiple_of": "must be a multiple of {multiple_of:g}",
    "finite_number": "must be a finite number",
    "float_type float_parsing": "must be a number",
    "int_type int_parsing int_from_float int_parsing_size": "must be a whole number",
    "bool_type bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters",
    "literal_error": "must be {expected}",
    "tuple_type list_type": "must be a list",
    "dict_type model_type model_attributes_type": "must be a table",
    "too_short": "must be a list of at least {min_length}",
    "too_long": "must be a list of at most {max_length}",
    "union_tag_invalid": "{discriminator} must be one of {expected_tags}",
    "union_tag_not_found": "{discriminator} is missing",
}
"""What is wrong, by pydantic's types of errors, whose own sentences speak of inputs and tuples."""


def load_profile(name_or_path: str | Path) -> Profile:
    """A shipped profile by name, or any profile by the path of its TOML file.

    Raises:
        ProfileError: there is none, or the file does not fit the schema; the message names file, key and
            what is allowed.
    """
    text = str(name_or_path)
    if text in BUILT_IN:
        return _parse(profile_folder() / f"{text}.toml")
    path = Path(text)
    if path.suffix == ".toml" or isfile(path):
        return _parse(path)
    near = difflib.get_close_matches(text, BUILT_IN, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"use {', '.join(BUILT_IN)} or the path of a TOML file"
    raise ProfileError(f"profile {text!r}: unknown; {hint}")


def profile_folder() -> Path:
    """Where the shipped profiles are: inside an installed package, or beside it in a checkout."""
    installed = Path(str(files("lof"))) / "_profiles"
    return installed if installed.is_dir() else Path(str(files("lof"))).parent / "profiles"


def parse_profile(content: dict[str, Any], origin: str = "profile") -> Profile:
    """A profile from already parsed TOML or any dictionary; ``origin`` is what errors call it.

    Raises:
        ProfileError: it does not fit the schema.
    """
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        raise ProfileError(f"{origin}: {describe_validation(error, content)}") from error


def describe_validation(
    error: ValidationError, content: Any, unknown: str = "see `lof profiles --schema`"
) -> str:
    """The first finding of a pydantic error as ``key: what is allowed``, the others counted.

    Args:
        content: what does not fit the schema.
        unknown: what there is to say about a key that the schema does not have.
    """
    findings: dict[tuple[str | int, ...], Any] = {}
    for one in error.errors():
        # Where a value may be of several types, each has a finding; the first is the likeliest.
        findings.setdefault(_keys(one["loc"], one["type"], content), one)
    # A list with one bad entry is called too short as well: of findings one within the other, the inner counts.
    outer = {keys[:length] for keys in findings for length in range(len(keys))}
    inner = [keys for keys in findings if keys not in outer]
    first = findings[inner[0]]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in inner[0]).lstrip(".")
    kind = next((words for types, words in _SENTENCES.items() if first["type"] in types.split()), "")
    message = kind.format(unknown=unknown, **first.get("ctx", {})) or "cannot have this value"
    more = f" (and {len(inner) - 1} more)" if len(inner) > 1 else ""
    return f"{key or 'file'}: {message}{more}"


def _keys(location: tuple[str | int, ...], kind: str, content: Any) -> tuple[str | int, ...]:
    """The keys of a finding's location, which also holds what pydantic calls the members of a union."""
    keys: list[str | int] = []
    for number, part in enumerate(location, start=1):
        absent = kind == "missing" and number == len(location)
        if not absent and isinstance(part, str) and not (isinstance(content, Mapping) and part in content):
            continue
        keys.append(part)
        goes_on = not absent and isinstance(content, Mapping | list | tuple)
        content = content[part] if goes_on else None
    return tuple(keys)


def read_toml(path: Path, refused: type[LofError], remedy: str) -> dict[str, Any]:
    """The content of a TOML file, its ``name`` that of the file unless it says another.

    Raises:
        LofError: of the kind ``refused``: it cannot be read (the message ends with ``remedy``) or is not TOML.
    """
    try:
        with open_read(path) as file:
            content = tomllib.load(file)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise refused(f"{path}: cannot be read ({reason}); {remedy}") from error
    except tomllib.TOMLDecodeError as error:
        raise refused(f"{path}: not valid TOML ({error}); correct that line") from error
    except (RecursionError, ValueError) as error:
        what = "a number of thousands of digits" if isinstance(error, ValueError) else "nested too deep"
        raise refused(f"{path}: not readable as TOML ({what}); correct it") from error
    return {"name": path.stem} | content


def _parse(path: Path) -> Profile:
    return parse_profile(read_toml(path, ProfileError, "name a profile in TOML"), str(path))
