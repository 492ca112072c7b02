"""The codec contract: all that the search, the API and the reports know about a codec."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from lof.codecs.checks import strings_of
from lof.errors import UsageError
from lof.pictures.picture import Picture
from lof.profiles import Profile

_MS_SSIM_LAMBDA = 1280.0
"""λ for ``1 - MS-SSIM`` over λ for the squared error at one quality: CompressAI's models have 1222 to 1333."""

Latents = dict[str, Tensor]
"""Latent tensors by name; each (B, C, h, w)."""


class Quantize(Protocol):
    """A stand-in for rounding: hard, or one of the relaxations of :mod:`lof.search.relaxations`."""

    def __call__(self, name: str, residual: Tensor) -> Tensor:
        """Quantise ``residual`` (B, C, h, w), float32, element by element; same shape.

        It is all of the latent tensor ``name``, or a part of it.
        """
        ...


@dataclass(frozen=True)
class Coded:
    """One latent tensor as its entropy model sees it.

    Attributes:
        residual: (B, C, h, w) float32, what the entropy coder codes once rounded: ``y - μ`` or ``z - median``.
        value: (B, C, h, w) float32, ``residual`` plus its centre, in the same unit, which is the quantiser's step: what
            the synthesis receives, and multiplies by a step that is not 1.
        bits_of: (B, C, h, w) float32, cost in bits of each element of any residual of this shape, under this
            walk's entropy parameters; differentiable by the residual and through the parameters.
        whole: the same for residuals that are whole, where that can be had faster, as from a table; differentiable
            through the parameters.
        rises: :meth:`rises_of_whole`, where that can be had faster.
    """

    residual: Tensor
    value: Tensor
    bits_of: Callable[[Tensor], Tensor]
    whole: Callable[[Tensor], Tensor] | None = None
    rises: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def bits_of_whole(self, residual: Tensor) -> Tensor:
        """``whole``, or else ``bits_of``."""
        return (self.whole or self.bits_of)(residual)

    @torch.no_grad()
    def rises_of_whole(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """How bits rise to residuals that are whole from those below, and from them to those above."""
        if self.rises is not None:
            return self.rises(residual)
        below, here, above = (self.bits_of_whole(residual + step) for step in (-1, 0, 1))
        return here - below, above - here

    @cached_property
    def bits(self) -> Tensor:
        """``bits_of(residual)``, computed when first asked for."""
        return self.bits_of(self.residual)


@dataclass(frozen=True)
class Decoded:
    """What one reading of a stream's strings gives.

    Attributes:
        image: (3, height, width) float32 in [0, 1].
        symbols: (1, C, h, w) int64 by latent tensor: the integers that :meth:`Codec.compress` was given. They alone
            tell whether strings were read right: values and pixels also depend on how a CPU rounds.
        values: (1, C, h, w) float32 by latent tensor, as the synthesis received them (``Coded.value``): where another
            search can start.
    """

    image: Tensor
    symbols: dict[str, Tensor]
    values: Latents


@dataclass(frozen=True)
class Begun:
    """What one picture's encodings begin with.

    Attributes:
        plain: latents of the plain encoding, unrounded.
        start: latents that the search starts from.
        note: what the report says about that, if anything.
    """

    plain: Latents
    start: Latents
    note: str = ""


def tensor_of(picture: Picture) -> Tensor:
    """(1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(picture.pixels).permute(2, 0, 1)[None].float() / 255


@dataclass(frozen=True)
class Locality:
    """What makes it possible to search a part of an image without the rest; lengths in pixels.

    Attributes:
        grid: a multiple of what one place of any latent tensor stands for. A part that begins at a multiple of it, cut
            out of the latents of a whole image, is coded in the same order as there.
        reach: what lies farther away hardly matters.
    """

    grid: int
    reach: int


class Codec(ABC):
    """A codec at one rate point, behind five verbs.

    Order of calls: :meth:`analyse` once per image; :meth:`code` and :meth:`synthesise` as often as the
    search likes; :meth:`compress` once the integers are decided; :meth:`decompress` on any stream.

    Batches: the tensors of the first three verbs are batches of images of one size; images never influence
    each other. Bytes belong to one image: ``compress`` and ``decompress`` take one at a time, since the
    standard decoder computes σ with a batch of one.

    Ownership: arguments are never modified; returned tensors belong to the caller.

    Invariants, checked for any codec by :func:`lof.testing.check_codec`:

    1. The image of ``decompress(compress(symbols), ...)`` equals the exact synthesis of ``symbols``, bit by bit.
    2. ``code(..., exact=True)`` with hard rounding gives the symbols that ``compress`` writes.
    3. The sum of ``bits`` with hard rounding is within 1 % + 512 bits of the length of the strings, if ``exact_bits``.
    4. Equal symbols give equal strings, in every process and at every thread count.
    5. The symbols of ``decompress(compress(symbols), ...)`` equal ``symbols``, and are integers.
    6. Where ``quantize`` rounds nothing, the values of ``code`` are the latents.
    """

    latents: ClassVar[tuple[str, ...]]
    """Names of the latent tensors, in the order in which they are decoded."""
    synthesised: ClassVar[tuple[str, ...]]
    """Those of ``latents`` whose values reach the pixels; the others only say how these are coded, or are ``held``."""
    held: ClassVar[tuple[str, ...]] = ()
    """Those of ``latents`` that are categories: no gradient tells where to move them, so that their gradient is 0. They
    may reach the pixels. :meth:`refine` chooses them; all other stages leave them as they are."""
    stride: ClassVar[int]
    """Images are padded to multiples of this many pixels."""
    portable: ClassVar[bool] = False
    """Whether every CPU reads the same symbols: no floating-point number decides how they are coded."""
    exact_bits: ClassVar[bool] = True
    """Whether the bits of the elements add up to the strings' length; otherwise ``bits_of`` is a stand-in that a
    search can follow (run lengths and Huffman codes have no cost of single elements), and :meth:`rate` tells."""
    locality: Locality | None = None
    """How parts of an image can be searched alone; ``None`` for a codec whose every element may depend on all of it."""
    symbol_limit: ClassVar[int | None] = None
    """Largest magnitude of a symbol that ``compress`` can write; any int32 if ``None``. See :meth:`rounded`."""

    name: str
    quality: float
    """A multiple of 1/64."""
    metric: str
    """What the codec was made for: ``mse`` or ``ms-ssim``. A search may want the other, see :meth:`lambda_for`."""
    lmbda: float
    """λ of ``bpp + λ·D`` that the codec was made for at this quality."""
    fingerprint: bytes = hashlib.sha256().digest()
    """SHA-256 over the names, shapes and values of all weights and tables.

    A codec without any takes the SHA-256 of a text of its own, such as ``cosine 1``, and changes the text whenever it
    writes something else or its files decode to something else. The default is the SHA-256 of nothing: then no file,
    job or archive notices such a change.
    """
    device: torch.device = torch.device("cpu")
    precision: torch.dtype = torch.float32
    """Precision of the search's synthesis; what is written and reported never depends on it."""
    bytes_per_pixel: int
    """Peak memory of a search per pixel of the batch, measured and rounded up."""
    decoding_bytes_per_pixel: int
    """The same of ``decompress``."""

    @abstractmethod
    def analyse(self, images: Tensor) -> Latents:
        """The encoder network's guess: unrounded latents in steps of the quantiser, float32, finite, without a graph.

        Args:
            images: (B, 3, H, W) float32 in [0, 1]; H and W multiples of ``stride``.
        """

    @abstractmethod
    def code(
        self, latents: Mapping[str, Tensor], quantize: Quantize, *, exact: bool = False
    ) -> dict[str, Coded]:
        """Walk the latent tensors in coding order and price them.

        ``quantize`` is called on what is really rounded (``y - μ``, not ``y``): once per tensor, or on one part of
        it after the other where the parts inform each other. Entropy parameters are functions of all that was
        quantised before. Differentiable.

        Args:
            latents: as from :meth:`analyse`, float32.
            exact: compute the entropy parameters as the standard decoder does (float32, eager, default
                memory format) instead of in the search's precision.
        """

    @abstractmethod
    def synthesise(self, values: Mapping[str, Tensor], *, exact: bool = False) -> Tensor:
        """Decoded images, (B, 3, H, W) float32, neither clamped nor rounded. Differentiable.

        Args:
            values: ``Coded.value`` of every latent tensor.
            exact: as for :meth:`code`.
        """

    @abstractmethod
    def compress(self, symbols: Mapping[str, Tensor]) -> list[bytes]:
        """Integers to strings through the codec's own entropy coder.

        Args:
            symbols: rounded residuals of one image, (1, C, h, w), integers in any dtype.

        Returns:
            The strings, in the order in which the codec's own decoder takes them.
        """

    @abstractmethod
    def decompress(self, strings: Sequence[bytes], height: int, width: int) -> Decoded:
        """Strings to an image through the codec's own, unmodified decoder.

        Args:
            strings: as from :meth:`compress`.
            height, width: of the image, in pixels (not padded).

        Raises:
            StreamError: the number of strings is not this codec's, or its decoder fails on them.
        """

    def decoded_image(self, strings: Sequence[bytes], height: int, width: int) -> Tensor:
        """The image of :meth:`decompress` alone, for which less may have to be held."""
        return self.decompress(strings, height, width).image

    def lambda_for(self, metric: str) -> float:
        """λ of ``bpp + λ·D`` at this quality where a search wants ``metric``; ``lmbda`` where that is the codec's own.

        Raises:
            UsageError: the metric is neither ``mse`` nor ``ms-ssim``.
        """
        if metric not in ("mse", "ms-ssim"):
            raise UsageError(f"metric {metric!r}: unknown; it is mse or ms-ssim")
        if metric == self.metric:
            return float(self.lmbda)  # a number of NumPy or torch has no place in JSON
        return float(self.lmbda * _MS_SSIM_LAMBDA if metric == "ms-ssim" else self.lmbda / _MS_SSIM_LAMBDA)

    def rounded(self, name: str, residual: Tensor) -> Tensor:
        """The quantiser of the written file, as a :class:`Quantize`: to the nearest symbol that can be written."""
        whole = torch.round(residual)
        return whole if self.symbol_limit is None else whole.clamp(-self.symbol_limit, self.symbol_limit)

    def symbols(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a standard encoder rounds latents to, as :meth:`compress` takes it, int32.

        Args:
            latents: as from :meth:`analyse`, of one image.
        """
        with torch.no_grad():
            return symbols_of(self.code(latents, self.rounded, exact=True))

    def rate(self, symbols: Mapping[str, Tensor]) -> Tensor:
        """True bits of given symbols: the length of their strings, (B,) float64.

        Args:
            symbols: rounded residuals, (B, C, h, w), integers in any dtype.

        Raises:
            SearchError: they cannot be written.
        """
        lengths = []
        for index in range(len(next(iter(symbols.values())))):
            one = {name: tensor[index : index + 1] for name, tensor in symbols.items()}
            lengths.append(8 * sum(map(len, strings_of(self, one))))
        return torch.tensor(lengths, dtype=torch.float64)

    def widen(self, symbols: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Nearly the same symbols of one image, with a :meth:`scale_margin` that other CPUs keep, where it can be had.

        The same ones for codecs that are portable, and for those whose σ cannot be moved one by one (``mbt2018``).
        Arguments as for :meth:`compress`.
        """
        return dict(symbols)

    def for_size(self, height: int, width: int) -> Self:
        """The codec for images of this size, in pixels: itself, unless what is written depends on more than blocks.

        Padding, cropping, synthesis and strings are then those of that size.
        """
        return self

    def begin(self, picture: Picture) -> Begun:
        """Where the encodings of a picture begin; by default both with the encoder's guess."""
        guess = self.analyse(self.pad(tensor_of(picture)))
        return Begun(guess, guess)

    def plan(self, profile: Profile) -> Profile:
        """The profile as this codec is searched with; most are searched with it as it is."""
        return profile

    def refine(self, search: Any, evaluations: int) -> None:
        """The codec's own search, which a stage of the kind ``own`` runs; none by default.

        Args:
            search: the :class:`lof.search.state.Search`, whose ``best`` latents to start from, and to which better
                ones are offered.
            evaluations: gradient evaluations that may be spent.
        """
        return

    def repack(self, data: bytes) -> bytes:
        """A file of the codec's own format in fewer bytes, the same in all that it says; the file itself at most.

        Raises:
            StreamError: damaged, or of a kind that cannot be packed anew.
            UsageError: the codec packs no files anew.
        """
        raise UsageError(f"codec {self.name}: packs no files anew; give it pictures to optimize")

    def state(self) -> dict[str, Tensor]:
        """All weights and tables by name, from which ``load_codec`` makes the same codec again; none by default."""
        return {}

    def scale_margin(self, strings: Sequence[bytes], height: int, width: int) -> float | None:
        """Smallest relative distance of any σ to a boundary of the entropy coder's scale table.

        A decoder whose σ is off by more than this reads noise. ``None`` for codecs without a scale table.
        """
        return None

    def string_names(self) -> tuple[str, ...]:
        """The latent tensor that each string holds, in the strings' order."""
        return self.latents

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width rounded up to multiples of ``stride``."""
        return -(-height // self.stride) * self.stride, -(-width // self.stride) * self.stride

    def memory_needed(self, height: int, width: int, count: int = 1) -> int:
        """Peak bytes of a search over ``count`` images of this size, on top of the codec's own."""
        return count * math.prod(self.padded_size(height, width)) * self.bytes_per_pixel

    def decoding_memory(self, height: int, width: int) -> int:
        """Peak bytes of decoding one image of this size, on top of the codec's own."""
        return math.prod(self.padded_size(height, width)) * self.decoding_bytes_per_pixel

    def pad(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to the padded size, centred as CompressAI's ``examples/codec.py`` does.

        Edge pixels are repeated: the decoder crops them away, and they cost fewer bits than black.
        """
        top, bottom, left, right = self.margins(images.shape[-2], images.shape[-1])
        return F.pad(images, (left, right, top, bottom), mode="replicate")

    def crop(self, images: Tensor, height: int, width: int) -> Tensor:
        """Inverse of :meth:`pad`, on the last two dimensions; a view."""
        top, _, left, _ = self.margins(height, width)
        return images[..., top : top + height, left : left + width]

    def margins(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Pixels that :meth:`pad` adds above, below, left and right."""
        padded_height, padded_width = self.padded_size(height, width)
        top, left = (padded_height - height) // 2, (padded_width - width) // 2
        return top, padded_height - height - top, left, padded_width - width - left


def symbols_of(coded: Mapping[str, Coded]) -> dict[str, Tensor]:
    """Rounded residuals, (B, C, h, w) int32: what :meth:`Codec.compress` writes."""
    return {name: torch.round(c.residual.detach()).to(torch.int32) for name, c in coded.items()}


def hard_rounding(name: str, residual: Tensor) -> Tensor:
    """Plain rounding, as a :class:`Quantize`; :meth:`Codec.rounded` also knows the codec's limits."""
    return torch.round(residual)
