"""One table of every codec that lof knows; registering a codec is also testing it."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lof.codecs.msp.config import TIERS
from lof.errors import UnknownCodecError

if TYPE_CHECKING:
    from lof.codecs.hyperprior.codec import CompressAICodec

Key = tuple[str, int]
"""A rate point's name inside its codec: (metric, quality)."""


@dataclass(frozen=True)
class RatePoint:
    """One trained member of a codec family.

    Attributes:
        lmbda: λ of the training loss ``bpp + λ·D``; D is ``255²·MSE``, or ``1 - MS-SSIM``.
        sizes: arguments of the network's constructor, ``(N, M)`` for CompressAI's.
        fingerprint: SHA-256 of bundled weights (hexadecimal), checked at every load; ``None`` for
            weights that come from elsewhere.
    """

    lmbda: float
    sizes: tuple[int, ...]
    fingerprint: str | None = None


@dataclass(frozen=True)
class CodecSpec:
    """A codec family as the registry knows it.

    Attributes:
        implementation: ``module:class`` below :mod:`lof.codecs`, imported when first used.
        source: ``bundled`` weights ship in ``lof/codecs/data``; ``zoo`` weights are CompressAI's.
        default_quality: what ``quality=None`` means.
        transforms: codec whose ``g_a`` and ``g_s`` this one was trained on, and whose weights need not repeat them.
        hidden: not listed; exists for tests and examples.
    """

    name: str
    implementation: str
    rate_points: Mapping[Key, RatePoint]
    source: Literal["bundled", "zoo"]
    default_quality: int
    summary: str
    paper: str
    licence: str
    transforms: str | None = None
    hidden: bool = False

    def load_class(self) -> type[CompressAICodec]:
        """Import the class behind this codec."""
        module, _, attribute = self.implementation.partition(":")
        found: type[CompressAICodec] = getattr(importlib.import_module(f"lof.codecs.{module}"), attribute)
        return found

    def rate_point(self, metric: str, quality: int) -> RatePoint:
        """The rate point of that name.

        Raises:
            UnknownCodecError: there is none; the message lists those that exist.
        """
        if (metric, quality) not in self.rate_points:
            metrics = sorted({m for m, _ in self.rate_points})
            if metric not in metrics:
                raise UnknownCodecError(
                    f"codec {self.name}: no metric {metric!r}; it has {', '.join(metrics)}"
                )
            qualities = ", ".join(str(q) for m, q in sorted(self.rate_points) if m == metric)
            raise UnknownCodecError(f"codec {self.name}: no quality {quality}; it has {qualities}")
        return self.rate_points[metric, quality]


# λ of CompressAI's zoo, quality 1 to 8 (its documentation, "Training").
ZOO_MSE_LAMBDAS = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800)
ZOO_MS_SSIM_LAMBDAS = (2.40, 4.58, 8.73, 16.64, 31.73, 60.50, 115.37, 220.00)


def _zoo_rate_points(small_up_to: int, small: tuple[int, int] = (128, 192)) -> dict[Key, RatePoint]:
    points: dict[Key, RatePoint] = {}
    for metric, lambdas in (("mse", ZOO_MSE_LAMBDAS), ("ms-ssim", ZOO_MS_SSIM_LAMBDAS)):
        for quality, lmbda in enumerate(lambdas, start=1):
            sizes = small if quality <= small_up_to else (192, 320)
            points[metric, quality] = RatePoint(lmbda, sizes)
    return points


def _msp(
    name: str, fingerprints: Mapping[int, str], *, transforms: str | None = None, hidden: bool = False
) -> CodecSpec:
    tier = TIERS[name]
    return CodecSpec(
        name=name,
        implementation="msp.codec:MSPCodec",
        rate_points={
            ("mse", quality): RatePoint(ZOO_MSE_LAMBDAS[quality - 1], tier.sizes, fingerprint=digits)
            for quality, digits in fingerprints.items()
        },
        source="bundled",
        default_quality=4,
        summary=f"multi-scale progressive, {tier.evaluations} evaluations; ships with lof",
        paper="Zhang et al. 2022",
        licence="BSD-3-Clause",
        transforms=transforms,
        hidden=hidden,
    )


_SPECS = (
    CodecSpec(
        name="mean-scale-96",
        implementation="hyperprior.codec:MeanScaleCodec",
        rate_points={
            ("mse", 2): RatePoint(
                0.0035,
                (96, 128),
                fingerprint="ea39745b156601f6e942b815b0ae332c4d5a2b55aaf6a36270f1431af31853b6",
            ),
            ("mse", 4): RatePoint(
                0.0130,
                (96, 128),
                fingerprint="a4c87a9fb004536b00523deb64e04af0e38744b6a4686f2675c38d53261de027",
            ),
            ("mse", 5): RatePoint(
                0.0250,
                (96, 128),
                fingerprint="f4f40ca8b29cfb1d24968c7d1e9f58713ee701b3c1fdf152d7fd5b6da9d734d3",
            ),
            ("mse", 6): RatePoint(
                0.0483,
                (96, 128),
                fingerprint="67f52a6d168b558b3303ee17abb73deb48b88e1565ac7f2647f86429b5782149",
            ),
        },
        source="bundled",
        default_quality=4,
        summary="mean-scale hyperprior, N=96, M=128; ships with lof",
        paper="Minnen et al., NeurIPS 2018",
        licence="BSD-3-Clause",
    ),
    CodecSpec(
        name="bmshj2018-factorized",
        implementation="hyperprior.codec:FactorizedCodec",
        rate_points=_zoo_rate_points(small_up_to=5),
        source="zoo",
        default_quality=4,
        summary="factorised prior",
        paper="Ballé et al., ICLR 2018",
        licence="BSD-3-Clause-Clear (CompressAI)",
    ),
    CodecSpec(
        name="bmshj2018-hyperprior",
        implementation="hyperprior.codec:ScaleHyperpriorCodec",
        rate_points=_zoo_rate_points(small_up_to=5),
        source="zoo",
        default_quality=4,
        summary="scale hyperprior",
        paper="Ballé et al., ICLR 2018",
        licence="BSD-3-Clause-Clear (CompressAI)",
    ),
    CodecSpec(
        name="mbt2018-mean",
        implementation="hyperprior.codec:MeanScaleCodec",
        rate_points=_zoo_rate_points(small_up_to=4),
        source="zoo",
        default_quality=4,
        summary="mean-scale hyperprior",
        paper="Minnen et al., NeurIPS 2018",
        licence="BSD-3-Clause-Clear (CompressAI)",
    ),
    CodecSpec(
        name="mbt2018",
        implementation="hyperprior.serial:JointAutoregressiveCodec",
        rate_points=_zoo_rate_points(small_up_to=4, small=(192, 192)),
        source="zoo",
        default_quality=4,
        summary="hyperprior and serial context; slow to decode",
        paper="Minnen et al., NeurIPS 2018",
        licence="BSD-3-Clause-Clear (CompressAI)",
    ),
    CodecSpec(
        name="tiny",
        implementation="hyperprior.codec:MeanScaleCodec",
        rate_points={
            ("mse", 4): RatePoint(
                0.0130,
                (16, 24),
                fingerprint="22002a029d7433f2c4a2e7fe288d9cf95dc785fc9a5f0f5fa6f7489a40f67534",
            )
        },
        source="bundled",
        default_quality=4,
        summary="mean-scale hyperprior, N=16, M=24; for tests and examples",
        paper="Minnen et al., NeurIPS 2018",
        licence="BSD-3-Clause",
        hidden=True,
    ),
    _msp(
        "msp-fast",
        {
            2: "981983aaffff5467a410c0ed62a359fc52619ec8cf67739a163b21282e17e9d2",
            4: "ac9be6b537dbd61f7feb3e44ea45759e3965ec9b13e963082d285aaba825ae42",
            5: "86346599cca8af92c48a56d88a07247aff6c7897c90a1fe10a9ff9e0b8978b93",
            6: "5869563199784dcbd99be8d7db1995f6f5d1504495d4d9e10c995f6b4f83394a",
        },
        transforms="mean-scale-96",
    ),
    _msp(
        "msp-base",
        {
            2: "0ff456bacf5f202c7848ea3b07a6330eaf925d839ce545566d95daae8d1cd6d6",
            4: "f42be7ca5d64174a3291560bd75524aa055e5e4977f54c057bc2674ed4cac873",
            5: "45f17b1d11589c06863dd7241a290d42eb505f1aa442e713e78cf5a2d810813f",
            6: "c4e813ef464834330a99203aec4d845df2a5059fd2ec7e83ee43b55c21e73855",
        },
        transforms="mean-scale-96",
    ),
    _msp(
        "msp-high",
        {
            2: "9019fd8c0d1a8dc1c04b6c7a4772fdc3191bc434a4140624e1f53f599ad45f6e",
            4: "40fe482b2ff46cfbdb024e3a8570fe42c8d3412dbda78c21d64de79c64c7bea8",
            5: "c16b720cf2609eec2e573a52b324bb3c0351b4148c66a0966d81d4a1a3b9210b",
            6: "42fbbf7cf9b22232e652d4f129305df82cebfe0d11247b5b716e7bcfe06ea665",
        },
        transforms="mean-scale-96",
    ),
    _msp(
        "msp-tiny",
        {4: "16c071bc8a382751fe5ef66fbfe4814b9edb1a0cc0478f7c94a44b20ff9b2627"},
        hidden=True,
    ),
)

DEFAULT_CODEC = "mean-scale-96"
_registry: dict[str, CodecSpec] = {}


def register(spec: CodecSpec) -> None:
    """Add a codec to the table.

    Raises:
        ValueError: a codec of that name is registered already.
    """
    if spec.name in _registry:
        raise ValueError(f"codec {spec.name!r} is registered already; choose another name")
    _registry[spec.name] = spec


def codec_specs(*, hidden: bool = False) -> list[CodecSpec]:
    """All registered codecs in the order of registration; ``hidden`` ones on request."""
    return [spec for spec in _registry.values() if hidden or not spec.hidden]


def codec_spec(name: str) -> CodecSpec:
    """The codec of that name.

    Raises:
        UnknownCodecError: there is none; the message names the nearest.
    """
    if name in _registry:
        return _registry[name]
    near = difflib.get_close_matches(name, _registry, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(s.name for s in codec_specs())}"
    raise UnknownCodecError(f"codec {name!r}: unknown; {hint}")


for _spec in _SPECS:
    register(_spec)
