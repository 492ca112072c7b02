"""The training loss ``bpp + λ·D`` of any network that follows CompressAI's interface.

Such a network's ``forward`` returns ``x_hat`` and ``likelihoods`` and calls its entropy models on the way.
The entropy models are what is replaced here: they price the latents under additive uniform noise, but hand
on latents that are rounded, with the gradient passed straight through (Minnen & Singh 2020).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from torch import Tensor, nn

from lof.codecs.entropy.mixture import MixtureConditional

Losses = tuple[Tensor, Tensor, Tensor, Tensor]


class RateDistortion(nn.Module):
    """A network with its loss as one module, so that it can be compiled or distributed as one.

    Args:
        net: follows CompressAI's interface; its entropy models are taken over, so save ``net.state_dict()``
            and never the module itself.
        lmbda: λ.
        metric: D is ``255²·MSE`` for ``mse``, ``1 - MS-SSIM`` for ``ms-ssim``.
        precision: of the transforms; the entropy models always compute in float32.
    """

    def __init__(self, net: nn.Module, *, lmbda: float, metric: str, precision: torch.dtype) -> None:
        super().__init__()
        self.net, self.lmbda, self.metric, self.precision = net, lmbda, metric, precision
        for module in net.modules():
            if isinstance(module, EntropyBottleneck):
                module.forward = functools.partial(price_factorised, module)
            elif isinstance(module, GaussianConditional):
                module.forward = functools.partial(_price_gaussian, module)
            elif isinstance(module, MixtureConditional):
                module.forward = functools.partial(_price_mixture, module)  # type: ignore[method-assign]

    def forward(self, images: Tensor) -> Losses:
        """Price a batch.

        Args:
            images: (B, 3, H, W) float32 in [0, 1].

        Returns:
            Scalars: what to minimise (with the bottlenecks' own loss, whose gradient reaches their quantiles
            only); ``bpp + λ·D``; bits per pixel; D.
        """
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            out = self.net(images)
        bits = -sum(likelihood.log2().sum() for likelihood in out["likelihoods"].values())
        bpp = bits / (images.shape[0] * images.shape[2] * images.shape[3])
        distortion = self._distortion(out["x_hat"].float(), images)
        loss = bpp + self.lmbda * distortion
        return loss + auxiliary(self.net), loss.detach(), bpp.detach(), distortion.detach()

    def _distortion(self, decoded: Tensor, images: Tensor) -> Tensor:
        if self.metric == "mse":
            return 255**2 * F.mse_loss(decoded, images)
        import pytorch_msssim

        return cast(Tensor, 1 - pytorch_msssim.ms_ssim(decoded, images, data_range=1.0))


def auxiliary(net: nn.Module) -> Tensor:
    """The bottlenecks' own loss, whose gradient reaches their quantiles only."""
    return cast(Tensor, sum(m.loss() for m in net.modules() if isinstance(m, EntropyBottleneck)))


def quantiles(net: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that only the bottlenecks' own loss trains: where their tables begin and end."""
    return (m.quantiles for m in net.modules() if isinstance(m, EntropyBottleneck))


def weights(net: nn.Module) -> list[nn.Parameter]:
    """All other parameters that are trained."""
    apart = {id(parameter) for parameter in quantiles(net)}
    return [p for p in net.parameters() if id(p) not in apart and p.requires_grad]


def price_factorised(module: EntropyBottleneck, x: Tensor) -> tuple[Tensor, Tensor]:
    """Takes the place of a bottleneck's ``forward``: latents rounded, likelihoods under noise."""
    with torch.autocast(x.device.type, enabled=False):
        x = x.float()
        # The bottleneck's cumulative works on (C, 1, everything else).
        values = x.transpose(0, 1)
        noisy = _noisy(values).reshape(values.shape[0], 1, -1)
        likelihood = module.likelihood_lower_bound(module._likelihood(noisy)[0])
        median = module._get_medians().detach().reshape(1, -1, *[1] * (x.ndim - 2))
        return _rounded(x, median), likelihood.reshape(values.shape).transpose(0, 1)


def _price_gaussian(
    module: GaussianConditional, y: Tensor, scales: Tensor, means: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    with torch.autocast(y.device.type, enabled=False):
        y, scales = y.float(), scales.float()
        means = torch.zeros_like(scales) if means is None else means.float()
        likelihood = module.likelihood_lower_bound(module._likelihood(_noisy(y), scales, means))
        return _rounded(y, means), likelihood


def _price_mixture(
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
