"""The house: which room may import which, and that a codec family touches its own folder alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lof.codecs import DEFAULT_CODEC, codec_specs

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lof"
ORDER = re.findall(
    r"^\d+\. `(\w+)`", (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M
)
FAMILIES = sorted(folder.name for folder in (PACKAGE / "codecs").iterdir() if (folder / "codec.py").is_file())
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """Full names of the modules of lof that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "lof":
            yield from (f"lof.{alias.name}" for alias in node.names if alias.name != "__version__")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lof."):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("lof."))


def family_of(path: Path) -> str | None:
    """The family in whose folder a module stands."""
    parts = path.relative_to(PACKAGE).parts
    return parts[1] if parts[0] == "codecs" and parts[1] in FAMILIES else None


def strings_of(path: Path) -> Iterator[str]:
    """String constants that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


def test_the_list_of_rooms_is_complete() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert sorted(ORDER) == sorted(rooms | loose)


def test_at_most_eight_modules_lie_loose() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_what_stands_below_it_alone(room: str) -> None:
    folder = PACKAGE / room
    modules = sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]
    assert modules
    above = ORDER[: ORDER.index(room)]
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules
        for name in imports_of(path)
        if name.split(".")[1] in above
    ]
    assert not wrong


def test_families_are_found() -> None:
    assert {"hyperprior", "msp"} <= set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_module_outside_its_folder_imports_a_family(family: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in MODULES
        if family_of(path) != family
        for name in imports_of(path)
        if f"{name}.".startswith(f"lof.codecs.{family}.")
    ]
    assert not wrong


def test_no_module_outside_its_folder_names_a_codec() -> None:
    names = {spec.name for spec in codec_specs(hidden=True)}
    # The default codec stands in the registry; files know codecs by number.
    allowed = {("codecs/registry.py", DEFAULT_CODEC)}
    wrong = [
        f"{path.relative_to(ROOT)} names {text}"
        for path in MODULES
        if family_of(path) is None and "containers" not in path.parts
        for text in strings_of(path)
        if text in names and (path.relative_to(PACKAGE).as_posix(), text) not in allowed
    ]
    assert not wrong


def test_nobody_outside_the_codecs_asks_for_a_network() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in MODULES
        if "codecs" not in path.relative_to(PACKAGE).parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "net" and not isinstance(node.value, ast.Name)
    ]
    assert not [name for name in wrong if not name.startswith("lof/training/")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_module_knows_everything(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
