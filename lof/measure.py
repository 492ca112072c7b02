"""The one true cost: rate from the file's length, distortion on the decoded 8-bit image, ``bpp + λ·D``.

What keeps or drops a search's result, studies, archives' floors, model cards and reports all measure here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lof.errors import SearchError
from lof.metrics import bpp, ms_ssim, mse, psnr
from lof.results import Measured, Pixels

Region = NDArray[np.float32]
"""(H, W), at least 0 with a mean of 1: how much each pixel's error counts."""


@dataclass(frozen=True)
class TrueCost:
    """What one image's encodings are judged by.

    Attributes:
        original: (H, W, 3) uint8.
        lmbda: λ, in bits per pixel for each unit of D.
        metric: D is the mean squared error in squared grey levels for ``mse``, ``1 - MS-SSIM`` for ``ms-ssim``.
        region: counts pixels differently, for ``mse`` alone; see :func:`region_of`.
    """

    original: Pixels
    lmbda: float
    metric: str = "mse"
    region: Region | None = None

    def measure(self, size: int, decoded: Pixels, *, brief: bool = False) -> Measured:
        """A file of ``size`` bytes that decodes to ``decoded``, measured.

        Args:
            brief: without MS-SSIM, which takes longest, where the cost does not need it.

        Raises:
            SearchError: the metric is MS-SSIM, and the image is too small for it or has a region.
            ImageError: the images differ in size.
            ValueError: the metric is neither of the two.
        """
        error = mse(self.original, decoded)
        similarity = None if brief and self.metric == "mse" else ms_ssim(self.original, decoded)
        rate = bpp(size, *self.original.shape[:2])
        match self.metric:
            case "mse":
                distortion = error if self.region is None else self._weighted(decoded)
            case "ms-ssim" if self.region is not None:
                raise SearchError("a region needs the metric mse")
            case "ms-ssim" if similarity is not None:
                distortion = 1 - similarity
            case "ms-ssim":
                raise SearchError("the image is too small for MS-SSIM; optimise mse")
            case _:
                raise ValueError(f"unknown metric {self.metric!r}")
        cost = rate + self.lmbda * distortion
        return Measured(size, rate, error, psnr(error), similarity, cost, *self._inside_and_outside(decoded))

    def _weighted(self, decoded: Pixels) -> float:
        assert self.region is not None
        return float((self.region * self._errors(decoded)).mean(dtype=np.float64))

    def _inside_and_outside(self, decoded: Pixels) -> tuple[float | None, float | None]:
        if self.region is None or not (inside := self.region > 1).any():
            return None, None
        errors = self._errors(decoded)
        return tuple(psnr(float(errors[part].mean(dtype=np.float64))) for part in (inside, ~inside))  # type: ignore[return-value]

    def _errors(self, decoded: Pixels) -> NDArray[np.float32]:
        """Squared error of each pixel, the mean of its channels, (H, W)."""
        errors: NDArray[np.float32] = np.square(self.original.astype(np.float32) - decoded).mean(2)
        return errors


def region_of(weights: NDArray[Any], height: int, width: int) -> Region:
    """A map of weights, scaled to a mean of 1.

    Args:
        weights: (H, W), finite, at least 0, of any scale.

    Raises:
        SearchError: it does not fit the image, or holds something else.
    """
    try:
        # A tensor of torch, which is not imported here, may have a history.
        given = np.asarray(weights.detach() if hasattr(weights, "detach") else weights)
        if np.iscomplexobj(given):
            raise SearchError("region: holds complex numbers; give weights of 0 or more")
        region = given.astype(np.float32)
    except (TypeError, ValueError, RuntimeError):
        raise SearchError(
            f"region: is a {type(weights).__name__}; give an array, a weight for each pixel"
        ) from None
    if region.shape != (height, width):
        size = "×".join(map(str, reversed(region.shape)))
        raise SearchError(
            f"region: has {size} values, the image {width}×{height} pixels; give one for each pixel"
        )
    if not np.isfinite(region).all() or (region < 0).any():
        raise SearchError("region: holds values that are not finite or below 0; give weights of 0 or more")
    mean = region.mean(dtype=np.float64).astype(np.float32)
    if not mean > 0:
        raise SearchError("region: is 0 everywhere; give at least one pixel a weight above 0")
    scaled: Region = region / mean
    return scaled
