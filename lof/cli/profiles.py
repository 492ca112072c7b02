"""``lof profiles``: the shipped profiles, one in full, or every key that a profile may have."""

from __future__ import annotations

import json as json_format
from typing import TYPE_CHECKING, Annotated

import typer

from lof.cli import _options as options
from lof.cli import app
from lof.cli._consoles import make_console

if TYPE_CHECKING:
    from lof.profiles import Profile

_HELP = (
    "List the shipped profiles. With NAME, print one as TOML, with every value that it sets.\n\n"
    "Save that output, change it, and you have a profile of your own: `lof optimize --profile mine.toml`."
)


@app.command("profiles", help=_HELP)
def profiles(
    name: Annotated[
        str | None,
        typer.Argument(help="A shipped profile or a TOML file.", metavar="NAME", show_default=False),
    ] = None,
    *,
    schema: Annotated[
        bool,
        options.flag(
            "--schema", "Print a JSON schema: every key, its type, its default and what is allowed."
        ),
    ] = False,
    json: Annotated[bool, options.flag("--json", "Print the profiles as JSON to stdout.")] = False,
) -> None:
    """Choose what to print; the help stands in ``_HELP``."""
    from lof.errors import UsageError
    from lof.profiles import BUILT_IN, Profile, load_profile
    from lof.profiles.toml import profile_toml

    if schema and name:
        raise UsageError(f"--schema is about all profiles; leave out {name!r} or --schema")
    chosen = [load_profile(name)] if name else [load_profile(known) for known in BUILT_IN]
    if schema:
        typer.echo(json_format.dumps(Profile.model_json_schema(), indent=2, ensure_ascii=False))
    elif json:
        typer.echo(json_format.dumps([one.model_dump(mode="json") for one in chosen]))
    elif name:
        typer.echo(profile_toml(chosen[0]))
    else:
        _print_list(chosen)


def _print_list(known: list[Profile]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("profile", no_wrap=True, style="bold")
    table.add_column("evaluations", no_wrap=True, justify="right")
    table.add_column("stages")
    table.add_column("summary")
    for profile in known:
        stages = ", ".join(f"{stage.kind} {stage.evaluations}" for stage in profile.stage)
        table.add_row(profile.name, str(profile.evaluations), stages, Text(profile.summary))
    console = make_console()
    console.print(table)
    console.print(
        "\nevaluations: how many gradient evaluations an image takes at most. They are nearly all of the time.",
        style="dim",
    )
