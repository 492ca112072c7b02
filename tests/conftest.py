"""Fixtures shared by all tests: a photograph, small random zoo weights, a scrubbed environment."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from lof.pools import cores

SMALL = (8, 12)  # N and M of the untrained networks: as small as the architectures allow to be interesting

# Small tensors: threads cost more than they bring, here and in the processes that tests start.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# Ray gives its workers the least priority, and these tests share their cores with others.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Several processes share the whole suite; tests of files that are named run in this one, without a wait."""
    named = any(".py" in argument for argument in config.args)
    return 0 if named else min(4, cores())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests begin first, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)  # whatever the test before has set
    monkeypatch.delenv("LOF_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="session")
def photograph() -> NDArray[np.uint8]:
    """A real photograph (scikit-image's astronaut), (512, 512, 3) uint8."""
    from skimage import data

    pixels: NDArray[np.uint8] = np.ascontiguousarray(data.astronaut())
    return pixels


@pytest.fixture(scope="session")
def crop(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """128×128 of the photograph: a face."""
    return np.ascontiguousarray(photograph[64:192, 160:288])


@pytest.fixture(scope="session")
def zoo_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with untrained weights of every zoo codec, quality 1, mse and ms-ssim."""
    from lof.codecs import codec_specs, trainable

    folder = tmp_path_factory.mktemp("weights")
    for number, spec in enumerate(s for s in codec_specs(hidden=True) if s.source == "zoo"):
        torch.manual_seed(number)
        net = trainable(spec.name).build(dict(zip("NM", SMALL, strict=True)))
        with torch.no_grad():
            net.g_a[-1].weight.mul_(15)  # untrained encoders leave every latent at 0, which tests nothing
            for layer in getattr(net, "entropy_parameters", getattr(net, "h_s", []))[-2:]:
                if hasattr(layer, "bias"):
                    layer.bias[: SMALL[1]] = 1.0  # σ around 1 instead of at its lower bound
        net.update()
        for name in (f"{spec.name}-1", f"{spec.name}-ms-ssim-1"):
            save_file(
                {k: v.contiguous() for k, v in net.state_dict().items()}, folder / f"{name}.safetensors"
            )
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a 230×196 crop of each sample photograph."""
    from lof.pictures.samples import write_samples

    folder = tmp_path_factory.mktemp("photos")
    write_samples(folder)
    for path in folder.glob("*.*g"):
        with Image.open(path) as image:
            image.convert("RGB").crop((100, 100, 330, 296)).save(path)
    return folder
