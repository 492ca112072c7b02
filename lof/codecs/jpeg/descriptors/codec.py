"""JPEG with descriptors behind lof's contract: what ``jpeg`` writes, and beside it descriptors for the filter."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from lof.codecs.base import Begun, Coded, Decoded, Latents, Quantize
from lof.codecs.descriptors.classes import CLASSES, NAME, OFF, one_hot
from lof.codecs.descriptors.strings import Coder
from lof.codecs.exact import exact_arithmetic, fingerprint
from lof.codecs.jpeg import files
from lof.codecs.jpeg.codec import MIDDLE, JpegCodec
from lof.codecs.jpeg.descriptors.config import CELL
from lof.codecs.jpeg.descriptors.network import DescriptorNetwork, level_of
from lof.codecs.jpeg.descriptors.pictures import picture_of
from lof.codecs.jpeg.descriptors.search import refine_both
from lof.codecs.jpeg.latents import samplings_of
from lof.codecs.jpeg.planes import coefficients_of
from lof.codecs.registry import Request
from lof.codecs.weights import file_of, read_network
from lof.errors import StreamError
from lof.machine.devices import resolve_precision
from lof.pictures.picture import Picture
from lof.profiles import OwnStage, Profile


class DescriptorCodec(JpegCodec):
    """``jpeg`` with one latent tensor more, ``descriptors``, (B, 1, ⌈h/2⌉, ⌈w/2⌉): for 2×2 blocks of luma, 0 to 15.

    The first string is the plain JPEG; the second holds the descriptors, nothing where all of them are 0. Pixels are
    the filter's, on any CPU up to how it rounds; symbols are the same everywhere.
    """

    latents = (*JpegCodec.latents, NAME)
    synthesised = (*JpegCodec.synthesised, NAME)
    repaired, coarser = True, 1.35  # chosen on CID22's validation set

    def __init__(self, request: Request, net: DescriptorNetwork) -> None:
        super().__init__(request)
        self.net = net.eval().requires_grad_(False)
        self.bytes_per_pixel = net.filter.bytes_per_pixel
        self.decoding_bytes_per_pixel = net.filter.decoding_bytes_per_pixel
        self.fast = copy.deepcopy(self.net).to(self.device)
        self.fast.filter.precision = resolve_precision(request.precision, self.device)
        self.coder = Coder(self.net.context)
        self.fingerprint = fingerprint(net)

    @classmethod
    def load(cls, request: Request) -> Self:
        """The codec that is asked for.

        Raises:
            WeightsError: the weights cannot be had, are not this codec's, or damaged.
        """
        path = file_of(request, Path(__file__).parent / "data")
        return cls(request, _network(path, path.stat().st_mtime_ns if path.is_file() else 0))

    def begin(self, picture: Picture) -> Begun:
        """See :meth:`Codec.begin`."""
        begun = super().begin(picture)
        return Begun(begun.plain, begun.start | {NAME: begun.plain[NAME]}, begun.note)

    def rounded(self, name: str, residual: Tensor) -> Tensor:
        """See :meth:`Codec.rounded`."""
        whole = super().rounded(name, residual)
        return whole.clamp(0, CLASSES - 1) if name == NAME else whole

    def code(
        self, latents: Mapping[str, Tensor], quantize: Quantize, *, exact: bool = False
    ) -> dict[str, Coded]:
        """See :meth:`JpegCodec.code`."""
        chosen = quantize(NAME, latents[NAME])
        return super().code(latents, quantize, exact=exact) | {NAME: Coded(chosen, chosen, _bits_of)}

    def synthesise(self, values: Mapping[str, Tensor], *, exact: bool = False) -> Tensor:
        """See :meth:`Codec.synthesise`."""
        if not exact:
            return self._shown(values, self.fast)
        images = []
        with exact_arithmetic():
            for index in range(len(values["y"])):
                one = {name: value[index : index + 1].cpu() for name, value in values.items()}
                one |= {name: torch.round(one[name]) for name in self.latents}
                images.append(self._shown(one, self.net))
        return torch.cat(images)

    def _shown(self, values: Mapping[str, Tensor], net: DescriptorNetwork) -> Tensor:
        coefficients, chosen = self.coefficients(values), values[NAME]
        if not chosen.requires_grad and bool((chosen == OFF).all()):
            return picture_of(coefficients)
        added = net.filter(coefficients, *self.told(values), one_hot(chosen))
        return picture_of(coefficients + added)

    def coefficients(self, values: Mapping[str, Tensor]) -> Tensor:
        """Of Y, Cb and Cr at full size, (B, h, w, 192): what the filter takes."""
        luma, chroma = self.samples(values)
        planes = [luma, chroma[:, :1], chroma[:, 1:]]
        return torch.cat([coefficients_of(plane) for plane in planes], 1).permute(0, 2, 3, 1).contiguous()

    def told(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What else it takes: tables, (B, 2, 64), and by what colour is divided, (B, 2)."""
        divisors = [kind.divisors for kind in samplings_of(values["halved"])]
        return values["tables"].flatten(2), torch.tensor(
            divisors, dtype=torch.float32, device=values["y"].device
        )

    def compress(self, symbols: Mapping[str, Tensor]) -> list[bytes]:
        """See :meth:`Codec.compress`: a whole JPEG file without metadata, and the descriptors."""
        chosen = symbols[NAME][0, 0].cpu().long().numpy()
        return [*super().compress(symbols), self.coder.encode(chosen, self._level(symbols))]

    def decompress(self, strings: Sequence[bytes], height: int, width: int) -> Decoded:
        """See :meth:`Codec.decompress`."""
        if len(strings) != 2:
            raise StreamError(
                f"a {self.name} stream has two strings, not {len(strings)}; encode the picture again"
            )
        plain = super().decompress(strings[:1], height, width)
        rows, columns = (-(-side // CELL) for side in plain.symbols["y"].shape[2:])
        found_there = self.coder.decode(strings[1], rows, columns, self._level(plain.symbols))
        chosen = torch.from_numpy(found_there)[None, None].clone()
        values = plain.values | {NAME: chosen.float()}
        found = files.read(strings[0])
        with torch.no_grad():
            image = self.for_size(found.height, found.width).synthesise(values, exact=True)[
                0, :, :height, :width
            ]
        return Decoded(image.clamp(0, 1), plain.symbols | {NAME: chosen}, values)

    def plan(self, profile: Profile) -> Profile:
        """See :meth:`Codec.plan`: the codec's own search alone, for others take descriptors for sizes."""
        own = [stage for stage in super().plan(profile).stage if isinstance(stage, OwnStage)]
        return profile.model_copy(update={"stage": tuple(own) or (OwnStage(kind="own", evaluations=2),)})

    def refine(self, search: Any, evaluations: int) -> None:
        """See :meth:`Codec.refine` and :mod:`lof.codecs.jpeg.descriptors.search`."""
        refine_both(search, evaluations)

    def string_names(self) -> tuple[str, ...]:
        """See :meth:`Codec.string_names`."""
        return *super().string_names(), NAME

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Codec.state`."""
        return self.net.shippable_state()

    def _level(self, symbols: Mapping[str, Tensor]) -> float:
        return float(level_of(symbols["tables"].flatten(2) + MIDDLE))

    def _plain(self, image: Tensor, grey: bool = False) -> Latents:
        """libjpeg's levels; all is filtered alike, or nothing where that would be no improvement."""
        latents = super()._plain(image, grey)
        _, _, rows, columns = latents["y"].shape
        chosen = torch.zeros(1, 1, -(-rows // CELL), -(-columns // CELL), device=self.device)
        latents |= {NAME: chosen}
        with torch.no_grad(), exact_arithmetic():  # it decides what is written
            values = {name: one.value.cpu() for name, one in self.code(latents, self.rounded).items()}
            coefficients = self.coefficients(values)
            added = self.net.filter(coefficients, *self.told(values))
            height, width = self.size or image.shape[1:]
            shown, filtered = (
                (picture_of(each)[0].clamp(0, 1) - image.cpu())[:, :height, :width].square().mean()
                for each in (coefficients, coefficients + added)
            )
        return latents | {NAME: torch.full_like(chosen, OFF)} if filtered > shown else latents


def _bits_of(chosen: Tensor) -> Tensor:
    return 0.5 * (chosen + 1).abs()


@lru_cache(maxsize=2)
def _network(path: Path, written: int) -> DescriptorNetwork:
    return read_network(path, "a filter with descriptors", DescriptorNetwork.from_state)
