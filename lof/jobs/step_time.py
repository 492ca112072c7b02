"""How long one gradient evaluation takes here, against the same step written plainly."""

from __future__ import annotations

import copy
import time
from contextlib import suppress
from typing import Any

import torch
from compressai.models import MeanScaleHyperprior

from lof.codecs import Codec
from lof.errors import UsageError
from lof.profiles import Profile
from lof.search import Progress, search


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
