"""The notebooks run from top to bottom on the CPU, and are kept without outputs."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra lof[dev] is not installed")

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def test_there_are_four() -> None:
    assert NOTEBOOKS == [
        "1-one-photograph.ipynb",
        "2-a-study.ipynb",
        "3-a-ray-batch.ipynb",
        "4-a-jpeg.ipynb",
    ]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_without_outputs(name: str) -> None:
    # Pictures would swell the history, and this file's other test shows that the cells still run.
    cells = json.loads((FOLDER / name).read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.long
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_draws(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    if name.startswith("3"):
        pytest.importorskip("ray", reason="the extra lof[ray] is not installed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_TMPDIR", tempfile.gettempdir())  # its sockets' names are limited to 107 bytes
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(FOLDER / name, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    if keep := os.environ.get("LOF_KEEP_NOTEBOOKS"):
        nbformat.write(notebook, Path(keep) / name)
