"""What a search for a target has written: a file, and how far from the target it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from operator import attrgetter

from lof.codecs import Latents
from lof.encoding import Writer
from lof.measure import TrueCost
from lof.results import Measured, Pixels
from lof.targets.ladder import Aim


@dataclass(frozen=True, eq=False)
class Trial:
    """What a search came to.

    Attributes:
        latents: not rounded, for another search to go on from; ``None`` where none will.
        measure: the file decoded and measured, when first called.
    """

    writer: Writer
    data: bytes
    latents: Latents | None
    lmbda: float
    gap: float
    measure: Callable[[], Measured]

    @property
    def measured(self) -> Measured:
        """Without MS-SSIM where neither the cost nor the target needs it."""
        return self.measure()


gap_of = attrgetter("gap")


@dataclass(frozen=True)
class Trials:
    """Writes files of one picture.

    Attributes:
        portable: whether symbols are widened first.
    """

    aim: Aim
    cost: TrueCost
    portable: bool

    def written(self, writer: Writer, latents: Latents, lmbda: float) -> Trial:
        """The file of latents that a search has found with λ."""
        symbols = writer.codec.symbols(latents)
        data = writer.pack(writer.codec.widen(symbols) if self.portable else symbols)
        del symbols
        return self.of(writer, data, latents, lmbda)

    def of(self, writer: Writer, data: bytes, latents: Latents | None, lmbda: float) -> Trial:
        """What is known of a file; for a size only its length, and most are never decoded."""

        def measure(pixels: Pixels) -> Measured:
            return self.cost.measure(len(data), pixels, brief=self.aim.target.ms_ssim is None)

        if self.aim.target.is_size:
            later = cache(lambda: measure(writer.read(data)))
            return Trial(writer, data, latents, lmbda, self.aim.gap(data, lambda: writer.read(data)), later)
        pixels = writer.read(data)
        measured = measure(pixels)
        return Trial(writer, data, latents, lmbda, self.aim.gap(data, lambda: pixels), lambda: measured)
