"""A codec of another package: the lines of the documentation, installed with pip, checked, searched and decoded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

README = Path(__file__).parents[2] / "lof" / "codecs" / "README.md"


def wheel(folder: Path, name: str, module: str, source: str) -> Path:
    """A wheel with one module and its entry point; what a build back end would make."""
    about = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{module}.py", source)
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/entry_points.txt", f"[lof.codecs]\n{module} = {module}\n")
        file.writestr(f"{about}/RECORD", "")
    return path


def install(package: Path, target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(package)], check=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the documentation's codec installed in it."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    source = next(block for block in blocks if "@register(" in block)
    folder = tmp_path_factory.mktemp("guest")
    install(wheel(folder, "lof_cosine", "lof_cosine", source), folder / "site")
    return folder / "site"


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"PYTHONPATH": path}
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def test_the_codec_of_another_package_is_listed(site: Path) -> None:
    outcome = run(site, "-m", "lof", "codecs", "--json")
    assert outcome.returncode == 0, outcome.stderr
    found = {codec["name"]: codec for codec in json.loads(outcome.stdout)}
    assert found["cosine"]["summary"] == "cosine transform and zlib"
    assert len(found) > 5


def test_the_codec_of_another_package_keeps_the_contract(site: Path) -> None:
    code = (
        "from lof import load_codec; from lof.testing import check_codec\n"
        "for quality in (1, 4.25, 8): check_codec(load_codec('cosine', quality))"
    )
    outcome = run(site, "-c", code)
    assert outcome.returncode == 0, outcome.stderr


def test_the_codec_of_another_package_is_searched_and_decoded(
    site: Path, photograph: NDArray[np.uint8], tmp_path: Path
) -> None:
    Image.fromarray(photograph[:200, 100:331]).save(tmp_path / "photo.png")
    out = tmp_path / "out"
    options = "--codec", "cosine", "--profile", "fast", "--device", "cpu", "--json", "-o", str(out)
    outcome = run(site, "-m", "lof", "optimize", str(tmp_path / "photo.png"), *options)
    assert outcome.returncode == 0, outcome.stderr
    (record,) = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert record["kept"] == "search"
    assert record["optimised"]["cost"] < 0.95 * record["baseline"]["cost"]
    stream = next(out.glob("*.lof"))
    decoded = run(site, "-m", "lof", "decode", str(stream), "-o", str(tmp_path))
    assert decoded.returncode == 0, decoded.stderr
    with Image.open(next(tmp_path.glob("photo*.png.png"), tmp_path / "photo.png")) as image:
        assert image.size == (231, 200)


def test_a_broken_package_is_one_warning_and_lof_works_on(tmp_path: Path) -> None:
    install(
        wheel(tmp_path, "broken_codec", "broken_codec", "import nothing_of_that_name\n"), tmp_path / "site"
    )
    outcome = run(tmp_path / "site", "-m", "lof", "codecs")
    assert outcome.returncode == 0, outcome.stderr
    assert "mean-scale-96" in outcome.stdout
    assert "the codecs of broken-codec cannot be used" in outcome.stderr.replace("_", "-")
    assert "Traceback" not in outcome.stderr
