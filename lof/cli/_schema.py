"""Every key of a profile, from the models themselves."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lof.profiles import schema as models
from lof.profiles.toml import toml_value

Schema = dict[str, Any]

_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_LENGTHS = {"minLength": "characters ≥", "maxLength": "characters ≤", "minItems": "entries ≥"}


def print_schema() -> None:
    """One table for the profile, for each kind of stage, and for each table that they hold."""
    schema = models.Profile.model_json_schema()
    definitions: dict[str, Schema] = schema["$defs"]
    stages = schema["properties"]["stage"]["items"]["discriminator"]["mapping"]
    kinds = {_definition(reference): kind for kind, reference in stages.items()}
    console = Console(highlight=False)
    _print_model(console, "profile", schema)
    for name, kind in kinds.items():
        _print_model(console, f'[[stage]] with kind = "{kind}"', definitions[name])
    for name, definition in definitions.items():
        if name not in kinds:
            _print_model(console, f"{name.lower()}: a table", definition)


def _print_model(console: Console, title: str, model: Schema) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
    table.add_column("key", no_wrap=True, style="bold")
    for column in ("type", "default", "allowed"):
        table.add_column(column)
    fields: dict[str, FieldInfo] = getattr(models, model["title"]).model_fields
    for key, field in model["properties"].items():
        table.add_row(key, Text(_type(field)), _default(fields[key]), Text(_allowed(field)))
        if field.get("description"):
            table.add_row("", "", "", Text(field["description"], style="dim"))
    console.print(Text(title, style="bold underline"))
    summary = " ".join(model.get("description", "").split("\n\n")[0].split())
    console.print(Text(re.sub(r":\w+:|`", "", summary), style="dim"))
    console.print(table)
    console.print()


def _type(field: Schema) -> str:
    if "$ref" in field:
        return _definition(field["$ref"]).lower()
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"] if option.get("type") != "null")
    if "enum" in field or "const" in field:
        return "string"
    if field["type"] == "array":
        items = field.get("prefixItems")
        return f"[{', '.join(map(_type, items))}]" if items else "list of tables"
    if field["type"] == "object":
        return f"table of {_type(field['additionalProperties'])}s"
    return str(field["type"])


def _allowed(field: Schema) -> str:
    if "anyOf" in field:
        return "; ".join(filter(None, map(_allowed, field["anyOf"])))
    if "enum" in field:
        return ", ".join(field["enum"])
    if "const" in field:
        return str(field["const"])
    if "prefixItems" in field:
        return f"each {_allowed(field['prefixItems'][0])}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"each {_allowed(field['additionalProperties'])}"
    return ", ".join(f"{sign} {field[key]:g}" for key, sign in (_BOUNDS | _LENGTHS).items() if key in field)


def _default(field: FieldInfo) -> Text:
    if field.is_required():
        return Text("required", style="dim")
    value = field.get_default(call_default_factory=True)  # JSON schemas leave factories out
    if isinstance(value, BaseModel):
        value = value.model_dump()
    return Text("none" if value is None else toml_value(value))


def _definition(reference: str) -> str:
    return reference.rsplit("/", 1)[1]
