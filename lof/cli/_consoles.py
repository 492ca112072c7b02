"""The one way in which commands make consoles."""

from __future__ import annotations

from rich.console import Console


def make_console(*, stderr: bool = False, soft_wrap: bool = False, quiet: bool = False) -> Console:
    """A console that shows file names as they are: Rich would make a picture of ``:100:`` in ``scan:100:.png``."""
    return Console(stderr=stderr, soft_wrap=soft_wrap, quiet=quiet, highlight=False, emoji=False)
