"""Entropy models in training: how they price latents, and what they hand on to the layers after them.

``noisy``: they price latents under additive uniform noise, but hand on rounded ones, with the gradient passed straight
through (Minnen & Singh 2020). It fits transforms that are trained too.

``rounded``: they price what the entropy coder will write, the rounded latents, which get no gradient. Scales, and
weights of mixtures, get the gradient of that. Means are drawn to the latents as Gaussians of that scale and a rounding
error would draw them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from torch import Tensor, nn

from lof.codecs.entropy.mixture import MixtureConditional


def take_over(net: nn.Module, pricing: Literal["noisy", "rounded"]) -> None:
    """Replace the ``forward`` of a network's entropy models; its ``state_dict`` stays as it is."""
    noisy = pricing == "noisy"
    for module in net.modules():
        if isinstance(module, EntropyBottleneck):
            module.forward = functools.partial(_factorised, module)
        elif isinstance(module, GaussianConditional):
            module.forward = functools.partial(_gaussian if noisy else _rounded_gaussian, module)
        elif isinstance(module, MixtureConditional):
            module.forward = functools.partial(_mixture if noisy else _rounded_mixture, module)  # type: ignore


def auxiliary(net: nn.Module) -> Tensor:
    """The bottlenecks' own loss, whose gradient reaches their quantiles only."""
    return cast(Tensor, sum(m.loss() for m in net.modules() if isinstance(m, EntropyBottleneck)))


def quantiles(net: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that only the bottlenecks' own loss trains: where their tables begin and end."""
    return (m.quantiles for m in net.modules() if isinstance(m, EntropyBottleneck))


def _factorised(module: EntropyBottleneck, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.autocast(x.device.type, enabled=False):
        x = x.float()
        # The bottleneck's cumulative works on (C, 1, everything else).
        values = x.transpose(0, 1)
        noisy = _noisy(values).reshape(values.shape[0], 1, -1)
        likelihood = module.likelihood_lower_bound(module._likelihood(noisy)[0])
        median = module._get_medians().detach().reshape(1, -1, *[1] * (x.ndim - 2))
        return _rounded(x, median), likelihood.reshape(values.shape).transpose(0, 1)


def _gaussian(
    module: GaussianConditional, y: Tensor, scales: Tensor, means: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    with torch.autocast(y.device.type, enabled=False):
        y, scales = y.float(), scales.float()
        means = torch.zeros_like(scales) if means is None else means.float()
        likelihood = module.likelihood_lower_bound(module._likelihood(_noisy(y), scales, means))
        return _rounded(y, means), likelihood


def _mixture(
    module: MixtureConditional, y: Tensor, centre: Tensor, *distribution: Tensor
) -> tuple[Tensor, Tensor]:
    with torch.autocast(y.device.type, enabled=False):
        y, centre = y.float(), centre.float()
        return _rounded(y, centre), module.likelihood(_noisy(y) - centre, *distribution)


def _noisy(values: Tensor) -> Tensor:
    return values + torch.rand_like(values) - 0.5


def _rounded(values: Tensor, centre: Tensor) -> Tensor:
    """Rounded about ``centre``; the gradient passes straight through to ``values``."""
    return values + (torch.round(values - centre) + centre - values).detach()


def _rounded_gaussian(
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


def _rounded_mixture(
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
