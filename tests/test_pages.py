"""The pages for people: short enough, links that lead somewhere, commands that exist."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

import lof.cli
from lof.cli import app

ROOT = Path(__file__).parents[1]
LISTED = subprocess.run(
    ["git", "ls-files", "-z", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False
)
PAGES = sorted(name for name in LISTED.stdout.split("\0") if name) or ["README.md"]
for module in pkgutil.iter_modules(lof.cli.__path__, "lof.cli."):
    importlib.import_module(module.name)  # each adds its commands to ``app``


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def test_the_readme_has_at_most_1200_words() -> None:
    assert len(text_of("README.md").split()) <= 1200


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if "://" not in link:
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_on_a_page_exist_with_these_options(page: str) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", text_of(page), re.M | re.S)
    for line in "".join(blocks).replace("\\\n", " ").splitlines():  # a command may go on after a backslash
        for part in re.split(r"&&|\s--\s|>", line):
            words = shlex.split(part, comments=True)
            if words[:2] == ["python", "-m"] and words[2].startswith("pipelines."):
                check_pipeline(words[2], words[3:], line)
            if words and Path(words[0]).name == "lof":
                check(typer.main.get_command(app), words[1:], line)


def check_pipeline(name: str, words: list[str], line: str) -> None:
    module = importlib.import_module(name)
    tool = getattr(module, "app", None)
    if tool is None:
        tool = typer.Typer(add_completion=False)
        tool.command()(module.main)
    check(typer.main.get_command(tool), words, line)


def check(command: Any, words: list[str], line: str) -> None:
    while hasattr(command, "commands"):
        assert set(words[:1]) & set(command.commands), line
        command, words = command.commands[words[0]], words[1:]
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known, line
