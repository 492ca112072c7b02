"""Codecs with a factorised prior or a hyperprior, as CompressAI implements them.

``bmshj2018-factorized`` and ``bmshj2018-hyperprior``: Ballé et al., ICLR 2018. ``mbt2018-mean``: Minnen et al.,
NeurIPS 2018, without the autoregressive context. Entropy models, tables and decoders are CompressAI's own.
"""

from __future__ import annotations

import copy
import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar, cast

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.models import CompressionModel, FactorizedPrior, MeanScaleHyperprior, ScaleHyperprior
from torch import Tensor, nn

from lof.codecs.base import Codec, Coded, Latents, Quantize
from lof.codecs.entropy.rans import is_rans, slack
from lof.codecs.hyperprior.widen import distances, widened
from lof.errors import StreamError


class CompressAICodec(Codec):
    """What the three families share: the network twice, and the factorised entropy bottleneck.

    ``net`` is the standard decoder: CPU, float32, default memory format, never touched. ``fast`` is its
    copy for the search: on the search's device, frozen, channels-last, under autocast.
    """

    network: ClassVar[type[CompressionModel]]

    def __init__(
        self,
        net: CompressionModel,
        *,
        name: str,
        quality: int,
        metric: str,
        lmbda: float,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.name, self.quality, self.metric, self.lmbda = name, quality, metric, lmbda
        self.device, self.precision = device, precision
        self.net = net.eval().requires_grad_(False)
        self.fast = copy.deepcopy(self.net).to(device=device, memory_format=torch.channels_last)
        for layer in self.fast.modules():  # or autocast converts the weights anew in every step
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.to(precision)
        self.fingerprint = fingerprint(net)
        # Half of the activations are N channels at a quarter of the pixels, several times over.
        self.bytes_per_pixel = int(net.N) * (8 if precision == torch.bfloat16 else 14)

    def analyse(self, images: Tensor) -> Latents:
        """See :meth:`Codec.analyse`; always float32 on the CPU, as a standard encoder does."""
        with torch.no_grad(), exact_arithmetic():
            y = self.net.g_a(images.to("cpu", memory_format=torch.contiguous_format))
            found = {"y": y, **self._analyse_side(y)}
        return {name: tensor.to(self.device) for name, tensor in found.items()}

    def synthesise(self, values: Mapping[str, Tensor], *, exact: bool = False) -> Tensor:
        """See :meth:`Codec.synthesise`."""
        net, y = self._network(exact, values["y"])
        with self._arithmetic(exact):
            return cast(Tensor, net.g_s(y)).float()

    def decompress(self, strings: Sequence[bytes], height: int, width: int) -> Tensor:
        """See :meth:`Codec.decompress`."""
        self._check_strings(strings)
        shape = self._string_shape(height, width)
        with self._reading(), torch.no_grad(), exact_arithmetic():
            image = self.net.decompress([[s + self._slack(s, shape)] for s in strings], shape)["x_hat"][0]
            if bool(image.isnan().any()):
                raise ValueError("their symbols are far beyond any image's")
        return self.crop(image, height, width).clone()

    def read_latents(self, strings: Sequence[bytes], height: int, width: int) -> Latents:
        """See :meth:`Codec.read_latents`."""
        self._check_strings(strings)
        shape = self._string_shape(height, width)
        with self._reading(), torch.no_grad(), exact_arithmetic():
            return self._read([s + self._slack(s, shape) for s in strings], shape)

    @abstractmethod
    def _read(self, strings: Sequence[bytes], shape: tuple[int, int]) -> Latents:
        """The values that the strings hold, (1, C, h, w) by latent tensor."""

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Codec.state`."""
        return dict(self.net.state_dict())

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, IndexError, OverflowError, MemoryError) as error:
            raise StreamError(f"the {self.name} decoder cannot read the strings ({error})") from error

    def _slack(self, string: bytes, shape: tuple[int, int]) -> bytes:
        return slack(string, shape[0] * shape[1] * (self.stride // 16) ** 2 * self.net.M)

    def _check_strings(self, strings: Sequence[bytes]) -> None:
        if len(strings) != len(self.latents) or not all(map(is_rans, strings)):
            raise StreamError(f"the strings are not those of a {self.name} stream; compress the image again")

    def _analyse_side(self, y: Tensor) -> Latents:
        return {}

    def _string_shape(self, height: int, width: int) -> tuple[int, int]:
        padded_height, padded_width = self.padded_size(height, width)
        return padded_height // self.stride, padded_width // self.stride

    def _network(self, exact: bool, tensor: Tensor) -> tuple[CompressionModel, Tensor]:
        if exact:
            return self.net, tensor.to("cpu", memory_format=torch.contiguous_format)
        return self.fast, tensor.to(memory_format=torch.channels_last)

    @contextmanager
    def _arithmetic(self, exact: bool) -> Iterator[None]:
        if exact:
            with exact_arithmetic():
                yield
        else:
            reduced = self.precision != torch.float32
            with torch.autocast(self.device.type, dtype=self.precision, enabled=reduced):
                yield

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


class FactorizedCodec(CompressAICodec):
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
        bottleneck = self.net.entropy_bottleneck
        median = bottleneck._get_medians().reshape(1, -1, 1, 1)
        with torch.no_grad():
            return cast(list[bytes], bottleneck.compress(symbols["y"].to("cpu", torch.float32) + median))

    def _read(self, strings: Sequence[bytes], shape: tuple[int, int]) -> Latents:
        return {"y": self.net.entropy_bottleneck.decompress(strings, shape)}

    # The factorised family pads to 64 as examples/codec.py does for every model, so that its layout holds.
    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """See :meth:`Codec.padded_size`: multiples of 64, though the network needs only 16."""
        return -(-height // 64) * 64, -(-width // 64) * 64


class ScaleHyperpriorCodec(CompressAICodec):
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
        median = bottleneck._get_medians().reshape(1, -1, 1, 1)
        with torch.no_grad(), exact_arithmetic():
            z_strings = bottleneck.compress(symbols["z"].to("cpu", torch.float32) + median)
            scales, means = self._decoder_gaussian(z_strings[0], symbols["z"].shape[-2:])
            y = symbols["y"].to("cpu", torch.float32) + means
            y_strings = conditional.compress(y, conditional.build_indexes(scales), means=means)
        return [*y_strings, *z_strings]

    def _read(self, strings: Sequence[bytes], shape: tuple[int, int]) -> Latents:
        z_hat = self.net.entropy_bottleneck.decompress([strings[1]], shape)
        scales, means = self._gaussian(self.net, z_hat)
        conditional: GaussianConditional = self.net.gaussian_conditional
        y_hat = conditional.decompress([strings[0]], conditional.build_indexes(scales), means=means)
        return {"z": z_hat, "y": y_hat}

    def scale_margin(self, strings: Sequence[bytes], height: int, width: int) -> float | None:
        """See :meth:`Codec.scale_margin`."""
        self._check_strings(strings)
        shape = self._string_shape(height, width)
        with self._reading(), torch.no_grad(), exact_arithmetic():
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


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Float32 without autocast, as the standard decoder computes."""
    with torch.autocast("cpu", enabled=False):
        yield


def fingerprint(net: torch.nn.Module) -> bytes:
    """SHA-256 over the names, dtypes, shapes and values of a network's weights and tables; 32 bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()
