"""The command line in an empty folder, and streams in it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import ICC, Outcome, Run, put
from numpy.typing import NDArray
from PIL import Image

import lof
from lof.cli import main
from lof.codecs import load_codec
from lof.pictures.picture import Picture


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The whole command line, in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["lof", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        code = stop.value.code
        return Outcome(code if isinstance(code, int) else 0, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def picture(crop: NDArray[np.uint8]) -> Picture:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    return Picture(crop[:100, :90], {b"iccp": ICC, b"exif": exif.tobytes().removeprefix(b"Exif\0\0")})


@pytest.fixture(scope="module")
def stream(picture: Picture) -> bytes:
    return lof.encode(picture, codec="tiny")


@pytest.fixture(scope="module")
def zoo_stream(crop: NDArray[np.uint8], zoo_weights: Path) -> bytes:
    codec = load_codec("mbt2018-mean", 1, weights=zoo_weights, device="cpu")
    return lof.encode(crop, codec=codec, format="compressai")


@pytest.fixture
def folder(tmp_path: Path, stream: bytes) -> Path:
    """Two good streams, a damaged one between them, and something else."""
    put(tmp_path / "in/a.jpg.lof", stream)
    put(tmp_path / "in/deep/c.jpg.lof", stream)
    put(tmp_path / "in/b.jpg.lof", stream[:-30])
    put(tmp_path / "in/notes.txt", b"no stream")
    return tmp_path
