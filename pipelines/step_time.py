"""How long one gradient evaluation takes here, against the same step written plainly.

python -m pipelines.step_time
python -m pipelines.step_time --profile medium --threads 2
"""

from __future__ import annotations

import copy
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from compressai.models import MeanScaleHyperprior

from lof.codecs import Codec, load_codec
from lof.errors import UsageError
from lof.machine.devices import resolve_precision
from lof.profiles import Profile, load_profile, parse_profile
from lof.search import Progress, search
from pipelines.command import DeviceName, Precision, device_name, run


class PlainStep:
    """One step on y and z as a researcher writes it with CompressAI's modules.

    Float32, contiguous, eager, the weights not frozen; additive noise, Adam.
    """

    def __init__(self, codec: Codec, image: torch.Tensor) -> None:
        net = getattr(codec, "net", None)
        if not isinstance(net, MeanScaleHyperprior):
            raise UsageError(f"--codec {codec.name}: step compares mean-scale hyperpriors only")
        self.net: Any = copy.deepcopy(net).to(codec.device).requires_grad_(True)
        self.target, self.lmbda = codec.pad(image).to(codec.device), codec.lmbda
        with torch.no_grad():
            y = self.net.g_a(self.target)
            z = self.net.h_a(y)
        self.y, self.z = y.requires_grad_(), z.requires_grad_()
        self.optimiser = torch.optim.Adam([self.y, self.z], lr=0.005)

    def __call__(self) -> None:
        """One gradient evaluation and its update."""
        self.optimiser.zero_grad()
        z_hat, z_likelihoods = self.net.entropy_bottleneck(self.z, training=True)
        scales, means = self.net.h_s(z_hat).chunk(2, 1)
        y_hat, y_likelihoods = self.net.gaussian_conditional(self.y, scales, means=means, training=True)
        x_hat = self.net.g_s(y_hat).clamp(0, 1)
        pixels = self.target.shape[-2] * self.target.shape[-1]
        bpp = -(z_likelihoods.log2().sum() + y_likelihoods.log2().sum()) / pixels
        loss = bpp + self.lmbda * 255**2 * torch.nn.functional.mse_loss(x_hat, self.target)
        loss.backward()
        self.optimiser.step()


class _EnoughError(Exception):
    pass


def time_steps(
    codec: Codec, image: torch.Tensor, profile: Profile, rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds per gradient evaluation, plainly and by the search, in turn so that other load meets both.

    The search's are from one report of its progress to the next, with all that it does in between.

    Args:
        rounds: of both, after one that is not counted; fewer if the profile ends before.
    """
    plain, own = PlainStep(codec, image), list[float]()
    plainly = list[float]()
    since, done = 0.0, 0

    def in_turn(step: Progress) -> None:
        nonlocal since, done
        _synchronise(codec.device)
        now = time.perf_counter()
        if done:
            own.append((now - since) / (step.evaluations - done))
        plain()
        _synchronise(codec.device)
        since, done = time.perf_counter(), step.evaluations
        if own:
            plainly.append(since - now)
        if len(own) == rounds:
            raise _EnoughError

    with suppress(_EnoughError):
        search(codec, image, profile, lmbda=codec.lmbda, on_progress=in_turn)
    return plainly, own


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(
    *,
    codec: Annotated[str, typer.Option(help="A mean-scale hyperprior.")] = "mean-scale-96",
    quality: Annotated[int | None, typer.Option(help="Rate point.")] = None,
    profile: Annotated[
        str, typer.Option(help="Time this profile's evaluations, checks and all, not the plain step's equal.")
    ] = "",
    width: Annotated[int, typer.Option(min=16)] = 768,
    height: Annotated[int, typer.Option(min=16)] = 512,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    weights: Annotated[Path | None, typer.Option(help="Folder with weights.")] = None,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
) -> None:
    """Time one gradient evaluation against the same step written plainly."""
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load_codec(codec, quality, weights=weights, device=device, precision=precision)
    noise = {"kind": "relax", "relaxation": "noise", "evaluations": rounds + 2, "check_every": rounds + 2}
    timed = load_profile(profile) if profile else parse_profile({"name": "noise", "stage": [noise]})
    image = torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(0))
    plainly, own = time_steps(loaded, image, timed, rounds)
    if not own:
        raise UsageError(f"--profile {profile}: ends after one evaluation, too soon to time")
    before, after = statistics.median(plainly), statistics.median(own)
    print(f"{codec} quality {loaded.quality:.10g}, {width}×{height}, {device_name(loaded.device)}, ", end="")
    print(f"{torch.get_num_threads()} CPU threads, medians of {len(own)} in turn")
    print(f"plain (float32, contiguous, eager, weights not frozen): {1000 * before:9.1f} ms")
    dtype = str(resolve_precision(precision, loaded.device)).removeprefix("torch.")
    print(f"lof ({timed.name}, {dtype}):{'':{max(1, 47 - len(timed.name + dtype))}} {1000 * after:9.1f} ms")
    print(f"ratio: {after / before:.3f}")


if __name__ == "__main__":
    run(main)
