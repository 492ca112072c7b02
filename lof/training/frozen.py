"""Training of a probability model alone: the transforms are frozen, and the latents of all pictures are kept.

What is left of the loss is the rate. Whatever follows CompressAI's interface trains like this, so that
probability models can be compared with the same transforms, latents, steps and pictures.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from torch import Tensor, nn

from lof.codecs import codec_spec, trainable
from lof.codecs.entropy.mixture import MixtureConditional
from lof.errors import TrainingError
from lof.files.atomic import write_atomically
from lof.training.checkpoint import read_torch_file
from lof.training.data import Pool
from lof.training.loss import Losses, auxiliary, price_factorised

TRANSFORMS = ("g_a", "g_s")
STRIDE = 16
"""Pixels for each place of y, a side."""


class LatentRate(nn.Module):
    """A network's rate on given latents as one module; takes the place of ``RateDistortion``.

    What the entropy coder will write is priced: the rounded latents. Scales, and weights of mixtures, get the
    gradient of that. Means are drawn to the latents as Gaussians of that scale and a rounding error would draw them.

    Args:
        net: follows CompressAI's interface with ``g_a`` and ``g_s``; its entropy models are taken over.
    """

    def __init__(self, net: nn.Module, *, precision: torch.dtype) -> None:
        super().__init__()
        self.net, self.precision = net, precision
        # Shares everything with the network but the transforms, which are done already.
        view = copy.copy(net)
        view._modules = net._modules | {name: nn.Identity() for name in TRANSFORMS}
        self._view: list[nn.Module] = [view]
        for module in net.modules():
            if isinstance(module, EntropyBottleneck):
                module.forward = functools.partial(price_factorised, module)
            elif isinstance(module, GaussianConditional):
                module.forward = functools.partial(_price_gaussian, module)
            elif isinstance(module, MixtureConditional):
                module.forward = functools.partial(_price_mixture, module)  # type: ignore[method-assign]

    def forward(self, y: Tensor) -> Losses:
        """Price latents (B, M, h, w), float32: scalars as of ``RateDistortion``, with a distortion of 0."""
        view = self._view[0].train(self.training)
        with torch.autocast(y.device.type, self.precision, enabled=self.precision != torch.float32):
            out: Mapping[str, Any] = view(y)
        bits = -sum(likelihood.log2().sum() for likelihood in out["likelihoods"].values())
        rate = bits / (y.shape[0] * y.shape[2] * y.shape[3] * STRIDE**2)
        nothing = torch.zeros_like(rate.detach())
        return rate + auxiliary(self.net), rate.detach(), rate.detach(), nothing


def _price_gaussian(
    module: GaussianConditional, y: Tensor, scales: Tensor, means: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    with torch.autocast(y.device.type, enabled=False):
        y, scales = y.float(), scales.float()
        means = torch.zeros_like(scales) if means is None else means.float()
        rounded, likelihood = _Gaussian.apply(y.contiguous(), means.contiguous(), scales.contiguous())  # type: ignore
        return rounded, likelihood


class _Gaussian(torch.autograd.Function):
    """Probability of the rounded latent, in one pass each way; the latents themselves get no gradient."""

    LEAST_SCALE, LEAST = 0.11, 1e-9

    @staticmethod
    def forward(ctx: Any, y: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        difference = y - mean
        symbol = torch.round(difference)
        sigma = scale.clamp_min(_Gaussian.LEAST_SCALE)
        size = symbol.abs()
        # Beyond 12 σ densities come near denormal numbers, which are slow.
        low, high = ((size - 0.5) / sigma).clamp_max_(12), ((size + 0.5) / sigma).clamp_max_(12)
        likelihood = torch.special.erfc(low * 0.5**0.5).sub_(torch.special.erfc(high * 0.5**0.5)).mul_(0.5)
        likelihood.clamp_min_(_Gaussian.LEAST)
        ctx.save_for_backward(difference, sigma, scale, low, high, likelihood)
        rounded = symbol.add_(mean)
        ctx.mark_non_differentiable(rounded)
        return rounded, likelihood

    @staticmethod
    def backward(ctx: Any, _: Tensor, grad: Tensor) -> Any:
        difference, sigma, scale, low, high, likelihood = ctx.saved_tensors
        density = low * torch.exp(-0.5 * low.square()) - high * torch.exp(-0.5 * high.square())
        grad_scale = density.mul_(grad).mul_((2 * math.pi) ** -0.5).div_(sigma)
        # Below its bound a scale moves only upwards, as CompressAI's LowerBound has it.
        grad_scale = torch.where((scale < _Gaussian.LEAST_SCALE) & (grad_scale > 0), 0.0, grad_scale)
        grad_mean = difference.div(sigma.square() + 1 / 12).mul_(grad * likelihood)
        return None, grad_mean, grad_scale


def _price_mixture(
    module: MixtureConditional, y: Tensor, centre: Tensor, offset: Tensor, scale: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    with torch.autocast(y.device.type, enabled=False):
        mean = centre.unsqueeze(1) + offset
        centre = centre.detach()
        residual = torch.round(y - centre)
        likelihood = module.likelihood(residual, offset.detach(), scale, weight)
        drawn = -_pull(y.unsqueeze(1) - mean, scale.detach(), weight.detach())
        # The value of one, the gradients of both.
        return residual + centre, likelihood * torch.exp(drawn - drawn.detach())


def _pull(difference: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
    """Its gradient is that of a mixture's negative log-density, each component as wide as with a rounding error."""
    variance = scale.square() + 1 / 12
    distance = 0.5 * difference.square() / variance
    # Each component by its share in the density, which far outside of all is still that of the nearest.
    share = (weight.log() - 0.5 * variance.log() - distance).detach().softmax(1)
    return (share * distance).sum(1)


@dataclass(frozen=True)
class LatentPool:
    """The latents of all training pictures: each (M, h, w) float16, no side shorter than ``crop``."""

    latents: list[Tensor]
    crop: int

    def batch(self, size: int, seed: int) -> Tensor:
        """Random crops, (size, M, crop, crop) float32, channels-last; equal seeds give equal crops."""
        generator = torch.Generator().manual_seed(seed)
        areas = torch.tensor([float(y.shape[1] * y.shape[2]) for y in self.latents])
        chosen = torch.multinomial(areas, size, replacement=True, generator=generator).tolist()
        places = torch.rand(size, 2, generator=generator, dtype=torch.float64).tolist()
        cuts = []
        for index, (down, right) in zip(chosen, places, strict=True):
            y = self.latents[index]
            top = int(down * (y.shape[1] - self.crop + 1))
            left = int(right * (y.shape[2] - self.crop + 1))
            cuts.append(y[:, top : top + self.crop, left : left + self.crop])
        return torch.stack(cuts).float().contiguous(memory_format=torch.channels_last)

    def spread(self) -> Tensor:
        """Standard deviation of each channel, (M,)."""
        sample = torch.cat([y.flatten(1) for y in self.latents[:: max(1, len(self.latents) // 64)]], 1)
        return sample.float().std(1).cpu()


def analyse(pool: Pool, net: nn.Module, precision: torch.dtype, cache: Path | None) -> LatentPool:
    """The latents of a pool's pictures under ``net.g_a``.

    Args:
        cache: read where it holds the latents of these pictures and weights, written otherwise.

    Raises:
        TrainingError: the cache cannot be read.
        OutputError: it cannot be written.
    """
    transform = copy.deepcopy(cast(nn.Module, net.g_a)).eval().to(memory_format=torch.channels_last)
    key = _key(pool, transform)
    if cache is not None and cache.exists():
        held = _read(cache)
        if held["key"] == key:
            return LatentPool([y.to(pool.images[0].device) for y in held["latents"]], pool.crop // STRIDE)
    latents = [_latents(transform, image, precision) for image in pool.images]
    if cache is not None:
        write_atomically(cache, _bytes({"key": key, "latents": [y.cpu() for y in latents]}))
    return LatentPool(latents, pool.crop // STRIDE)


@torch.no_grad()
def _latents(transform: Callable[[Tensor], Tensor], image: Tensor, precision: torch.dtype) -> Tensor:
    height, width = (size // STRIDE * STRIDE for size in image.shape[:2])
    x = image[:height, :width].permute(2, 0, 1)[None].float().div(255)
    with torch.autocast(x.device.type, precision, enabled=precision != torch.float32):
        return transform(x)[0].half().contiguous()


def _key(pool: Pool, transform: nn.Module) -> str:
    digest = hashlib.sha256(f"{len(pool.images)} {pool.pixels}".encode())
    for value in transform.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    content = read_torch_file(path)
    if not {"key", "latents"} <= content.keys():
        raise TrainingError(f"{path}: holds no latents; name another file")
    return content


def _bytes(content: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def take_transforms(net: nn.Module, codec: str, metric: str, quality: int) -> None:
    """Take the transforms of a registered codec's rate point, and freeze them.

    Raises:
        TrainingError: they are not of these sizes.
        LofError: there is no such rate point, or its weights cannot be had.
    """
    spec = codec_spec(codec)
    spec.rate_point(metric, quality)
    state, _ = trainable(codec).read(None, metric, quality)
    for name in TRANSFORMS:
        own: nn.Module = getattr(net, name)
        part = {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")}
        try:
            own.load_state_dict(part)
        except RuntimeError:
            raise TrainingError(
                f"{codec} quality {quality}: its {name} does not fit; check `sizes`"
            ) from None
        own.requires_grad_(False)


def calibrate(net: nn.Module, pool: LatentPool) -> None:
    """Let a network that can do so start from the spread of the latents it will price."""
    start = getattr(net, "calibrate", None)
    if start is not None:
        start(pool.spread())
