"""The laboratory as a package: nothing in lof needs it, and its README lists what can be run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_lof_imports_nothing_of_the_laboratory() -> None:
    for path in (ROOT / "lof").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "pipelines"], path


def test_every_command_is_listed_with_an_example() -> None:
    commands = {
        path.stem
        for path in (ROOT / "pipelines").glob("*.py")
        if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    text = (ROOT / "pipelines" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`python -m pipelines\.(\w+)`", text)) == commands
    assert set(re.findall(r"^python -m pipelines\.(\w+) ", text, re.M)) == commands
