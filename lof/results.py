"""What a search found, as plain data: shared by the API, the jobs and the reports. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lof.errors import UsageError

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB


class Crops(NamedTuple):
    """The same cut of the original, the plain encoding and the optimised one: (h, w, 3) uint8, to 256×256.

    ``region`` is the whole picture, scaled to that size: how much each pixel counts, from black for nothing to white.
    """

    original: Pixels
    baseline: Pixels
    optimised: Pixels
    region: Pixels | None = None


_MOST = 1e12  # of any target; no file is larger
_MOST_SEED = 2**63 - 1
_LAMBDAS = (1e-20, 1e20)  # of which float32 holds the squares too


def checked_lambda(lmbda: float) -> float:
    """A λ that searches can compute with.

    Raises:
        UsageError: it is no number above 0, or beyond all reason.
    """
    least, most = _LAMBDAS
    if not least <= lmbda <= most:
        raise UsageError(f"lambda {lmbda:g}: must be a number above 0, from {least:g} to {most:g}")
    return float(lmbda)


STEEPEST = 1.2
"""Largest ``-d log(rate) / d log(distortion)`` believed: neighbouring rate points show 0.9 to 1.2."""


@dataclass(frozen=True)
class Target:
    """What a file is to be: not above a size, or not below a quality, and as close to it as can be. One of these:

    Attributes:
        size: of the whole file in bytes, metadata included, 1 or more.
        bpp: the same in bits per pixel.
        psnr: in dB, of all pixels.
        psnr_inside: in dB, of the pixels of a region, those that count more than the mean.
        ms_ssim: above 0, below 1.

    Raises:
        UsageError: none is given, or several, or a value that is out of range.
    """

    size: int | None = None
    bpp: float | None = None
    psnr: float | None = None
    ms_ssim: float | None = None
    psnr_inside: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            raise UsageError("target: give exactly one of size, bpp, psnr, psnr_inside and ms_ssim")
        ((name, value),) = given.items()
        number = 0.0
        if isinstance(value, Real) and not isinstance(value, bool):
            with suppress(OverflowError):
                number = float(value)
        if name == "size" and not (1 <= number <= _MOST and number.is_integer()):
            raise UsageError(f"target of {value} bytes: must be a whole number from 1")
        if not 0 < number <= _MOST:
            raise UsageError(f"target {name} {value}: must be a number above 0")
        if name == "ms_ssim" and number >= 1:
            raise UsageError(f"target ms_ssim {value}: must be below 1")
        # NumPy's numbers and 2000.0 bytes are the same target as 2000, with the same name.
        object.__setattr__(self, name, int(number) if name == "size" else number)

    @property
    def is_size(self) -> bool:
        """Whether it is an upper limit of the size; otherwise a lower one of the quality."""
        return self.size is not None or self.bpp is not None

    def most_bytes(self, height: int, width: int) -> int | None:
        """The most bytes that a file of such an image may have; ``None`` for a quality."""
        return self.size if self.bpp is None else int(self.bpp * height * width / 8)

    def __str__(self) -> str:
        if self.size is not None:
            return f"{self.size} bytes"
        if self.bpp is not None:
            return f"{self.bpp:.10g} bpp"
        if self.psnr_inside is not None:
            return f"{self.psnr_inside:.10g} dB inside"
        return f"{self.psnr:.10g} dB" if self.psnr is not None else f"MS-SSIM {self.ms_ssim:.10g}"


@dataclass(frozen=True)
class Measured:
    """One stream, measured: nothing here is estimated.

    Attributes:
        size: length of the stream in bytes.
        bpp: ``8 * size / (H * W)``, bits per pixel.
        mse: mean squared error of the decoded 8-bit image, in squared grey levels (0…65025).
        psnr: ``10 log10(255² / mse)`` in dB; infinity for a lossless result.
        ms_ssim: multi-scale SSIM in 0…1, or ``None`` where a side is shorter than its window allows.
        cost: ``bpp + λ·D`` in bits per pixel, with D what was optimised (``mse``, or ``1 - ms_ssim``).
        psnr_inside, psnr_outside: of the pixels that count more than the mean and of the others, in dB; ``None``
            without a region, and for one that is the same everywhere.
    """

    size: int
    bpp: float
    mse: float
    psnr: float
    ms_ssim: float | None
    cost: float
    psnr_inside: float | None = None
    psnr_outside: float | None = None


@dataclass(frozen=True)
class TracePoint:
    """The best true cost known after some work, in the search's own (unwritten) measure.

    Attributes:
        evaluations: gradient evaluations so far.
        stage: its kind, as in the profile.
        cost: ``bpp + λ·distortion``.
        distortion: mean squared error in grey levels squared, or 1 - MS-SSIM.
    """

    evaluations: int
    stage: str
    cost: float
    bpp: float
    distortion: float


@dataclass(frozen=True)
class Result:
    """One image, optimised. ``data`` is the file; everything else is about it.

    With a ``target``, the baseline is the best plain encoding that meets it, whatever its quality, or the nearest to it
    where none does.

    Attributes:
        pixels, baseline_pixels: (H, W, 3) uint8 RGB, as the decoder makes them of the file and of the plain encoding.
        lmbda: λ of the search, bits per pixel for a unit of distortion.
        kept: ``"search"``, or ``"plain"`` where the search did not lower the cost and ``data`` is the plain encoding.
        evaluations: gradient evaluations.
        seconds: of wall-clock time, writing and measuring included; images of a batch share theirs evenly.
        trace: how the cost fell.
        note: what the search started from, where that is not the plain encoding.
    """

    data: bytes
    pixels: Pixels
    baseline: Measured
    optimised: Measured
    baseline_pixels: Pixels
    codec: str
    quality: float
    profile: str
    lmbda: float
    kept: Literal["search", "plain"]
    evaluations: int
    seconds: float
    seed: int
    metric: str
    trace: list[TracePoint] = field(default_factory=list)
    note: str = ""
    target: Target | None = None

    @property
    def rate_change(self) -> float:
        """Change of rate at equal quality, as a share of the baseline's rate (-0.1 is 10 % smaller).

        From one rate point, so it needs the shape of the curve through it: rate ∝ distortion^-a with the
        slope that λ states, ``a = λ·D / bpp`` at the optimised point, at most :data:`STEEPEST`. A BD-rate
        over several rate points needs no such assumption; ``pipelines.benchmark`` measures it.
        """
        before, after = self.baseline, self.optimised
        ratio = after.bpp / before.bpp
        distortions = before.cost - before.bpp, after.cost - after.bpp  # λ·D
        if min(distortions) <= 0:
            return ratio - 1
        exponent = min(STEEPEST, distortions[1] / after.bpp)
        return float(ratio * (distortions[1] / distortions[0]) ** exponent - 1)

    def record(self) -> dict[str, Any]:
        """The figures without the pixels and the bytes, ready for JSON."""
        return {
            "codec": self.codec,
            "quality": self.quality,
            "profile": self.profile,
            "metric": self.metric,
            "lambda": self.lmbda,
            "seed": self.seed,
            "kept": self.kept,
            "height": int(self.pixels.shape[0]),
            "width": int(self.pixels.shape[1]),
            "baseline": asdict(self.baseline),
            "optimised": asdict(self.optimised),
            "rate_change": self.rate_change,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
            "trace": [asdict(point) for point in self.trace],
            **({} if self.target is None else {"target": str(self.target)}),
        }


def check_arguments(
    *,
    quality: Any = None,
    metric: Any = None,
    lmbda: Any = None,
    seed: Any = 0,
    target: Any = None,
    memory: Any = None,
    weights: Any = None,
) -> None:
    """Check arguments of :func:`lof.optimize`; what is ``None`` or left out was not given.

    Raises:
        UsageError: one is of another type, or out of a range that no codec changes.
    """
    for name, number, example in (
        ("quality", quality, "4"),
        ("lambda", lmbda, "0.013"),
        ("memory", memory, "4e9 bytes"),
    ):
        if number is not None and not _is_number(number):
            raise UsageError(f"{name} {number!r}: must be a number, such as {example}")
    if not isinstance(weights, str | os.PathLike | None) or "\0" in str(weights):
        raise UsageError(f"weights {weights!r}: must be the path of a folder")
    if metric not in (None, "mse", "ms-ssim"):
        raise UsageError(f"metric {metric!r}: unknown; it is mse or ms-ssim")
    if not isinstance(seed, Integral) or not 0 <= int(seed) <= _MOST_SEED:
        raise UsageError(f"seed {seed!r}: must be a whole number from 0 to {_MOST_SEED}")
    if not isinstance(target, Target | None):
        raise UsageError(f"target {target!r}: must be a lof.Target, such as lof.Target(psnr=38)")


def check_quality(codec: Any, quality: float | None) -> None:
    """Check the quality that is asked for beside a codec, which may be a loaded one or a name.

    Raises:
        UsageError: the codec is loaded, and has another.
    """
    own = getattr(codec, "quality", quality)
    if quality is not None and quality != own:
        raise UsageError(
            f"quality {quality}: the loaded codec has quality {own:.10g}; load that one, or name the codec"
        )


def check_batch(shapes: Sequence[tuple[int, ...]], **given: Sequence[Any] | None) -> None:
    """Check the shapes of a batch's images, and by its name whatever else there is one of for each image.

    Raises:
        UsageError: there are no images or images of several sizes, or not as many of the others.
    """
    if len(set(shapes)) != 1:
        raise UsageError("a batch holds images of one size" if shapes else "a batch holds at least one image")
    for name, others in given.items():
        if others is not None and len(others) != len(shapes):
            raise UsageError(f"{name}: {len(others)} for {len(shapes)} images; give one for each")


def _is_number(value: Any) -> bool:
    """Of Python, NumPy or torch; text that reads like one is none."""
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return not isinstance(value, str | bytes)
