"""What the base installation does without, and what it says about what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

OPTIONAL = ("optuna", "pillow_heif", "pillow_jxl", "pyarrow", "ray", "skimage", "ssimulacra2")
SLOW = ("pandas", "torch_geometric", "torchvision")
"""What `import compressai` loads, in seconds: the default codec does without."""


def run(
    folder: Path, *calls: list[str], without: tuple[str, ...] = OPTIONAL
) -> subprocess.CompletedProcess[str]:
    """``lof`` once or again and again in a process that has none of some packages, until a call fails."""
    script = f"""
import sys
sys.modules.update(dict.fromkeys({without!r}))  # None: as if it were not installed
from lof.cli import main
for sys.argv[1:] in {calls!r}:
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
"""
    return subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("codec", "without"), [("lapped", OPTIONAL + SLOW), ("tiny", OPTIONAL)])
def test_optimise_and_decode_need_no_extra(
    tmp_path: Path, crop: NDArray[np.uint8], codec: str, without: tuple[str, ...]
) -> None:
    Image.fromarray(crop[:64, :64]).save(tmp_path / "face.png")
    optimize = ["optimize", "face.png", "-o", "out", "--codec", codec, "--profile", "fast"]
    done = run(tmp_path, optimize, ["decode", "out", "-o", "decoded"], without=without)
    assert done.returncode == 0, done.stderr
    (decoded,) = (tmp_path / "decoded").rglob("*.png")
    assert Image.open(decoded).size == (64, 64)


def test_compressai_is_whole_for_those_who_import_it_after_lof() -> None:
    script = """
import lof
lof.load_codec("lapped-tiny", device="cpu")
import sys
assert "compressai" not in sys.modules
import compressai.ans
assert compressai.ans.RansDecoder is lof.codecs.entropy.rans.ans.RansDecoder
lof.load_codec("tiny", device="cpu")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["study", "run", "no-such-study.toml"], "study"),
        (["study", "status", "--storage", "sqlite:///no-such.db"], "study"),
        (["samples", "photos"], "samples"),
        (["optimize", "face.png", "--ray", "local"], "ray"),
        (["optimize", "face.png", "--against", "webp,jxl"], "jxl"),
        (["train", "tiny", "-o", "run", "--data", ".", "--workers", "2"], "ray"),
    ],
)
def test_a_missing_extra_is_named_in_one_line_before_any_work(
    tmp_path: Path, arguments: list[str], extra: str
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "face.png")
    done = run(tmp_path, arguments)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.endswith(f"which is not installed; install it with: pip install 'lof[{extra}]'\n")
    assert [path.name for path in tmp_path.iterdir()] == ["face.png"]
