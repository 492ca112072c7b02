"""A JointIQ codec behind lof's contract: lapped's, with mixtures, and a network behind the synthesis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor

from lof.codecs.base import Coded, Locality
from lof.codecs.lapped.codec import LappedCodec, first, last
from lof.codecs.lapped.jointiq.decoder import JointDecoder
from lof.codecs.lapped.jointiq.network import JointNetwork
from lof.codecs.lapped.network import LappedNetwork, arranged, parted
from lof.codecs.lapped.transforms import BLOCK


class JointCodec(LappedCodec):
    """A JointIQ codec at one quality."""

    network = JointNetwork

    def __init__(self, net: JointNetwork, **about: Any) -> None:
        super().__init__(net, **about)
        config = net.joint
        window = config.context[0] if config.context else 4
        # A part that begins where a window does is coded as in the whole.
        grid = BLOCK * window
        while grid % 64:
            grid += BLOCK * window
        self.enhancing_bytes_per_pixel = 0
        if net.enhancement is not None:
            places = net.enhancement.shrink**2
            self.bytes_per_pixel += 4 * net.enhancement.searched // places
            self.enhancing_bytes_per_pixel = 4 * net.enhancement.decoded // places + 36
        self.locality = Locality(grid=grid, reach=max(128, BLOCK * window // 2))

    @classmethod
    def of(cls, net: LappedNetwork) -> type[Self]:
        """See :meth:`LappedCodec.of`."""
        from lof.codecs.lapped.jointiq.described import DescribedCodec

        return cast(type[Self], DescribedCodec if cast(JointNetwork, net).joint.described else cls)

    def decoding_memory(self, height: int, width: int) -> int:
        """See :meth:`Codec.decoding_memory`: what is behind the synthesis holds all of the image."""
        pixels = math.prod(self.padded_size(height, width))
        return super().decoding_memory(height, width) + pixels * self.enhancing_bytes_per_pixel

    def _coded_y(self, found: Sequence[list[list[Tensor]]], size: tuple[int, int]) -> Coded:
        in_waves = self.net.config.in_waves
        residual, value = (
            first(arranged([torch.cat(part, 1) for part in parts], *size, in_waves=in_waves))
            for parts in found[:2]
        )
        forms = [torch.cat(part, 1) for part in found[2]]
        net = cast(JointNetwork, self.net)

        def bits_of(residual: Tensor) -> Tensor:
            parts = parted(last(residual), net.config)
            priced = [
                net.bits(number, part, form)
                for number, (part, form) in enumerate(zip(parts, forms, strict=True), 1)
            ]
            return first(arranged(priced, *size, in_waves=in_waves))

        return Coded(residual, value, bits_of)

    def _decoder(self) -> JointDecoder:
        return JointDecoder(cast(JointNetwork, self.net))
