"""Lapped codecs: one network for every quality, symbols that every CPU reads alike, made to be trained on a CPU.

``config`` says what a codec is made of, ``transforms`` is the image's way in and out: a linear lapped transform and a
network parallel to it; ``fixed`` has layers of fixed-point arithmetic, ``prior`` is the probability model made of
them, ``tables`` are the entropy coder's, ``network`` is all of it as one module, ``synthesis`` and ``decoder`` are
the standard decoder, which stands alone, ``codec`` the codec behind lof's contract. ``FORMAT.md`` describes the
syntax for whoever writes another decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lof.codecs.rates import Continuous
from lof.codecs.registry import CodecSpec, Request, register, register_training

if TYPE_CHECKING:
    from lof.codecs.base import Codec
    from lof.codecs.training import Trainable


def _spec(
    name: str,
    fingerprint: str,
    summary: str,
    *,
    source: str = "bundled",
    paper: str = "",
    hidden: bool = False,
) -> CodecSpec:
    return CodecSpec(
        name=name,
        rates=Continuous(1, 8, (0.0018, 0.18), fingerprint=fingerprint),
        default_quality=4,
        summary=summary,
        source=source,
        paper=paper,
        licence="BSD-3-Clause",
        portable=True,
        hidden=hidden,
    )


@register(
    _spec(
        "lapped",
        "3b9ad7b7925754b906e5f11ba5f66c22a509295f7bd9a7484f45258ebde1a4f5",
        "lapped transform and network, one for every quality; ships with lof",
    ),
    _spec(
        "lapped-tiny",
        "5a2a4fe4ddfcae1ac7e00b4eed602da2d2ddbe1997ea74dc6636f4f548b49159",
        "the same, of 12 channels; for tests and examples",
        hidden=True,
    ),
)
def load(request: Request) -> Codec:
    """The codec at the quality asked for."""
    from lof.codecs.lapped.codec import LappedCodec

    return LappedCodec.load(request)


@register_training("lapped", "lapped-tiny")
def training(name: str) -> Trainable:
    """How one of these codecs is trained."""
    from lof.codecs.lapped.training import LappedTraining

    return LappedTraining(name)


@register(
    _spec(
        "jointiq",
        "6c0f6b32ba93735f7caccaf214a1d05f3c99eccb5349c79cbfe46182793e1c19",
        "lapped with a mixture prior and enhancement; slower to decode",
        source="repository",
        paper="Lee, Cho, Kim 2019",
    ),
    _spec(
        "jointiq-tiny",
        "3c6e103de07f67111c7b21ec830fde1216f2ef44e7ff6d8c94d715d18eb71a96",
        "the same, of 7 channels; for tests",
        paper="Lee, Cho, Kim 2019",
        hidden=True,
    ),
)
def load_joint(request: Request) -> Codec:
    """The JointIQ codec at the quality asked for."""
    from lof.codecs.lapped.jointiq.codec import JointCodec

    return JointCodec.load(request)


@register_training("jointiq", "jointiq-tiny")
def train_joint(name: str) -> Trainable:
    """How a JointIQ codec is trained."""
    from lof.codecs.lapped.jointiq.training import JointTraining

    return JointTraining(name)
