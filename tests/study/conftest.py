"""A small study on two crops, and the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from study_tools import BASE, RATE

from lof.cli import main


@pytest.fixture
def photos(tmp_path: Path, photograph: NDArray[np.uint8]) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(2):
        Image.fromarray(photograph[index * 100 :][:64, 150:214]).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def write(tmp_path: Path, photos: Path) -> Callable[..., Path]:
    def write_study(**changes: Any) -> Path:
        content: dict[str, Any] = {
            "codec": "tiny",
            "images": ["photos"],
            "crops": {"size": 64},
            "pruner": {"kind": "none"},
            "sampler": {"startup": 3},
            "base": {"stage": [BASE]},
            "enqueue": ["base"],
            "space": [RATE],
        }
        content |= changes
        path = tmp_path / "search.toml"
        pairs = (f"{key} = {toml(value)}" for key, value in content.items() if value is not None)
        path.write_text("\n".join(pairs), encoding="utf-8")
        return path

    return write_study


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The whole command line, in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["lof", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return call


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value)
