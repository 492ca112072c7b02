"""What the search minimises: bits per pixel + λ·distortion, per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lof.codecs import Codec, Coded
from lof.errors import SearchError

MS_SSIM_MIN_SIDE = 161
"""Four halvings of an 11-pixel window: Wang et al. 2003 as pytorch-msssim implements it."""


@dataclass(frozen=True)
class Evaluation:
    """Rate and distortion of each image of a batch, at one point of the search.

    Attributes:
        bpp: (B,) float32, bits per pixel by the entropy model.
        distortion: (B,) float32, ``255²·MSE`` or ``1 - MS-SSIM``.
        cost: (B,) float32, ``bpp + λ·distortion``.
        coded: what the codec's walk returned.
    """

    bpp: Tensor
    distortion: Tensor
    cost: Tensor
    coded: dict[str, Coded]


class Objective:
    """``bpp + λ·D`` for one batch of images of one size.

    Args:
        codec: prices and synthesises.
        images: (B, 3, H, W) float32 in [0, 1], unpadded.
        lmbda: λ, in bits per pixel per unit of distortion.
        weights: (B, 1, H, W), non-negative, how much each pixel's error counts; scaled to mean 1.
        offset: added to the target, in grey levels. A decoder that truncates to 8 bits wants its output
            half a level high.

    Raises:
        SearchError: the images are too small for MS-SSIM, or the weights do not fit.
    """

    def __init__(
        self,
        codec: Codec,
        images: Tensor,
        lmbda: float,
        *,
        weights: Tensor | None = None,
        offset: float = 0.0,
    ) -> None:
        self.codec, self.lmbda = codec, lmbda
        self.height, self.width = images.shape[-2:]
        self.target = (images + offset / 255).to(codec.device)
        if codec.metric == "ms-ssim" and min(self.height, self.width) < MS_SSIM_MIN_SIDE:
            raise SearchError(
                f"a {self.width}×{self.height} image is too small for MS-SSIM "
                f"(sides of {MS_SSIM_MIN_SIDE} px or more); use a codec trained for mse"
            )
        self.weights = None if weights is None else self._normalised(weights)

    @property
    def batch(self) -> int:
        """Number of images."""
        return self.target.shape[0]

    @property
    def pixels(self) -> int:
        """Pixels of one image."""
        return int(self.height * self.width)

    def error_curvature(self, decoded: Tensor) -> Tensor:
        """Second derivative of ``λ·D`` by one decoded sample in [0, 1]: (B, 1, 1, 1) float32.

        D is taken as proportional to the squared error, with the factor that holds for ``decoded``: exact
        for the MSE without a weight map, the right size for everything else.
        """
        with torch.no_grad():
            squared_error = (decoded.clamp(0, 1) - self.target).square().flatten(1).sum(1)
            curvature = 2 * self.lmbda * self.distortion(decoded) / squared_error.clamp_min(1e-12)
        return curvature.reshape(-1, 1, 1, 1)

    def evaluate(self, coded: dict[str, Coded], *, exact: bool = False) -> Evaluation:
        """Price and synthesise what the codec's walk returned; differentiable."""
        decoded = self.codec.synthesise({name: c.value for name, c in coded.items()}, exact=exact)
        decoded = self.codec.crop(decoded, self.height, self.width).to(self.target.device)
        bits = torch.stack([c.bits.flatten(1).sum(1).to(self.target.device) for c in coded.values()]).sum(0)
        bpp = bits / self.pixels
        distortion = self.distortion(decoded)
        return Evaluation(bpp, distortion, bpp + self.lmbda * distortion, coded)

    def distortion(self, decoded: Tensor) -> Tensor:
        """Distortion of (B, 3, H, W) against the images: (B,), float32."""
        decoded = decoded.clamp(0, 1)
        match self.codec.metric:
            case "mse":
                error = (decoded - self.target).square()
                error = error if self.weights is None else error * self.weights
                return 255**2 * error.flatten(1).mean(1)
            case "ms-ssim":
                from pytorch_msssim import ms_ssim

                similarity: Tensor = ms_ssim(
                    decoded, self.target.clamp(0, 1), data_range=1.0, size_average=False
                )
                return 1 - similarity
        raise ValueError(f"unknown metric {self.codec.metric!r}")

    def _normalised(self, weights: Tensor) -> Tensor:
        if self.codec.metric != "mse":
            raise SearchError("a weight map needs a codec trained for mse")
        weights = weights.to(self.target.device, torch.float32)
        if weights.shape != (self.batch, 1, self.height, self.width):
            raise SearchError(f"a weight map of shape {tuple(weights.shape)} does not fit the images")
        if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
            raise SearchError("a weight map holds finite values of 0 or more only")
        mean = weights.mean((1, 2, 3), keepdim=True)
        if not bool((mean > 0).all()):
            raise SearchError("a weight map needs at least one pixel above 0")
        return weights / mean


def symbols_of(coded: Mapping[str, Coded]) -> dict[str, Tensor]:
    """Rounded residuals, (B, C, h, w) int32: what :meth:`Codec.compress` writes."""
    return {name: torch.round(c.residual.detach()).to(torch.int32) for name, c in coded.items()}
