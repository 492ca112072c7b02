"""The multi-scale progressive codec (MSP): one probability model, evaluated a fixed number of times per image.

After Zhang et al. 2022. ``config`` says what a tier is, ``layout`` in which order latents are coded, ``prior`` is
the probability model, ``transforms`` the image's way in and out, ``network`` all of it as one module, ``decoder``
the standard decoder, which stands alone, ``codec`` the codec behind lof's contract. ``FORMAT.md`` describes the
syntax for whoever writes another decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lof.codecs.msp.config import TIERS
from lof.codecs.rates import Points, RatePoint
from lof.codecs.registry import CodecSpec, Request, register, register_tiers, register_training

if TYPE_CHECKING:
    from lof.codecs.base import Codec
    from lof.codecs.training import Trainable

TRANSFORMS = "mean-scale-96"
"""The codec whose transforms the tiers were trained on, and whose weights theirs need not repeat."""

_LAMBDAS = {2: 0.0035, 4: 0.0130, 5: 0.0250, 6: 0.0483}


def _tier(name: str, fingerprints: Mapping[int, str], *, hidden: bool = False) -> CodecSpec:
    points = {
        ("mse", float(quality)): RatePoint(_LAMBDAS[quality], digits)
        for quality, digits in fingerprints.items()
    }
    return CodecSpec(
        name=name,
        rates=Points(points),
        default_quality=4,
        summary=f"multi-scale progressive, {TIERS[name].evaluations} evaluations",
        source="repository",
        paper="Zhang et al. 2022",
        licence="BSD-3-Clause",
        portable=True,
        hidden=hidden,
    )


_SPECS = (
    _tier(
        "msp-fast",
        {
            2: "981983aaffff5467a410c0ed62a359fc52619ec8cf67739a163b21282e17e9d2",
            4: "ac9be6b537dbd61f7feb3e44ea45759e3965ec9b13e963082d285aaba825ae42",
            5: "86346599cca8af92c48a56d88a07247aff6c7897c90a1fe10a9ff9e0b8978b93",
            6: "5869563199784dcbd99be8d7db1995f6f5d1504495d4d9e10c995f6b4f83394a",
        },
    ),
    _tier(
        "msp-base",
        {
            2: "0ff456bacf5f202c7848ea3b07a6330eaf925d839ce545566d95daae8d1cd6d6",
            4: "f42be7ca5d64174a3291560bd75524aa055e5e4977f54c057bc2674ed4cac873",
            5: "45f17b1d11589c06863dd7241a290d42eb505f1aa442e713e78cf5a2d810813f",
            6: "c4e813ef464834330a99203aec4d845df2a5059fd2ec7e83ee43b55c21e73855",
        },
    ),
    _tier(
        "msp-high",
        {
            2: "9019fd8c0d1a8dc1c04b6c7a4772fdc3191bc434a4140624e1f53f599ad45f6e",
            4: "40fe482b2ff46cfbdb024e3a8570fe42c8d3412dbda78c21d64de79c64c7bea8",
            5: "c16b720cf2609eec2e573a52b324bb3c0351b4148c66a0966d81d4a1a3b9210b",
            6: "42fbbf7cf9b22232e652d4f129305df82cebfe0d11247b5b716e7bcfe06ea665",
        },
    ),
    _tier(
        "msp-tiny",
        {4: "16c071bc8a382751fe5ef66fbfe4814b9edb1a0cc0478f7c94a44b20ff9b2627"},
        hidden=True,
    ),
)

register_tiers("msp", {"fast": "msp-fast", "medium": "msp-base", "high": "msp-high", "max": "msp-high"})


@register(*_SPECS)
def load(request: Request) -> Codec:
    """A tier at the rate point asked for."""
    from lof.codecs.msp.codec import MSPCodec

    return MSPCodec.load(request, zoo=False, transforms=TRANSFORMS)


@register_training(*(spec.name for spec in _SPECS))
def training(name: str) -> Trainable:
    """How a tier is trained."""
    from lof.codecs.msp.training import MSPTraining

    return MSPTraining(name)
