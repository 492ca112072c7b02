"""Entropy models in training: how they price latents, and what they hand on to the layers after them.

``noisy``: they price latents under additive uniform noise, but hand on rounded ones, with the gradient passed straight
through (Minnen & Singh 2020). It fits transforms that are trained too.

``rounded``: they price what the entropy coder will write, the rounded latents, which get no gradient. Scales, and
weights of mixtures, get the gradient of that. Means are drawn to the latents as Gaussians of that scale and a rounding
error would draw them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Literal, cast

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
        mean = torch.zeros_like(scales) if means is None else means.float()
        residual = torch.round(y - mean.detach())
        likelihood = module.likelihood_lower_bound(module._likelihood(residual, scales))
        # A mixture of one.
        scale = module.lower_bound_scale(scales.detach()).unsqueeze(1)
        pull = _pull((y - mean).unsqueeze(1), scale, torch.ones_like(scale))
        return residual + mean.detach(), _drawn(likelihood, pull)


def _rounded_mixture(
    module: MixtureConditional, y: Tensor, centre: Tensor, offset: Tensor, scale: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    with torch.autocast(y.device.type, enabled=False):
        mean = centre.unsqueeze(1) + offset
        centre = centre.detach()
        residual = torch.round(y - centre)
        likelihood = module.likelihood(residual, offset.detach(), scale, weight)
        pull = _pull(y.unsqueeze(1) - mean, scale.detach(), weight.detach())
        return residual + centre, _drawn(likelihood, pull)


def _drawn(likelihood: Tensor, pull: Tensor) -> Tensor:
    """The value of one, the gradients of both."""
    return likelihood * torch.exp(pull.detach() - pull)


def _pull(difference: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
    """Its gradient is that of a mixture's negative log-density, each component as wide as with a rounding error."""
    variance = scale.square() + 1 / 12
    distance = 0.5 * difference.square() / variance
    # Each component by its share in the density, which far outside of all is still that of the nearest.
    share = (weight.log() - 0.5 * variance.log() - distance).detach().softmax(1)
    return (share * distance).sum(1)
