"""Sphinx: the API reference, from the docstrings, without a network. A name that a docstring makes up is an error."""

from __future__ import annotations

import functools
import importlib.metadata
import pydoc
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

project = "lof"
author = "The lof authors"
release = importlib.metadata.version("lof")
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme_options = {
    "description": importlib.metadata.metadata("lof")["Summary"],
    "page_width": "1100px",
}
html_show_copyright = False

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False


@functools.cache
def find(name: str) -> Any:
    """What a full name stands for, or None. A field of a class counts, with a default or without."""
    owner, _, last = name.rpartition(".")
    kind = pydoc.locate(owner) if owner else None
    fields = {key for base in getattr(kind, "__mro__", ()) for key in getattr(base, "__annotations__", ())}
    return pydoc.locate(name) or (name if last in fields else None)


def readings(node: addnodes.pending_xref) -> Iterator[str]:
    """Full names that a name in a docstring may mean: as it stands, or seen from where the docstring was written."""
    target = node["reftarget"]
    yield target
    around = node.get("py:module", "")
    yield f"{around}.{target}"
    parent = node.parent
    while parent is not None:
        if isinstance(parent, addnodes.desc):
            described = (parent[0].get("ids") or [""])[0]
            yield f"{described}.{target}"
            yield f"{getattr(find(described), '__module__', around)}.{target}"
        parent = parent.parent


def in_signature(node: nodes.Node | None) -> bool:
    return node is not None and (isinstance(node, addnodes.desc_signature) or in_signature(node.parent))


def resolve(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, text: nodes.TextElement
) -> nodes.Element | None:
    """Link a name to the page of what it stands for, whichever module it was imported from.

    What exists but has no page (other packages, modules behind a front) stays text; so do types in signatures, which
    mypy checks. None becomes Sphinx's warning.
    """
    if node.get("refdomain") != "py":
        return None
    found = next((thing for thing in map(find, readings(node)) if thing is not None), None)
    if found is None:
        return text if in_signature(node) else None
    for name, entry in env.domains["py"].data["objects"].items():
        if find(name) is found:
            return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, text)
    return text


def no_type_in_front(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Napoleon takes "Pixels: rows first" below an attribute for a type and its text; ours are sentences."""
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]  # an empty comment


def setup(app: Sphinx) -> None:
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-docstring", no_type_in_front, priority=400)
