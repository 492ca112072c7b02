"""Files are standard: a process without lof decodes the files of CompressAI's codecs to the very same pixels.

The standard decoder of MSP, lapped and JointIQ is lof's own, and that of JPEG is Pillow; their own tests have the same
for them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import lof
from lof.codecs import Codec, codec_spec, codec_specs
from lof.codecs.weights import Place
from lof.containers import CONTAINERS
from lof.profiles import parse_profile

pytestmark = pytest.mark.long

SIZES = [(65, 63), (1, 1), (1, 100), (64, 64)]
FOR_MS_SSIM = [(161, 161)]  # the smallest image that has an MS-SSIM
PROFILE = parse_profile(
    {
        "name": "short",
        # One step per evaluation: where a context is serial, the rate costs more than the synthesis.
        "stage": [
            # At 0.2 the search lost at quality 2 on a CPU without AMX; at 0.1 it won there by 5 % in bf16 and fp32.
            {
                "kind": "mean-field",
                "evaluations": 12,
                "steps": 1,
                "learning_rate": 0.1,
                "learning_rate_of": {"z": 0.1},
            },
            {"kind": "greedy-flip", "evaluations": 2},
        ],
    }
)
POINTS = [
    (spec.name, metric, quality)
    for spec in codec_specs(hidden=True)
    for metric, quality in spec.rate_points
    if (spec.source in ("bundled", "repository") or quality == 1)
    and not spec.name.startswith(("msp", "lapped", "jointiq", "jpeg"))
]
FILES = [
    (*point, format) for point in POINTS for format, known in CONTAINERS.items() if known.holds(point[0])
]

# A process in which lof cannot be had by any means, and that has none of it at the end.
WITHOUT_LOF = """
import json, runpy, sys
sys.modules["lof"] = None
try:
    import lof
except ImportError:
    pass
else:
    sys.exit("lof can be imported")
import torch
torch.set_num_threads(1)
decoder = runpy.run_path(sys.argv[1])
decoder["main"](json.load(sys.stdin))
loaded = [name for name in sys.modules if name.split(".")[0] == "lof" and sys.modules[name] is not None]
sys.exit(f"lof was imported: {loaded}" if loaded else 0)
"""


@dataclass
class Case:
    """One file, what wrote it, and the pixels that lof promises."""

    path: Path
    weights: Path
    made_by: str
    promised: NDArray[np.uint8]

    @property
    def decoded(self) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = np.load(self.path.with_suffix(".npy"))
        return pixels


def write_cases(
    codec: Codec, format: str, weights: Path, photograph: NDArray[np.uint8], folder: Path
) -> Iterator[Case]:
    # Nothing about sizes depends on the rate point: one of each codec has them all.
    sizes = SIZES if codec.quality in (1, 4) else SIZES[:1]
    for height, width in FOR_MS_SSIM if codec.metric == "ms-ssim" else sizes:
        pixels = np.ascontiguousarray(photograph[64 : 64 + height, 160 : 160 + width])
        result = lof.optimize(pixels, codec=codec, profile=PROFILE, format=format)
        plain = lof.encode(pixels, codec=codec, format=format, portable=result.kept == "plain")
        stem = f"{codec.name}-{codec.metric}-{codec.quality}-{format}-{height}x{width}"
        for made_by, data, promised in (
            (f"optimize ({result.kept})", result.data, result.pixels),
            ("encode", plain, result.baseline_pixels),
        ):
            path = folder / f"{stem}-{made_by.split()[0]}.bin"
            path.write_bytes(data)
            yield Case(path, weights, made_by, promised)


@pytest.fixture(scope="module")
def cases(
    zoo_weights: Path, photograph: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str, int, str], list[Case]]:
    """Every file of every codec, decoded together in one fresh process."""
    folder = tmp_path_factory.mktemp("streams")
    found: dict[tuple[str, str, int, str], list[Case]] = {}
    for name, metric, quality, format in FILES:
        spec = codec_spec(name)
        if spec.source == "zoo":
            where = zoo_weights
            weights = zoo_weights / f"{name}{'' if metric == 'mse' else '-' + metric}-{quality:g}.safetensors"
        else:
            where, weights = None, Place(name, metric, quality).bundled
        codec = lof.load_codec(name, quality, metric=metric, weights=where, device="cpu")
        found[name, metric, quality, format] = list(write_cases(codec, format, weights, photograph, folder))
    jobs = [
        str(part)
        for some in found.values()
        for case in some
        for part in (case.path, case.weights, case.path.with_suffix(".npy"))
    ]
    decoder = Path(__file__).parents[1] / "standalone_decoder.py"
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", WITHOUT_LOF, str(decoder)],
        input=json.dumps(jobs),
        text=True,
        capture_output=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return found


@pytest.mark.parametrize("file", FILES, ids=["-".join(map(str, file)) for file in FILES])
def test_a_process_without_lof_decodes_the_very_same_pixels(
    cases: dict[tuple[str, str, int, str], list[Case]], file: tuple[str, str, int, str]
) -> None:
    for case in cases[file]:
        assert np.array_equal(case.decoded, case.promised), case.path.name


def test_searched_files_are_among_those_decoded(
    cases: dict[tuple[str, str, int, str], list[Case]],
) -> None:
    for file, some in cases.items():
        if file[1] == "mse":
            assert "optimize (search)" in {case.made_by for case in some}, file
            assert len({case.path.read_bytes() for case in some}) > len(some) // 2, file


def test_the_decoder_names_nothing_of_lof() -> None:
    source = (Path(__file__).parents[1] / "standalone_decoder.py").read_text(encoding="utf-8")
    imported = {
        line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import", "from"))
    }
    assert imported == {
        "hashlib",
        "struct",
        "sys",
        "zlib",
        "functools",
        "numpy",
        "torch",
        "compressai",
        "safetensors",
    }
