"""Factorised priors, hyperpriors and the serial context, as CompressAI implements them.

Weights of ``mean-scale-96`` are in lof's repository; the others are CompressAI's zoo.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lof.codecs.rates import Key, Points, RatePoint
from lof.codecs.registry import CodecSpec, Request, register, register_training

if TYPE_CHECKING:
    from lof.codecs.base import Codec
    from lof.codecs.network import NetworkCodec
    from lof.codecs.training import Trainable

# λ of CompressAI's zoo, quality 1 to 8 (its documentation, "Training").
ZOO_LAMBDAS = {
    "mse": (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800),
    "ms-ssim": (2.40, 4.58, 8.73, 16.64, 31.73, 60.50, 115.37, 220.00),
}


def zoo_point(metric: str, quality: int, fingerprint: str | None = None) -> tuple[Key, RatePoint]:
    """A rate point with the λ that the zoo has at this quality."""
    return (metric, float(quality)), RatePoint(ZOO_LAMBDAS[metric][quality - 1], fingerprint)


def _own(name: str, fingerprints: Mapping[int, str], summary: str, *, hidden: bool = False) -> CodecSpec:
    return CodecSpec(
        name=name,
        rates=Points(dict(zoo_point("mse", quality, digits) for quality, digits in fingerprints.items())),
        default_quality=4,
        summary=summary,
        source="repository",
        paper="Minnen et al., NeurIPS 2018",
        licence="BSD-3-Clause",
        hidden=hidden,
    )


def _zoo(name: str, summary: str, paper: str) -> CodecSpec:
    return CodecSpec(
        name=name,
        rates=Points(dict(zoo_point(metric, quality) for metric in ZOO_LAMBDAS for quality in range(1, 9))),
        default_quality=4,
        summary=summary,
        source="zoo",
        paper=paper,
        licence="BSD-3-Clause-Clear (CompressAI)",
        portable=name == "bmshj2018-factorized",
    )


_SPECS = (
    _own(
        "mean-scale-96",
        {
            2: "ea39745b156601f6e942b815b0ae332c4d5a2b55aaf6a36270f1431af31853b6",
            4: "a4c87a9fb004536b00523deb64e04af0e38744b6a4686f2675c38d53261de027",
            5: "f4f40ca8b29cfb1d24968c7d1e9f58713ee701b3c1fdf152d7fd5b6da9d734d3",
            6: "67f52a6d168b558b3303ee17abb73deb48b88e1565ac7f2647f86429b5782149",
        },
        "mean-scale hyperprior, N=96, M=128",
    ),
    _zoo("bmshj2018-factorized", "factorised prior", "Ballé et al., ICLR 2018"),
    _zoo("bmshj2018-hyperprior", "scale hyperprior", "Ballé et al., ICLR 2018"),
    _zoo("mbt2018-mean", "mean-scale hyperprior", "Minnen et al., NeurIPS 2018"),
    _zoo("mbt2018", "hyperprior and serial context; slow to decode", "Minnen et al., NeurIPS 2018"),
    _own(
        "tiny",
        {4: "22002a029d7433f2c4a2e7fe288d9cf95dc785fc9a5f0f5fa6f7489a40f67534"},
        "mean-scale hyperprior, N=16, M=24; for tests and examples",
        hidden=True,
    ),
)


_SIZES = {"mean-scale-96": {"N": 96, "M": 128}, "tiny": {"N": 16, "M": 24}}


@register(*_SPECS)
def load(request: Request) -> Codec:
    """One of these codecs at the rate point asked for."""
    return _codec_class(request.spec.name).load(request, zoo=request.spec.source == "zoo")


@register_training(*(spec.name for spec in _SPECS))
def training(name: str) -> Trainable:
    """How one of these codecs is trained."""
    from lof.codecs.network_training import NetworkTraining

    return NetworkTraining(name, _codec_class(name), _SIZES.get(name))


def _codec_class(name: str) -> type[NetworkCodec]:
    from lof.codecs.hyperprior.codec import FactorizedCodec, MeanScaleCodec, ScaleHyperpriorCodec
    from lof.codecs.hyperprior.serial import JointAutoregressiveCodec

    classes: dict[str, type[NetworkCodec]] = {
        "bmshj2018-factorized": FactorizedCodec,
        "bmshj2018-hyperprior": ScaleHyperpriorCodec,
        "mbt2018": JointAutoregressiveCodec,
    }
    return classes.get(name, MeanScaleCodec)
