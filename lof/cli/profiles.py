"""``lof profiles``: the shipped profiles, one in full, or every key that a profile may have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lof.cli import app

if TYPE_CHECKING:
    from lof.profiles import Profile

_HELP = (
    "List the shipped profiles; with NAME, print one with every value in effect, as TOML.\n\n"
    "That output, saved as a file, is a profile of your own: `lof optimize --profile mine.toml`."
)


@app.command("profiles", help=_HELP)
def profiles(
    name: Annotated[
        str | None, typer.Argument(help="A shipped profile or a TOML file.", show_default=False)
    ] = None,
    *,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print every key: type, default, what is allowed.")
    ] = False,
) -> None:
    """Choose what to print; the help stands in ``_HELP``."""
    from lof.errors import UsageError
    from lof.profiles import BUILT_IN, load_profile
    from lof.profiles.toml import profile_toml

    if schema and name:
        raise UsageError(f"--schema is about all profiles; leave out {name!r} or --schema")
    if schema:
        from lof.cli._schema import print_schema

        print_schema()
    elif name:
        typer.echo(profile_toml(load_profile(name)))
    else:
        _print_list([load_profile(known) for known in BUILT_IN])


def _print_list(known: list[Profile]) -> None:
    from rich.console import Console
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
    console = Console(highlight=False)
    console.print(table)
    console.print("\nevaluations: gradient evaluations per image at most, the unit of cost.", style="dim")
