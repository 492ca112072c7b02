"""The class behind each codec of this family."""

from __future__ import annotations

from lof.codecs.hyperprior.codec import FactorizedCodec, MeanScaleCodec, ScaleHyperpriorCodec
from lof.codecs.hyperprior.serial import JointAutoregressiveCodec
from lof.codecs.network import NetworkCodec

_CLASSES: dict[str, type[NetworkCodec]] = {
    "bmshj2018-factorized": FactorizedCodec,
    "bmshj2018-hyperprior": ScaleHyperpriorCodec,
    "mbt2018": JointAutoregressiveCodec,
}


def codec_class(name: str) -> type[NetworkCodec]:
    """The codec's class; what is not named apart has a mean-scale hyperprior."""
    return _CLASSES.get(name, MeanScaleCodec)
