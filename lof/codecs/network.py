"""What codecs share that are a trained network: two copies of it, one to decode with and one to search with."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar, Self, cast

import torch
from compressai.models import CompressionModel
from torch import Tensor, nn

from lof.codecs.base import Codec, Decoded, Latents
from lof.codecs.checks import strings_read
from lof.codecs.entropy.rans import is_rans, slack
from lof.codecs.exact import exact_arithmetic, fingerprint
from lof.codecs.network_weights import build_network
from lof.codecs.registry import Request
from lof.codecs.weights import Place, load_weights
from lof.errors import StreamError
from lof.machine.devices import resolve_device, resolve_precision


class NetworkCodec(Codec):
    """A codec around a network with CompressAI's interface: ``g_a``, ``g_s``, ``update``, ``from_state_dict``.

    ``net`` is the standard decoder: CPU, float32, default memory format, never touched. ``fast`` is its
    copy for the search: on the search's device, frozen, channels-last, under autocast.
    """

    network: ClassVar[type[CompressionModel]]
    synthesised = ("y",)

    def __init__(
        self,
        net: CompressionModel,
        *,
        name: str,
        quality: float,
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
        self.decoding_bytes_per_pixel = int(net.N) * 4

    @classmethod
    def load(cls, request: Request, *, zoo: bool, transforms: str | None = None) -> Self:
        """The codec that is asked for, from wherever its weights are.

        Args:
            zoo: CompressAI's weights, instead of lof's own.
            transforms: codec whose transforms the weights do not repeat.

        Raises:
            WeightsError: the weights cannot be had, are not this codec's, or damaged.
        """
        spec = request.spec
        place = Place(spec.name, request.metric, request.quality, zoo=zoo, transforms=transforms)
        state, lmbda = load_weights(place, request.weights, download=request.download)
        origin = f"{request.weights or spec.source} weights of {spec.name} quality {request.quality:.10g}"
        device = resolve_device(request.device)
        return cls(
            build_network(cls.network, cls.sizes_in(state), state, origin),
            name=spec.name,
            quality=request.quality,
            metric=request.metric,
            lmbda=request.point.lmbda if lmbda is None else lmbda,
            device=device,
            precision=resolve_precision(request.precision, device),
        )

    @classmethod
    def sizes_in(cls, state: Mapping[str, Tensor]) -> tuple[int, ...]:
        """Arguments of the network's constructor, read from its weights; empty where they are not its own."""
        if "g_a.0.weight" in state and "g_a.6.weight" in state:
            return state["g_a.0.weight"].shape[0], state["g_a.6.weight"].shape[0]
        return ()

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

    def decompress(self, strings: Sequence[bytes], height: int, width: int) -> Decoded:
        """See :meth:`Codec.decompress`."""
        self._check_strings(strings)
        shape = self._string_shape(height, width)
        with strings_read(self.name), torch.no_grad(), exact_arithmetic():
            symbols, values = self._read([s + self._slack(s, shape) for s in strings], shape)
            image = self._decoded(values["y"])[0].clamp(0, 1)
            if bool(image.isnan().any()):
                raise ValueError("their symbols are far beyond any image's")
        whole = {name: tensor.to(torch.int64) for name, tensor in symbols.items()}
        return Decoded(self.crop(image, height, width).clone(), whole, values)

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Codec.state`."""
        return dict(self.net.state_dict())

    def _check_strings(self, strings: Sequence[bytes]) -> None:
        if len(strings) != len(self.latents) or not all(map(is_rans, strings)):
            raise StreamError(f"the strings are not those of a {self.name} stream; compress the image again")

    def string_names(self) -> tuple[str, ...]:
        """See :meth:`Codec.string_names`: CompressAI's networks return the string of what is decoded first last."""
        return tuple(reversed(self.latents))

    @abstractmethod
    def _read(self, strings: Sequence[bytes], shape: tuple[int, int]) -> tuple[Latents, Latents]:
        """Symbols and values that the strings hold, (1, C, h, w) by latent tensor."""

    def _decoded(self, y: Tensor) -> Tensor:
        """The image of decoded latents, as the standard decoder makes it."""
        return cast(Tensor, self.net.g_s(y))

    def _analyse_side(self, y: Tensor) -> Latents:
        return {}

    def _slack(self, string: bytes, shape: tuple[int, int]) -> bytes:
        return slack(string, shape[0] * shape[1] * self._places_of_y**2 * self.net.M)

    @cached_property
    def _places_of_y(self) -> int:
        return places(self.net.g_a, self.stride)

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


def places(analysis: nn.Module, side: int) -> int:
    """Places, a side, that a network's ``g_a`` gives for a picture of so many pixels a side."""
    device = next(analysis.parameters()).device
    with torch.no_grad(), exact_arithmetic():
        return int(analysis(torch.zeros(1, 3, side, side, device=device)).shape[-1])
