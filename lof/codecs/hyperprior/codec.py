"""Codecs with a factorised prior or a hyperprior, as CompressAI implements them.

``bmshj2018-factorized`` and ``bmshj2018-hyperprior``: Ballé et al., ICLR 2018. ``mbt2018-mean``: Minnen et al.,
NeurIPS 2018, without the autoregressive context. Entropy models, tables and decoders are CompressAI's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.models import CompressionModel, FactorizedPrior, MeanScaleHyperprior, ScaleHyperprior
from torch import Tensor

from lof.codecs.base import Coded, Latents, Locality, Quantize
from lof.codecs.checks import strings_read
from lof.codecs.exact import exact_arithmetic
from lof.codecs.hyperprior.widen import distances, widened
from lof.codecs.network import NetworkCodec


class BottleneckCodec(NetworkCodec):
    """What these families share: a latent tensor under CompressAI's factorised entropy bottleneck."""

    locality = Locality(grid=64, reach=192)

    def _median(self) -> Tensor:
        return cast(Tensor, self.net.entropy_bottleneck._get_medians()).reshape(1, -1, 1, 1)

    def _code_factorised(self, net: CompressionModel, name: str, latent: Tensor, quantize: Quantize) -> Coded:
        bottleneck: EntropyBottleneck = net.entropy_bottleneck
        median = bottleneck._get_medians().reshape(1, -1, 1, 1)

        def bits_of(residual: Tensor) -> Tensor:
            # The bottleneck's cumulative works on (C, 1, everything else).
            values = (residual + median).transpose(0, 1)
            likelihood, _, _ = bottleneck._likelihood(values.reshape(values.shape[0], 1, -1))
            likelihood = bottleneck.likelihood_lower_bound(likelihood)
            bits: Tensor = -likelihood.log2().reshape(values.shape).transpose(0, 1)
            return bits

        residual = quantize(name, latent - median)
        return Coded(residual, residual + median, bits_of)


class FactorizedCodec(BottleneckCodec):
    """``bmshj2018-factorized``: one latent tensor under a learned factorised prior (Ballé et al. 2018)."""

    latents = ("y",)
    stride = 16
    portable = True
    network = FactorizedPrior

    def code(
        self, latents: Mapping[str, Tensor], quantize: Quantize, *, exact: bool = False
    ) -> dict[str, Coded]:
        """See :meth:`Codec.code`."""
        net, y = self._network(exact, latents["y"])
        return {"y": self._code_factorised(net, "y", y, quantize)}

    def compress(self, symbols: Mapping[str, Tensor]) -> list[bytes]:
        """See :meth:`Codec.compress`."""
        with torch.no_grad():
            y = symbols["y"].to("cpu", torch.float32) + self._median()
            return cast(list[bytes], self.net.entropy_bottleneck.compress(y))

    def _read(self, strings: Sequence[bytes], shape: tuple[int, int]) -> tuple[Latents, Latents]:
        y_hat = self.net.entropy_bottleneck.decompress(strings, shape)
        return {"y": torch.round(y_hat - self._median())}, {"y": y_hat}

    # The factorised family pads to 64 as examples/codec.py does for every model, so that its layout holds.
    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """See :meth:`Codec.padded_size`: multiples of 64 where the network takes these, though it needs only 16."""
        side = self.stride if 64 % self.stride else 64
        return -(-height // side) * side, -(-width // side) * side


class ScaleHyperpriorCodec(BottleneckCodec):
    """``bmshj2018-hyperprior``: zero-mean Gaussians whose scales the hyperprior predicts (Ballé et al. 2018)."""

    latents = ("z", "y")
    stride = 64
    network = ScaleHyperprior

    def code(
        self, latents: Mapping[str, Tensor], quantize: Quantize, *, exact: bool = False
    ) -> dict[str, Coded]:
        """See :meth:`Codec.code`."""
        net, z = self._network(exact, latents["z"])
        coded_z = self._code_factorised(net, "z", z, quantize)
        with self._arithmetic(exact):
            scales, means = self._gaussian(net, coded_z.value)
        conditional: GaussianConditional = net.gaussian_conditional

        def bits_of(residual: Tensor) -> Tensor:
            likelihood = conditional.likelihood_lower_bound(conditional._likelihood(residual, scales))
            return cast(Tensor, -likelihood.log2())

        residual = quantize("y", latents["y"].to(means.device) - means)
        return {"z": coded_z, "y": Coded(residual, residual + means, bits_of)}

    def compress(self, symbols: Mapping[str, Tensor]) -> list[bytes]:
        """See :meth:`Codec.compress`."""
        bottleneck, conditional = self.net.entropy_bottleneck, self.net.gaussian_conditional
        with torch.no_grad(), exact_arithmetic():
            z_strings = bottleneck.compress(symbols["z"].to("cpu", torch.float32) + self._median())
            scales, means = self._decoder_gaussian(z_strings[0], symbols["z"].shape[-2:])
            y = symbols["y"].to("cpu", torch.float32) + means
            y_strings = conditional.compress(y, conditional.build_indexes(scales), means=means)
        return [*y_strings, *z_strings]

    def _read(self, strings: Sequence[bytes], shape: tuple[int, int]) -> tuple[Latents, Latents]:
        z_hat = self.net.entropy_bottleneck.decompress([strings[1]], shape)
        scales, means = self._gaussian(self.net, z_hat)
        conditional: GaussianConditional = self.net.gaussian_conditional
        y_hat = conditional.decompress([strings[0]], conditional.build_indexes(scales), means=means)
        symbols = {"z": torch.round(z_hat - self._median()), "y": torch.round(y_hat - means)}
        return symbols, {"z": z_hat, "y": y_hat}

    def scale_margin(self, strings: Sequence[bytes], height: int, width: int) -> float | None:
        """See :meth:`Codec.scale_margin`."""
        self._check_strings(strings)
        shape = self._string_shape(height, width)
        with strings_read(self.name), torch.no_grad(), exact_arithmetic():
            scales, _ = self._decoder_gaussian(strings[1] + self._slack(strings[1], shape), shape)
        return margin(self.net.gaussian_conditional, scales)

    def widen(self, symbols: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :meth:`Codec.widen`."""
        with torch.no_grad(), exact_arithmetic():
            return widened(self, symbols)

    def _analyse_side(self, y: Tensor) -> Latents:
        return {"z": self.net.h_a(y.abs())}

    def _gaussian(self, net: CompressionModel, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        """σ and μ of every element of y, float32; each (B, M, h, w)."""
        scales = net.h_s(z_hat).float()
        return scales, torch.zeros_like(scales)

    def _decoder_gaussian(self, z_string: bytes, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        # σ must come from the very tensor that the decoder will have, read back from the string.
        return self._gaussian(self.net, self.net.entropy_bottleneck.decompress([z_string], shape))


class MeanScaleCodec(ScaleHyperpriorCodec):
    """``mbt2018-mean``: Gaussians whose means and scales the hyperprior predicts (Minnen et al. 2018)."""

    network = MeanScaleHyperprior

    def _analyse_side(self, y: Tensor) -> Latents:
        return {"z": self.net.h_a(y)}

    def _gaussian(self, net: CompressionModel, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        scales, means = net.h_s(z_hat).float().chunk(2, 1)
        return scales, means


def margin(conditional: GaussianConditional, scales: Tensor) -> float:
    """Smallest relative distance of any of ``scales`` to a boundary of the entropy coder's table of scales."""
    return float(distances(conditional, scales).min())
