"""Fixtures shared by all tests: a photograph, small random zoo weights, a scrubbed environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

SMALL = (8, 12)  # N and M of the untrained networks: as small as the architectures allow to be interesting


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOF_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    # Small tensors: threads cost more than they bring, and the machines that run this are shared.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    from lof.codecs import codec_specs

    folder = tmp_path_factory.mktemp("weights")
    for number, spec in enumerate(s for s in codec_specs(hidden=True) if s.source == "zoo"):
        torch.manual_seed(number)
        net = spec.load_class().network(*SMALL)
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
