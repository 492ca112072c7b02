"""The house: which room may import which, what a family of codecs keeps to itself, and how large modules may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from lof.codecs import codec_specs

ROOT = Path(__file__).parents[1]
RULES = ROOT / ".github" / "CONTRIBUTING.md"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "lof").rglob("*.py"))
}
LOOSE, LINES = 8, 400

NAMES_ALLOWED = {"lof.codecs.registry", "lof.containers.lof", "lof.containers.compressai"}
"""The default codecs stand in the registry, the numbers and layouts that files use in the containers."""


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> set[str]:
    """The modules of lof that a module imports, at its top or anywhere else."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: write imports in full"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in names}
    return {name for name in found if name in MODULES}


def strings(module: str) -> Iterator[str]:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def room(module: str) -> str:
    """The room of a module; empty for ``lof`` itself, which only lists what others hold, and for ``python -m lof``."""
    parts = module.split(".")
    return "" if len(parts) == 1 or parts[1] == "__main__" else parts[1]


@cache
def families() -> set[str]:
    """The folders below ``lof/codecs`` whose codecs are registered there."""
    inside = [m for m in MODULES if re.fullmatch(r"lof\.codecs\.\w+", m) and MODULES[m].stem == "__init__"]
    return {module for module in inside if "lof.codecs.registry" in imports(module)}


def family(module: str) -> str | None:
    return next((f for f in families() if module == f or module.startswith(f"{f}.")), None)


def order() -> list[str]:
    """The rooms from top to bottom, as the contributing guide lists them."""
    section = re.search(r"^## Rooms and their order\n(.*?)(?=^## |\Z)", RULES.read_text("utf-8"), re.M | re.S)
    assert section, "CONTRIBUTING.md: has no section 'Rooms and their order'"
    return re.findall(r"^\d+\. `(\w+)`", section[1], re.M)


def test_the_list_names_every_room_once() -> None:
    assert sorted(order()) == sorted({room(module) for module in MODULES} - {""})


@pytest.mark.parametrize("name", sorted({room(module) for module in MODULES} - {""}))
def test_a_room_imports_only_what_stands_below_it(name: str) -> None:
    below = order()[order().index(name) :]
    for module in MODULES:
        if room(module) == name:
            wrong = {other for other in imports(module) if room(other) and room(other) not in below}
            assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


def test_a_family_of_codecs_is_imported_by_nobody_else() -> None:
    assert {"lof.codecs.hyperprior", "lof.codecs.msp"} <= families()
    for module in MODULES:
        foreign = {other for other in imports(module) if family(other) not in (None, family(module))}
        assert not foreign, f"{module} imports {', '.join(sorted(foreign))}"


def test_a_family_s_codecs_are_named_by_nobody_else() -> None:
    names = {spec.name for spec in codec_specs(hidden=True) if spec.source != "none"}
    assert len(names) > 8
    naming = {module for module in MODULES if family(module) is None and names & set(strings(module))}
    assert naming <= NAMES_ALLOWED


def test_no_room_but_codecs_asks_for_a_network() -> None:
    asking = {
        module
        for module in MODULES
        if room(module) != "codecs"
        for node in ast.walk(tree(module))
        if (isinstance(node, ast.Attribute) and node.attr == "net")
        or (isinstance(node, ast.Constant) and node.value == "net")
    }
    assert not asking


def test_few_modules_lie_loose() -> None:
    assert len(list((ROOT / "lof").glob("*.py"))) <= LOOSE


def test_modules_are_short() -> None:
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert not [name for name, count in lines.items() if count > LINES]
