"""A lapped codec behind lof's contract: z, and y in slices whose elements inform those coded after them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import ClassVar, Self, cast

import torch
from torch import Tensor

from lof.codecs.base import Codec, Coded, Decoded, Latents, Locality, Quantize
from lof.codecs.checks import strings_read
from lof.codecs.entropy.fixed import exact_sums
from lof.codecs.exact import exact_arithmetic, fingerprint
from lof.codecs.lapped.bits import bits_between, bits_of_whole, rises_of_whole
from lof.codecs.lapped.config import RATE_MAX, rate_of
from lof.codecs.lapped.decoder import SYMBOL_LIMIT, Decoder
from lof.codecs.lapped.network import LappedNetwork, arranged, parted
from lof.codecs.lapped.synthesis import BAND
from lof.codecs.lapped.transforms import BLOCK
from lof.codecs.lapped.weights import read_weights
from lof.codecs.registry import Request
from lof.codecs.weights import file_of
from lof.errors import StreamError
from lof.machine.devices import resolve_device, resolve_precision

CODED = ("z", "y")
"""Latent tensors of the first string."""


class LappedCodec(Codec):
    """A lapped codec at one quality.

    ``net`` encodes and decodes: on the CPU, in float32. ``fast`` is its copy for the search: on the search's device,
    in the search's precision but for the probability model, and without rounding of activations.
    """

    latents: ClassVar[tuple[str, ...]] = CODED
    synthesised: ClassVar[tuple[str, ...]] = ("y",)
    stride = BLOCK
    locality = Locality(grid=64, reach=128)
    portable, symbol_limit = True, SYMBOL_LIMIT
    network: ClassVar[type[LappedNetwork]] = LappedNetwork

    def __init__(
        self,
        net: LappedNetwork,
        *,
        name: str,
        quality: float,
        lmbda: float,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.name, self.quality, self.metric, self.lmbda = name, quality, "mse", lmbda
        self.device, self.precision = device, precision
        self.number = rate_of(quality)
        self.net = net.eval().requires_grad_(False)
        self.fast = copy.deepcopy(self.net).to(device)
        self.decoder, self.form = self._decoder(), self.net.form
        self.fingerprint = fingerprint(net)
        widest = 4 * (net.config.fine + net.config.coarse)
        others = (0, 1, 3)[len(net.transforms.views)]  # mirrored views are seen turned too
        self.bytes_per_pixel = widest * max(4, 3 + others) // 4
        self.decoding_bytes_per_pixel = 28 + 24 * others + widest // 32

    @classmethod
    def load(cls, request: Request) -> Self:
        """The codec that is asked for.

        Raises:
            WeightsError: the weights cannot be had, are not this codec's, or damaged.
        """
        path = file_of(request, Path(__file__).parent / "data")
        device = resolve_device(request.device)
        written = path.stat().st_mtime_ns if path.is_file() else 0
        codec = copy.copy(
            _of_weights(cls, path, written, device, resolve_precision(request.precision, device))
        )
        codec.name, codec.quality, codec.lmbda = request.spec.name, request.quality, request.point.lmbda
        codec.number = rate_of(request.quality)
        return cast(Self, codec)

    @classmethod
    def of(cls, net: LappedNetwork) -> type[Self]:
        """The class for a network."""
        return cls

    def analyse(self, images: Tensor) -> Latents:
        """See :meth:`Codec.analyse`; always float32 on the CPU."""
        rate = torch.tensor([self.number])
        with torch.no_grad(), exact_arithmetic():
            y = self.net.transforms.analysis(last(images.to("cpu")), self._t("cpu"))
            z = self.net.side(y, rate)
        return {"z": first(z).to(self.device), "y": first(y).to(self.device)}

    def code(
        self, latents: Mapping[str, Tensor], quantize: Quantize, *, exact: bool = False
    ) -> dict[str, Coded]:
        """See :meth:`Codec.code`. ``quantize`` is called part by part, on the elements coded together.

        With ``exact`` no gradient passes through predictions.
        """
        prior = self.decoder.prior if exact else self.fast.prior
        z, y = (last(latents[name].to("cpu" if exact else self.device)) for name in CODED)
        parts = parted(y, self.net.config)
        residuals: list[list[Tensor]] = [[] for _ in range(1 + len(parts))]
        values: list[list[Tensor]] = [[] for _ in residuals]
        places: list[list[Tensor]] = [[] for _ in residuals]

        def take(part: int, mean: Tensor | None, place: Tensor, rows: slice) -> Tensor:
            taken = sum(piece.shape[1] for piece in places[part])
            places[part].append(place)
            if mean is None:
                residuals[0].append(last(quantize("z", first(z))))
                return residuals[0][0]
            residual = (parts[part - 1][:, taken : taken + mean.shape[1]] - mean).transpose(1, 2)[..., None]
            residuals[part].append(quantize("y", residual)[..., 0].transpose(1, 2))
            values[part].append(residuals[part][-1] + mean)
            return values[part][-1]

        size = (y.shape[1], y.shape[2])
        with exact_sums(), torch.autocast(self.device.type, enabled=False):
            prior.walk(torch.tensor([self.number], device=z.device), size, take)
        coded_y = self._coded_y([found[1:] for found in (residuals, values, places)], size)
        z_residual = first(residuals[0][0])
        return {"z": self._coded(z_residual, z_residual, first(places[0][0])), "y": coded_y}

    def _coded_y(self, found: Sequence[list[list[Tensor]]], size: tuple[int, int]) -> Coded:
        """y of residuals, values and places of its parts, in pieces."""
        count = len(found[0][0][0])
        return self._coded(
            *(
                first(arranged([torch.cat(part, 1).expand(count, -1, -1) for part in parts], *size))
                for parts in found
            )
        )

    def _coded(self, residual: Tensor, value: Tensor, place: Tensor) -> Coded:
        form = self.form
        return Coded(
            residual,
            value,
            partial(bits_between, place=place, form=form),
            partial(bits_of_whole, place=place, form=form),
            partial(rises_of_whole, place=place, form=form),
        )

    def synthesise(self, values: Mapping[str, Tensor], *, exact: bool = False) -> Tensor:
        """See :meth:`Codec.synthesise`."""
        y = last(values["y"].to("cpu" if exact else self.device))
        if exact:
            return first(torch.cat([self.decoder.synthesise(one, self.number) for one in y.split(1)]))
        reduced = self.precision != torch.float32
        with torch.autocast(self.device.type, dtype=self.precision, enabled=reduced):
            return first(self.fast.reconstruct(y, self._t(self.device)).float())

    def symbols(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :meth:`Codec.symbols`; nothing is held but the symbols."""
        z, y = (latents[name].detach().cpu().permute(0, 2, 3, 1) for name in CODED)
        found = self.decoder.symbols(z, y, self.number)
        return dict(zip(CODED, (one.permute(0, 3, 1, 2) for one in found), strict=True))

    def compress(self, symbols: Mapping[str, Tensor]) -> list[bytes]:
        """See :meth:`Codec.compress`: one string, of z and then y."""
        z, y = (symbols[name].cpu().permute(0, 2, 3, 1) for name in CODED)
        return [self.decoder.encode(z, y, self.number)]

    def decompress(self, strings: Sequence[bytes], height: int, width: int) -> Decoded:
        """See :meth:`Codec.decompress`."""
        z, y, values, told, image = self._read(strings, height, width)
        assert y is not None
        return Decoded(
            image,
            {"z": z.permute(0, 3, 1, 2), "y": y.permute(0, 3, 1, 2)} | told,
            {"z": first(z).float(), "y": values.permute(0, 3, 1, 2)}
            | {name: each.float() for name, each in told.items()},
        )

    def decoded_image(self, strings: Sequence[bytes], height: int, width: int) -> Tensor:
        """See :meth:`Codec.decoded_image`; symbols of y are not held."""
        return self._read(strings, height, width, image_alone=True)[-1]

    def _read(
        self, strings: Sequence[bytes], height: int, width: int, *, image_alone: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor, dict[str, Tensor], Tensor]:
        """z, symbols and values of y, what else is told, and the image."""
        if not 0 < len(strings) <= len(self.string_names()):
            count = len(self.string_names())
            most = "one string" if count == 1 else f"at most {count} strings"
            raise StreamError(
                f"a {self.name} stream has {most}, not {len(strings)}; compress the image again"
            )
        rows, columns = (side // BLOCK for side in self.padded_size(height, width))
        with strings_read(self.name):
            z, y, values = self.decoder.decode(
                strings[0], self.number, rows, columns, values_alone=image_alone
            )
            told = self._told(strings[1:], rows, columns)
            image = self._shown(values, told)[0].permute(2, 0, 1).clamp_(0, 1)
        return z, y, values, told, self.crop(image, height, width)

    def _told(self, strings: Sequence[bytes], rows: int, columns: int) -> dict[str, Tensor]:
        """Symbols of other strings than the first, int64, by latent tensor."""
        return {}

    def _shown(self, values: Tensor, told: Mapping[str, Tensor]) -> Tensor:
        """The image of y, and of what else is told, (1, H, W, 3)."""
        return self.decoder.synthesise(values, self.number)

    def decoding_memory(self, height: int, width: int) -> int:
        """See :meth:`Codec.decoding_memory`: of large images all but latents and pixels is made band by band."""
        pixels = math.prod(self.padded_size(height, width))
        at_once = min(pixels, 2 * BAND * BLOCK**2)
        return at_once * self.decoding_bytes_per_pixel + (pixels - at_once) * 28

    def string_names(self) -> tuple[str, ...]:
        """See :meth:`Codec.string_names`."""
        return ("z and y",)

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Codec.state`."""
        return self.net.shippable_state()

    def _decoder(self) -> Decoder:
        return Decoder(self.net)

    def _t(self, device: torch.device | str) -> Tensor:
        return torch.full((1, 1, 1, 1), self.number / RATE_MAX, device=device)


@lru_cache(maxsize=2)
def _of_weights(
    kind: type[LappedCodec], path: Path, written: int, device: torch.device, precision: torch.dtype
) -> LappedCodec:
    """The codec of a file at any quality: one network serves them all, and a search for a target tries several."""
    net = read_weights(path, kind.network)
    return kind.of(net)(net, name="", quality=1.0, lmbda=1.0, device=device, precision=precision)


def last(x: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h, w, C)."""
    return x.permute(0, 2, 3, 1).contiguous()


def first(x: Tensor) -> Tensor:
    """Inverse of :func:`last`."""
    return x.permute(0, 3, 1, 2).contiguous()
