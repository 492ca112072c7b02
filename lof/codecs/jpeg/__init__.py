"""JPEG as a codec: its decoder is on every machine; better files come from the search alone.

``files`` reads and writes coefficients with the libraries that know the format, ``planes`` is the decoder that can be
differentiated, ``trellis`` finds the coefficients that are worth their bits, ``search`` is the search made of it,
``codec`` the codec behind lof's contract. The folder ``descriptors`` has a codec of its own: the same files, and with
them descriptors that steer a filter of the decoded picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lof.codecs.rates import Points, RatePoint
from lof.codecs.registry import CodecSpec, Request, register, register_training

if TYPE_CHECKING:
    from lof.codecs.base import Codec
    from lof.codecs.training import Trainable

from lof.codecs.jpeg.rates import RATES

SPEC = CodecSpec(
    name="jpeg",
    rates=RATES,
    default_quality=75,
    summary="JPEG files that every program reads; quality 1 to 100 as in libjpeg",
    paper="ITU-T T.81",
    licence="BSD-3-Clause",
    portable=True,
)


@register(SPEC)
def load(request: Request) -> Codec:
    """The codec at the quality asked for."""
    from lof.codecs.jpeg.codec import JpegCodec

    return JpegCodec(request)


_FILTERED = 2.15
"""λ over that of ``jpeg``, so that searched files have about the PSNR of plain ones, both filtered; chosen on CID22's
validation set."""


def _with_descriptors(name: str, fingerprint: str | None, summary: str, *, hidden: bool = False) -> CodecSpec:
    points = {key: RatePoint(_FILTERED * point.lmbda, fingerprint) for key, point in RATES.points.items()}
    return CodecSpec(
        name=name,
        rates=Points(points, one_network=True),
        default_quality=75,
        summary=summary,
        source="bundled",
        paper="Ma, Liu, Wu 2020",
        licence="BSD-3-Clause",
        portable=True,
        hidden=hidden,
    )


@register(
    _with_descriptors(
        "jpeg-descriptors",
        "0caf1f9c4cab1c2efadbaa3a563ab852e433dcc468d2058bf552ca438f7ff80e",
        "JPEG with descriptors that steer a filter of the decoded picture",
    ),
    _with_descriptors(
        "jpeg-descriptors-tiny",
        "919b2219dd86e6760cb09b642b1e966b64ddee69b18ea5f88594a5e5bddf792f",
        "JPEG with descriptors that steer a filter, of 16 channels; for tests",
        hidden=True,
    ),
)
def load_with_descriptors(request: Request) -> Codec:
    """The codec with descriptors, at the quality asked for."""
    from lof.codecs.jpeg.descriptors.codec import DescriptorCodec

    return DescriptorCodec.load(request)


@register_training("jpeg-descriptors", "jpeg-descriptors-tiny")
def training(name: str) -> Trainable:
    """How one of the codecs with descriptors is trained."""
    from lof.codecs.jpeg.descriptors.training import DescriptorTraining

    return DescriptorTraining(name)
