"""What the search minimises: bits per pixel + λ·distortion, per image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lof.codecs import Codec, Coded
from lof.errors import SearchError
from lof.metrics import MS_SSIM_MIN_SIDE


@dataclass(frozen=True)
class Evaluation:
    """Rate and distortion of each image of a batch, at one point of the search.

    Attributes:
        bpp: (B,) float32, bits per pixel by the entropy model, or of the strings.
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
        metric: what the distortion is, ``mse`` or ``ms-ssim``; what the codec was made for if ``None``.
        region: (B, 1, H, W) float32, at least 0 with a mean of 1: how much each pixel's error counts; see
            :func:`lof.measure.region_of`.
        offset: added to the target, in grey levels. A decoder that truncates to 8 bits wants its output
            half a level high.

    Raises:
        SearchError: the images are too small for MS-SSIM, or a region is given for it.
    """

    def __init__(
        self,
        codec: Codec,
        images: Tensor,
        lmbda: float,
        *,
        metric: str | None = None,
        region: Tensor | None = None,
        offset: float = 0.0,
    ) -> None:
        self.codec, self.lmbda, self.metric = codec, lmbda, metric or codec.metric
        self.height, self.width = images.shape[-2:]
        self.target = (images + offset / 255).to(codec.device)
        if self.metric == "ms-ssim" and min(self.height, self.width) < MS_SSIM_MIN_SIDE:
            raise SearchError(
                f"a {self.width}×{self.height} image is too small for MS-SSIM "
                f"(sides of {MS_SSIM_MIN_SIDE} px or more); optimise mse"
            )
        if self.metric == "ms-ssim" and region is not None:
            raise SearchError("a region needs the metric mse")
        self.region = None if region is None else region.to(codec.device, torch.float32)

    @property
    def batch(self) -> int:
        """Number of images."""
        return self.target.shape[0]

    @property
    def pixels(self) -> int:
        """Pixels of one image."""
        return int(self.height * self.width)

    def error_curvature(self, decoded: Tensor) -> Tensor:
        """Second derivative of ``λ·D`` by one decoded sample in [0, 1]: (B, 1, H or 1, W or 1) float32.

        Exact for the MSE, with a region too. MS-SSIM is taken as proportional to the squared error, with the factor
        that holds for ``decoded``.
        """
        if self.metric == "mse":
            each = 2 * self.lmbda * 255**2 / (3 * self.pixels)
            return torch.full((self.batch, 1, 1, 1), each, device=self.target.device) * (
                1.0 if self.region is None else self.region
            )
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

    def at_rate(self, evaluation: Evaluation, bits: Tensor) -> Evaluation:
        """The same evaluation, with (B,) bits in place of what the entropy model says."""
        bpp = bits.to(evaluation.bpp) / self.pixels
        return replace(evaluation, bpp=bpp, cost=bpp + self.lmbda * evaluation.distortion)

    def distortion(self, decoded: Tensor) -> Tensor:
        """Distortion of (B, 3, H, W) against the images: (B,), float32."""
        decoded = decoded.clamp(0, 1)
        match self.metric:
            case "mse":
                error = (decoded - self.target).square()
                error = error if self.region is None else error * self.region
                return 255**2 * error.flatten(1).mean(1)
            case "ms-ssim":
                from pytorch_msssim import ms_ssim

                # Its convolutions take a third of the time where the channels lie together.
                images = (
                    one.contiguous(memory_format=torch.channels_last)
                    for one in (decoded, self.target.clamp(0, 1))
                )
                similarity: Tensor = ms_ssim(*images, data_range=1.0, size_average=False)
                return 1 - similarity
        raise ValueError(f"unknown metric {self.metric!r}")
