"""Networks of CompressAI's kind with other strides than lof's own, as packages of others may have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from compressai.layers import GDN
from compressai.models import FactorizedPrior, MeanScaleHyperprior
from compressai.models.utils import conv, deconv
from torch import Tensor, nn

from lof.codecs.hyperprior.codec import FactorizedCodec, MeanScaleCodec
from lof.codecs.network import NetworkCodec


class Sized:
    """What ``from_state_dict`` needs to know of a network: the layer of ``g_a`` that gives y."""

    last: ClassVar[int]

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> Any:
        net: Any = cls(len(state["g_a.0.weight"]), len(state[f"g_a.{cls.last}.weight"]))  # type: ignore[call-arg]
        net.load_state_dict(state)
        return net


class Fine(Sized, MeanScaleHyperprior):  # type: ignore[misc]
    """y has a place for 8×8 pixels, z for 32×32."""

    last = 4

    def __init__(self, N: int, M: int) -> None:
        super().__init__(N, M)
        self.g_a = nn.Sequential(conv(3, N), GDN(N), conv(N, N), GDN(N), conv(N, M))
        self.g_s = nn.Sequential(
            deconv(M, N), GDN(N, inverse=True), deconv(N, N), GDN(N, inverse=True), deconv(N, 3)
        )


class FineCodec(MeanScaleCodec):
    stride = 32
    network = Fine

    @classmethod
    def sizes_in(cls, state: Mapping[str, Tensor]) -> tuple[int, ...]:
        return len(state["g_a.0.weight"]), len(state["g_a.4.weight"])


class Near(MeanScaleHyperprior):  # type: ignore[misc]
    """z has a place for 2×2 of y, which has one for 16×16 pixels."""

    def __init__(self, N: int, M: int) -> None:
        super().__init__(N, M)
        self.h_a = nn.Sequential(conv(M, N, stride=1, kernel_size=3), nn.LeakyReLU(), conv(N, N))
        self.h_s = nn.Sequential(deconv(N, M), nn.LeakyReLU(), conv(M, M * 2, stride=1, kernel_size=3))


class NearCodec(MeanScaleCodec):
    stride = 32
    network = Near


class Odd(FactorizedPrior):  # type: ignore[misc]
    """y has a place for 12×12 pixels."""

    def __init__(self, N: int, M: int) -> None:
        super().__init__(N, M)
        self.g_a = nn.Sequential(conv(3, N, 5, 3), GDN(N), conv(N, N), GDN(N), conv(N, M))
        self.g_s = nn.Sequential(
            *(deconv(M, N), GDN(N, inverse=True), deconv(N, N), GDN(N, inverse=True)),
            nn.ConvTranspose2d(N, 3, 5, stride=3, padding=1),
        )


class OddCodec(FactorizedCodec):
    stride = 12
    network = Odd


def untrained(kind: type[NetworkCodec], name: str = "other") -> Any:
    """A codec of that class with random weights, whose symbols and scales are those of a trained one in size."""
    torch.manual_seed(0)
    net: Any = kind.network(16, 24)
    with torch.no_grad():
        net.g_a[-1].weight.mul_(15)
        if isinstance(net, MeanScaleHyperprior):
            net.h_s[-1].bias[:24] = torch.linspace(0.5, 2, 24)
    net.eval().update(force=True)
    return kind(
        net,
        name=name,
        quality=4.0,
        metric="mse",
        lmbda=0.013,
        device=torch.device("cpu"),
        precision=torch.float32,
    )
