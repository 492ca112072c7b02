"""JPEG as a codec: its decoder is on every machine; better files come from the search alone.

``files`` reads and writes coefficients with the libraries that know the format, ``planes`` is the decoder that can be
differentiated, ``trellis`` finds the coefficients that are worth their bits, ``search`` is the search made of it,
``codec`` the codec behind lof's contract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lof.codecs.registry import CodecSpec, Request, register

if TYPE_CHECKING:
    from lof.codecs.base import Codec

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
