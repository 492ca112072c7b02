"""MSP behind lof's contract: one latent tensor, whose every element informs those coded after it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from lof.codecs.base import Coded, Latents, Locality, Quantize
from lof.codecs.entropy.fixed import exact_sums
from lof.codecs.msp import layout
from lof.codecs.msp.decoder import STRIDE, Decoder
from lof.codecs.msp.layout import Part
from lof.codecs.msp.network import MSPNetwork
from lof.codecs.network import NetworkCodec


class MSPCodec(NetworkCodec):
    """An MSP tier at one rate point.

    ``net`` computes as the decoder does, in exact sums; ``fast``, for the search, without rounding of
    activations and in the search's precision.
    """

    latents = ("y",)
    stride = STRIDE
    portable = True
    network = MSPNetwork

    def __init__(self, net: MSPNetwork, **about: object) -> None:
        super().__init__(net, **about)  # type: ignore[arg-type]
        self.decoder = Decoder(net)
        coarsest = STRIDE * 2**net.config.levels
        self.locality = Locality(grid=coarsest, reach=max(coarsest, 128))
        self.fast.prior = copy.deepcopy(net.prior).to(self.device)
        self.fast.prior.lower_precision(self.precision)

    def code(
        self, latents: Mapping[str, Tensor], quantize: Quantize, *, exact: bool = False
    ) -> dict[str, Coded]:
        """See :meth:`Codec.code`. ``quantize`` is called step by step, on the elements that the step codes.

        With ``exact`` no gradient passes through predictions.
        """
        net, y = self._network(exact, latents["y"])
        with exact_sums(), self._arithmetic(exact):
            return {"y": _code(cast(MSPNetwork, net), y, quantize)}

    def synthesise(self, values: Mapping[str, Tensor], *, exact: bool = False) -> Tensor:
        """See :meth:`Codec.synthesise`."""
        if exact:
            return self.decoder.synthesise(values["y"].to("cpu"))
        return super().synthesise(values)

    def compress(self, symbols: Mapping[str, Tensor]) -> list[bytes]:
        """See :meth:`Codec.compress`."""
        return [self.decoder.encode(symbols["y"])]

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Codec.state`."""
        return cast(MSPNetwork, self.net).shippable_state()

    @classmethod
    def sizes_in(cls, state: Mapping[str, Tensor]) -> tuple[int, ...]:
        """MSP's weights state their sizes."""
        return tuple(state["sizes"].tolist()) if "sizes" in state else ()

    def _read(self, strings: Sequence[bytes], shape: tuple[int, int]) -> tuple[Latents, Latents]:
        symbols, values = self.decoder.read(strings[0], *shape)
        return {"y": symbols}, {"y": values}

    def _decoded(self, y: Tensor) -> Tensor:
        return self.decoder.synthesise(y)

    def _slack(self, string: bytes, shape: tuple[int, int]) -> bytes:
        return b""  # the decoder appends its own


def _code(net: MSPNetwork, y: Tensor, quantize: Quantize) -> Coded:
    height, width = y.shape[-2:]
    padded = layout.pad(y.index_select(1, net.order), net.config)
    inside = layout.pad(torch.ones_like(y), net.config)
    median = net.medians()
    residuals: list[Tensor] = []
    values: list[Tensor] = []
    forms: list[Tensor] = []

    def take(part: Part, centre: Tensor | None, form: Tensor | None) -> Tensor:
        piece = part.cut(padded)
        centre = median if centre is None else centre.float()
        residuals.append(quantize("y", piece - centre))
        values.append((residuals[-1] + centre) * part.cut(inside))
        forms.append(net.no_form(piece) if form is None else form.float())
        return values[-1]

    layout.walk(net.prior, take)
    names = net.order.argsort()
    size = padded.shape[-2:]
    residual, value = (
        layout.assemble(pieces, net.config, *size)[..., :height, :width].index_select(1, names)
        for pieces in (residuals, values)
    )
    form = net.assemble_forms(forms, *size)[..., :height, :width].index_select(2, names)
    distribution = net.distribution(form)

    def bits_of(residual: Tensor) -> Tensor:
        return net.bits(residual, *distribution)

    return Coded(residual, value, bits_of)
