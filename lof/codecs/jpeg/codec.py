"""JPEG behind lof's contract: quantisation tables, levels of three planes, and the sampling of colour."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lof.codecs.base import Begun, Codec, Coded, Decoded, Latents, Quantize, tensor_of
from lof.codecs.jpeg import files
from lof.codecs.jpeg.files import Sampling
from lof.codecs.jpeg.latents import PLANES, coefficients_in, latents_of, levels_of, samplings_of, used
from lof.codecs.jpeg.planes import BLOCK, doubled, plane_of, rgb_of
from lof.codecs.jpeg.repack import repacked
from lof.codecs.jpeg.search import LARGEST_LEVEL, LARGEST_STEP, refine
from lof.codecs.registry import Request
from lof.errors import ImageError, StreamError
from lof.machine.devices import resolve_device
from lof.pictures.picture import Picture
from lof.profiles import OwnStage, Profile

MIDDLE: Final = 1024
"""A step of this size has the symbol 0, so that every symbol stands for a step of 1 or more."""
_MS_SSIM_MORE: Final = 2.0
"""λ for MS-SSIM over what suits learned codecs; chosen on CID22's validation set."""
_NUDGE: Final = 0.49
_PACKED: Final = 8
"""Files that are kept in memory: packing into scans takes longer than all else."""
_EVALUATIONS: Final = 10
"""Evaluations of a mean-field stage for which one round of the codec's own search stands."""


class JpegCodec(Codec):
    """JPEG at one of libjpeg's qualities: it decides the plain encoding, and the search's λ.

    The latents are ``tables``, (B, 2, 8, 8), the steps of luma and chroma; the levels ``y``, ``cb`` and ``cr``,
    (B, 64, h, w), by frequency and block; and ``halved``, (B, 1, 1, 1), one of the numbers of :class:`Sampling`. Levels
    of colour planes with fewer blocks than luma stand in the first ones, with 0 in the others.

    Attributes:
        repaired: whether a decoder repairs the picture, so that errors must be tried to know what they cost.
        coarser: how much larger the steps of a search are than those that suit λ where nothing repairs the picture.
    """

    latents: ClassVar[tuple[str, ...]] = ("tables", *PLANES, "halved")
    synthesised: ClassVar[tuple[str, ...]] = ("tables", *PLANES)
    stride = BLOCK
    portable = True
    exact_bits = False
    symbol_limit = LARGEST_LEVEL
    bytes_per_pixel, decoding_bytes_per_pixel = 700, 90
    repaired, coarser = False, 1.0

    def __init__(self, request: Request) -> None:
        self.name, self.metric = request.spec.name, request.metric
        self.quality, self.lmbda = request.quality, request.point.lmbda
        self.device = resolve_device(request.device)
        self.size: tuple[int, int] | None = None
        self._packed: dict[bytes, bytes] = {}

    def for_size(self, height: int, width: int) -> Self:
        """See :meth:`Codec.for_size`.

        Raises:
            ImageError: no JPEG is of that size.
        """
        if max(height, width) > files.MAX_SIDE:
            raise ImageError(
                f"has {width}×{height} pixels, and a JPEG at most {files.MAX_SIDE} on a side; cut it into tiles"
            )
        sized = copy.copy(self)
        sized.size, sized._packed = (height, width), {}
        return sized

    def analyse(self, images: Tensor) -> Latents:
        """See :meth:`Codec.analyse`; libjpeg-turbo's own levels, and beside them what was rounded away."""
        found = [self._plain(one) for one in images]
        return {name: torch.cat([one[name] for one in found]) for name in found[0]}

    def begin(self, picture: Picture) -> Begun:
        """See :meth:`Codec.begin`: grey pictures have one plane, and the search of a JPEG starts from what it says."""
        # A profile for RGB does not fit a file with one plane.
        grey = picture.icc is None and bool((picture.pixels == picture.pixels[..., :1]).all())
        guess = self._plain(self.pad(tensor_of(picture))[0], grey)
        if picture.source is None:
            return Begun(guess, guess)
        try:
            found = files.read(picture.source)
            if not 1 <= found.tables.min() <= found.tables.max() <= LARGEST_STEP:
                raise StreamError(f"has quantisation steps beyond 1 to {LARGEST_STEP}")
        except StreamError as error:
            why, _, _ = str(error).partition(";")
            return Begun(
                guess, guess, f"original: what this JPEG decodes to; coded anew from its pixels, as it {why}"
            )
        start = {name: tensor.to(self.device) for name, tensor in latents_of(found).items()}
        if grey:
            start |= {name: guess[name] for name in ("cb", "cr", "halved")}
        return Begun(guess, start, "original: what this JPEG decodes to; searched from its own coefficients")

    def code(
        self, latents: Mapping[str, Tensor], quantize: Quantize, *, exact: bool = False
    ) -> dict[str, Coded]:
        """See :meth:`Codec.code`. Bits are a stand-in: JPEG prices runs, not elements."""
        halved = quantize("halved", latents["halved"])
        steps = quantize("tables", latents["tables"] - MIDDLE)
        grey = used(halved, latents["cb"])[:, :, :1, :1] == 0  # such a file has one table
        steps = torch.where(grey, steps[:, :1], steps)
        coded = {
            "tables": Coded(steps, steps + MIDDLE, _next_to_nothing),
            "halved": Coded(halved, halved, _next_to_nothing),
        }
        for name in PLANES:
            levels = quantize(name, latents[name])
            if name != "y":
                levels = levels * used(halved, levels)
            coded[name] = Coded(levels, levels, _bits_of)
        return {name: coded[name] for name in JpegCodec.latents}

    def synthesise(self, values: Mapping[str, Tensor], *, exact: bool = False) -> Tensor:
        """See :meth:`Codec.synthesise`."""
        if exact:
            return torch.cat(
                [self._decoded({n: v[i : i + 1] for n, v in values.items()}) for i in range(len(values["y"]))]
            )
        return rgb_of(*self.samples(values))

    def samples(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Luma, (B, 1, H, W), and colour at full size, (B, 2, H, W), around 0, not clamped."""
        steps = values["tables"].flatten(2)[..., None, None]
        luma = plane_of(values["y"] * steps[:, 0])
        chroma = torch.cat([plane_of(values[name] * steps[:, 1]) for name in PLANES[1:]], 1)
        kinds = zip(chroma.split(1), samplings_of(values["halved"]), strict=True)
        return luma, torch.cat([self._doubled(one, kind) for one, kind in kinds])

    def compress(self, symbols: Mapping[str, Tensor]) -> list[bytes]:
        """See :meth:`Codec.compress`: one string, a whole JPEG file without metadata."""
        rows, columns = symbols["y"].shape[-2:]
        tables = symbols["tables"].cpu() + MIDDLE
        found = coefficients_in(
            dict(symbols) | {"tables": tables}, *(self.size or (BLOCK * rows, BLOCK * columns))
        )
        return [self._written(found)]

    def decompress(self, strings: Sequence[bytes], height: int, width: int) -> Decoded:
        """See :meth:`Codec.decompress`; the pixels are those of Pillow's libjpeg-turbo."""
        if len(strings) != 1:
            raise StreamError(f"a jpeg stream has one string, not {len(strings)}; encode the picture again")
        allowed = [(height, width)] + ([self.padded_size(height, width)] if self.size is None else [])

        def fits(rows: int, columns: int) -> None:
            if (rows, columns) not in allowed:
                raise StreamError(
                    f"its JPEG has {columns}×{rows} pixels, not {width}×{height}; encode the picture again"
                )

        pixels = files.decoded(strings[0], fits=fits)[:height, :width]
        found = files.read(strings[0])
        values = latents_of(found)
        symbols = {name: tensor.long() for name, tensor in values.items()}
        symbols["tables"] = symbols["tables"] - MIDDLE
        return Decoded(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, symbols, values)

    def string_names(self) -> tuple[str, ...]:
        """See :meth:`Codec.string_names`."""
        return ("JPEG",)

    def lambda_for(self, metric: str) -> float:
        """See :meth:`Codec.lambda_for`; so that a searched file has about the MS-SSIM of libjpeg's at that quality."""
        return super().lambda_for(metric) * (_MS_SSIM_MORE if metric == "ms-ssim" else 1)

    def plan(self, profile: Profile) -> Profile:
        """See :meth:`Codec.plan`: the codec's own search in the place of mean-field stages, which know no runs."""
        stages = tuple(
            OwnStage(kind="own", evaluations=max(2, math.ceil(stage.evaluations / _EVALUATIONS)))
            if stage.kind == "mean-field"
            else stage
            for stage in profile.stage
        )
        return profile.model_copy(update={"stage": stages})

    def repack(self, data: bytes) -> bytes:
        """See :meth:`Codec.repack` and :mod:`lof.codecs.jpeg.repack`."""
        return repacked(data)

    def refine(self, search: Any, evaluations: int) -> None:
        """See :meth:`Codec.refine` and :mod:`lof.codecs.jpeg.search`."""
        refine(search, evaluations)

    def margins(self, height: int, width: int) -> tuple[int, int, int, int]:
        """See :meth:`Codec.margins`: none above and on the left."""
        padded_height, padded_width = self.padded_size(height, width)
        return 0, padded_height - height, 0, padded_width - width

    def _plain(self, image: Tensor, grey: bool = False) -> Latents:
        """Latents of one image, (3, H, W) with H and W padded."""
        height, width = self.size or image.shape[1:]
        pixels = image[:, :height, :width].mul(255).round().byte().permute(1, 2, 0)
        pixels = pixels[..., 0] if grey else pixels
        found = files.read(files.plain_file(np.ascontiguousarray(pixels.cpu().numpy()), int(self.quality)))
        latents = latents_of(found)
        levels = levels_of(image[None].cpu(), latents["tables"], found.sampling)
        for name in PLANES:
            latents[name] += (levels[name] - latents[name]).clamp(-_NUDGE, _NUDGE)
        return {name: tensor.to(self.device) for name, tensor in latents.items()}

    def _written(self, found: files.Coefficients) -> bytes:
        """The file, which was written already where a search or a report asks for it again."""
        sides = repr((found.height, found.width, found.sampling)).encode()
        parts = [sides, *(array.tobytes() for array in (found.tables, *found.planes))]
        key = hashlib.sha256(b"".join(parts)).digest()
        if key not in self._packed:
            if len(self._packed) >= _PACKED:
                del self._packed[next(iter(self._packed))]
            self._packed[key] = files.written(found)
        return self._packed[key]

    def _decoded(self, values: Latents) -> Tensor:
        """What libjpeg-turbo decodes of one image's whole values, (1, 3, H, W) padded by repeating its edge."""
        height, width = BLOCK * values["y"].shape[2], BLOCK * values["y"].shape[3]
        rounded = {name: torch.round(value) for name, value in values.items()}
        pixels = files.decoded(self._written(coefficients_in(rounded, *(self.size or (height, width)))))
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        spare = (0, width - image.shape[3], 0, height - image.shape[2])
        return F.pad(image, spare, mode="replicate").to(self.device)

    def _doubled(self, chroma: Tensor, sampling: Sampling) -> Tensor:
        """The colour planes of one image at full size from their first blocks; edges of images are repeated."""
        if sampling in (Sampling.FULL, Sampling.GREY):
            return chroma
        down, across = sampling.divisors
        rows, columns = chroma.shape[-2:]
        height, width = self.size or (rows, columns)
        small = chroma[..., : -(-height // down), : -(-width // across)]
        spare = (0, -(-columns // across) - small.shape[3], 0, -(-rows // down) - small.shape[2])
        padded = F.pad(small, spare, mode="replicate") if any(spare) else small
        return doubled(padded, sampling.divisors)[..., :rows, :columns]


def _next_to_nothing(residual: Tensor) -> Tensor:
    return 1e-4 * (residual + MIDDLE).abs()


def _bits_of(levels: Tensor) -> Tensor:
    """About what a level costs; that of the lowest frequency is coded as the difference to its left neighbour."""
    left = F.pad(levels[:, :1, :, :-1], (1, 0))
    coded = torch.cat([levels[:, :1] - left, levels[:, 1:]], 1)
    return 3.2 * torch.log2(1 + 2 * coded.abs())
