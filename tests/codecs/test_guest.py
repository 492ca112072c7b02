"""A codec of another package: the lines of the documentation, installed with pip, checked, searched and decoded."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from guest import README, python_blocks
from numpy.typing import NDArray
from PIL import Image

# Commands of lof one after the other, until one fails.
BOTH = """
import json, sys
from lof.cli import main
for sys.argv[1:] in json.loads(sys.argv[1]):
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
"""

# These bits reward large symbols, which zlib cannot pack.
MISLED = """
import json
from lof import load_codec, optimize
from lof.codecs import Coded
from skimage import data

codec = load_codec("cosine")
honest = codec.code

def misled(latents, quantize, *, exact=False):
    coded = honest(latents, quantize, exact=exact)
    return {name: Coded(c.residual, c.value, lambda r: 30 / (1 + r.abs())) for name, c in coded.items()}

codec.code = misled
result = optimize(data.astronaut()[:64, 100:164], codec=codec, profile="fast")
print(json.dumps(result.record()))
"""


# A codec that pads large pictures further than small ones.
SIZED = """
import copy
from dataclasses import replace
from lof.codecs import register
from lof_cosine import SPEC, CosineCodec

class SizedCodec(CosineCodec):
    def for_size(self, height, width):
        sized = copy.copy(self)
        sized.stride = 32 if height * width > 64 * 64 else 8
        return sized

@register(replace(SPEC, name="sized"))
def load(request):
    return SizedCodec(request)
"""


# Beside it one that is made for MS-SSIM alone.
SIMILAR = """
from dataclasses import replace
import lof, lof_cosine, numpy
from lof.codecs import Continuous, register
from lof.containers import unpack

rates = Continuous(1, 8, (2.4, 220.0), metric="ms-ssim")
register(replace(lof_cosine.SPEC, name="similar", rates=rates))(lof_cosine.load)
file = lof.encode(numpy.zeros((8, 8, 3), numpy.uint8), codec="similar")
print("made for", load_codec("similar").metric, unpack(file).metric, lof.decode(file).pixels.shape)
"""


def install(folder: Path, name: str, source: str) -> Path:
    """Install a package of one module that registers codecs; returns where. The wheel is what a back end would make."""
    about = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": source,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": f"[lof.codecs]\n{name} = {name}\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{about}/RECORD"])
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for path, content in files.items():
            file.writestr(path, content)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*pip, "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that finds the packages in ``site``."""
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guest")
    install(folder, "lof_sized", SIZED)
    return install(folder, "lof_cosine", python_blocks()[0])


def test_the_lines_of_the_documentation_are_what_is_installed(site: Path) -> None:
    installed = (site / "lof_cosine.py").read_text(encoding="utf-8")
    assert f"```python\n{installed}```\n" in README.read_text(encoding="utf-8")
    assert 'cosine = "lof_cosine"' in README.read_text(encoding="utf-8")
    code = [line for line in installed.splitlines() if line.strip()]
    assert len(code) < 70


@pytest.fixture(scope="module")
def outcome(site: Path) -> subprocess.CompletedProcess[str]:
    """Of one process that checks the contract, asks for no metric, and then searches by misleading bits."""
    checks = python_blocks()[1]
    contract = "for quality in (1, 4.25, 8): check_codec(load_codec('cosine', quality))\nprint('kept')\n"
    return run(site, "-c", checks + contract + SIMILAR + MISLED)


def test_it_keeps_the_contract_at_every_quality(outcome: subprocess.CompletedProcess[str]) -> None:
    assert outcome.stdout.startswith("kept\n"), outcome.stderr


def test_a_codec_for_ms_ssim_alone_is_had_without_naming_the_metric(
    outcome: subprocess.CompletedProcess[str],
) -> None:
    assert "made for ms-ssim ms-ssim (8, 8, 3)" in outcome.stdout.splitlines(), outcome.stderr


def test_it_is_listed_searched_decoded_and_inspected(
    site: Path, photograph: NDArray[np.uint8], tmp_path: Path
) -> None:
    listed = run(site, "-m", "lof", "codecs", "--json")
    assert listed.returncode == 0, listed.stderr
    found = {codec["name"]: codec for codec in json.loads(listed.stdout)}
    assert found["cosine"]["continuous"]
    assert not found["mean-scale-96"]["continuous"]

    Image.fromarray(photograph[:100, 100:231]).save(tmp_path / "photo.png")
    options = "--codec", "cosine", "--profile", "fast", "--json", "-o", str(tmp_path / "out")
    stream, picture = tmp_path / "out" / "photo.png.lof", tmp_path / "again.png"
    optimize = ["optimize", str(tmp_path / "photo.png"), *options]
    look = [["decode", str(stream), "-o", str(picture)], ["inspect", str(stream)]]
    outcome = run(site, "-c", BOTH, json.dumps([optimize, *look]))
    assert outcome.returncode == 0, outcome.stderr
    record = json.loads(outcome.stdout.splitlines()[0])
    assert record["kept"] == "search"
    version = hashlib.sha256(b"cosine 1").hexdigest()[:8]
    assert f"fingerprint {version}, the ones at hand" in " ".join(outcome.stdout.split())
    assert record["optimised"]["cost"] < 0.95 * record["baseline"]["cost"]

    with Image.open(picture) as image:
        error = np.square(np.asarray(image, float) - photograph[:100, 100:231]).mean()
    assert error == pytest.approx(record["optimised"]["mse"], rel=1e-6)


def test_what_a_codec_for_the_size_of_the_picture_wrote_is_read_everywhere(
    site: Path, photograph: NDArray[np.uint8], tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(photograph[:70, 100:201]).save(tmp_path / "photos" / "photo.png")
    photos, out, archive = (str(tmp_path / name) for name in ("photos", "out", "archive"))
    options = "--codec", "sized", "--profile", "fast"
    commands = [
        ["optimize", photos, *options, "--json", "-o", out],
        ["verify", out],
        ["decode", f"{out}/photo.png.lof", "-o", str(tmp_path / "again.png")],
        ["archive", "create", photos, archive, *options],
        ["archive", "verify", archive],
    ]
    outcome = run(site, "-c", BOTH, json.dumps(commands))
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert json.loads(outcome.stdout.splitlines()[0])["kept"] == "search"


def test_a_search_by_misleading_bits_counts_the_strings_and_loses_nothing(
    outcome: subprocess.CompletedProcess[str],
) -> None:
    assert outcome.returncode == 0, outcome.stderr
    record = json.loads(outcome.stdout.splitlines()[-1])
    believed = record["trace"][-1]["bpp"] * record["height"] * record["width"] / 8
    assert believed < record["optimised"]["size"] < believed + 64  # what is around the strings
    assert record["optimised"]["cost"] <= record["baseline"]["cost"]


# One codec of a good name, and another that is taken.
CLASH = """
from lof.codecs import CodecSpec, Continuous, register

for name in ("clash-one", "lapped"):
    register(CodecSpec(name, Continuous(1, 8, (0.0018, 0.18)), 4, "from a test"))(lambda request: None)
"""


def test_a_broken_package_is_one_warning_that_names_it_and_lof_works_on(tmp_path: Path) -> None:
    site = install(tmp_path, "broken_codec", "import nothing_of_that_name\n")
    install(tmp_path, "ending_codec", "import sys\n\nsys.exit('no license\\nfor this machine')\n")
    install(tmp_path, "clashing_codec", CLASH)
    outcome = run(site, "-m", "lof", "codecs")
    assert outcome.returncode == 0, outcome.stderr
    assert "mean-scale-96" in outcome.stdout
    lines = sorted(outcome.stderr.splitlines())
    packages = ("broken-codec", "clashing-codec", "ending-codec")
    for line, package in zip(lines, packages, strict=True):
        assert line.replace("_", "-").startswith(f"lof: the codecs of {package} cannot be used (")
    assert "nothing_of_that_name" in lines[0]
    assert "'lapped' is registered already" in lines[1]
    assert "(SystemExit: no license for this machine); update or remove it" in lines[2]
    assert "clash-one" not in outcome.stdout


def test_what_a_package_does_to_torch_when_it_is_imported_concerns_no_other_codec(tmp_path: Path) -> None:
    rude = "import torch\n\ntorch.set_grad_enabled(False)\ntorch.set_default_dtype(torch.float64)\n"
    site = install(tmp_path, "rude_codec", rude)
    look = "print(torch.is_grad_enabled(), torch.get_default_dtype())\n"
    codec_specs = "from lof.codecs import codec_specs\ncodec_specs()\n"
    assert run(site, "-c", f"{codec_specs}import torch\n{look}").stdout == "True torch.float32\n"
    own = "import torch\ntorch.set_grad_enabled(False)\ntorch.set_default_dtype(torch.float16)\n"
    assert run(site, "-c", f"{own}{codec_specs}{look}").stdout == "False torch.float16\n"
