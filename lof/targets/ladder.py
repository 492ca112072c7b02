"""The rate points of a codec, and the best of its plain encodings that meets a target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from lof.codecs import Codec, CodecSpec
from lof.encoding import Writer
from lof.errors import TargetError, WeightsError
from lof.measure import Region, TrueCost
from lof.metrics import MS_SSIM_MIN_SIDE, ms_ssim, mse, psnr
from lof.pictures.picture import Picture
from lof.results import Pixels, Target
from lof.search import Window, begin

_LOSSLESS = -50.0
_APART = 0.05  # in log λ; of files nearer to each other chance decides too much
_FLAT = 1024  # bytes of a file that is mostly head and tables
_PROBES = 10  # after which the range is halved: sizes that jump may keep a secant at one end
_SLOPES = {True: 0.6, False: -0.48}
"""How the gap moves with log λ from one quality to the next: codecs at hand have 0.5 to 0.7, and -0.4 to -0.5."""


@dataclass(frozen=True)
class Ladder:
    """Where a target may be met.

    Attributes:
        lmbdas: λ that the codec was made for at each quality, lowest quality first.
        load: the codec at one of these qualities.
        start: the quality to try first.
    """

    lmbdas: Mapping[float, float]
    load: Callable[[float], Codec]
    start: float

    @classmethod
    def of(cls, spec: CodecSpec, metric: str, load: Callable[[float], Codec]) -> Ladder:
        """All qualities of a registered codec that was made for a metric."""
        points = {quality: spec.rate_point(metric, quality).lmbda for quality in spec.rates.qualities(metric)}
        if spec.source not in ("none", "bundled") and not spec.rates.one_network:  # a few may be at hand
            points = {quality: points[quality] for quality in _at_hand(points, load)}
        return cls(points, load, min(points, key=lambda quality: abs(quality - spec.default_quality)))

    @classmethod
    def of_one(cls, codec: Codec) -> Ladder:
        """The quality of a loaded codec alone."""
        return cls({codec.quality: codec.lmbda}, lambda _: codec, codec.quality)


def _at_hand(qualities: Iterable[float], load: Callable[[float], Codec]) -> list[float]:
    """Those whose weights can be had.

    Raises:
        WeightsError: none can.
    """
    found, missing = [], None
    for quality in qualities:
        try:
            load(quality)
            found.append(quality)
        except WeightsError as error:
            missing = error
    if missing is not None and not found:
        raise missing
    return found


class Aim:
    """How far from a target a file is.

    Args:
        region: how much each pixel counts, for a PSNR inside.

    Raises:
        TargetError: the picture is too small for MS-SSIM, or has no region that the target could mean.
    """

    def __init__(self, target: Target, original: Pixels, region: Region | None = None) -> None:
        height, width = original.shape[:2]
        self.target, self.original = target, original
        self.inside = None if region is None or target.psnr_inside is None else region > 1
        if target.psnr_inside is not None and (self.inside is None or not self.inside.any()):
            raise TargetError(
                "no region to have a PSNR inside; give one where some pixels count more than others"
            )
        self.size = target.most_bytes(height, width)
        if target.ms_ssim is not None and min(height, width) < MS_SSIM_MIN_SIDE:
            raise TargetError(
                f"a {width}×{height} image is too small for MS-SSIM (sides of {MS_SSIM_MIN_SIDE} px or more); "
                "ask for a PSNR or a size"
            )

    def psnr(self, decoded: Pixels) -> float:
        """In dB, of all pixels or of those inside."""
        if self.inside is None:
            return psnr(mse(self.original, decoded))
        return psnr(mse(self.original[self.inside][None], decoded[self.inside][None]))

    def gap(self, data: bytes, pixels: Callable[[], Pixels]) -> float:
        """Logarithm of the size over that of the target, or of the error over that of the target; above 0 it misses."""
        if self.size is not None:
            return math.log(len(data) / max(self.size, 0.5))
        decoded = pixels()
        wanted = self.target.psnr if self.inside is None else self.target.psnr_inside
        if wanted is not None:
            return max(_LOSSLESS, (wanted - self.psnr(decoded)) * math.log(10) / 10)
        similarity = ms_ssim(self.original, decoded)
        assert similarity is not None
        assert self.target.ms_ssim is not None
        gap = math.log(max(1 - similarity, math.exp(_LOSSLESS)) / (1 - self.target.ms_ssim))
        return min(gap, 0.0) if similarity >= self.target.ms_ssim else max(gap, 1e-9)


@dataclass(frozen=True)
class Plain:
    """A plain encoding."""

    writer: Writer
    data: bytes
    gap: float

    @property
    def codec(self) -> Codec:
        """At its quality."""
        return self.writer.codec


class Plains:
    """The plain encodings of one picture at all qualities, each made when first asked for.

    The order is from what meets the target for certain to what misses it: qualities rise for a size, and fall for a
    quality.

    Args:
        windows: in which the picture is analysed, if it is large.

    Attributes:
        best: place of the last that meets the target, -1 if none does.
    """

    def __init__(
        self,
        ladder: Ladder,
        aim: Aim,
        picture: Picture,
        format: str,
        cost: TrueCost,
        *,
        portable: bool,
        windows: Sequence[Window] = (),
    ) -> None:
        self.ladder, self.aim, self.picture, self.format, self.cost = ladder, aim, picture, format, cost
        self.portable, self.windows = portable, windows
        self.order = list(ladder.lmbdas) if aim.target.is_size else list(ladder.lmbdas)[::-1]
        self.logs = [math.log(ladder.lmbdas[quality]) for quality in self.order]
        self.known: dict[int, Plain] = {}

    def __getitem__(self, place: int) -> Plain:
        if place not in self.known:
            height, width = self.picture.pixels.shape[:2]
            codec = self.ladder.load(self.order[place]).for_size(height, width)
            writer = Writer(codec, self.picture, self.format, self.cost)
            symbols = codec.symbols(begin(codec, self.picture, self.windows).plain)
            data = writer.pack(codec.widen(symbols) if self.portable else symbols)
            del symbols
            self.known[place] = Plain(writer, data, self.aim.gap(data, lambda: writer.read(data)))
        return self.known[place]

    @cached_property
    def best(self) -> int:
        """Place of the last that meets the target; -1 if none does."""
        low, high = -1, len(self.order)
        place = self.order.index(self.ladder.start)
        while True:
            if self[place].gap <= 0:
                low = place
            else:
                high = place
            if high - low == 1:
                return low
            near = self.place_at(0.0) if len(self.known) < _PROBES else (low + high) // 2
            place = min(max(near, low + 1), high - 1)

    @property
    def baseline(self) -> int:
        """Place of the plain encoding that a search has to beat; that of the first if none meets the target.

        For a quality it is the smallest file known that meets it. Of flat pictures that may be the highest quality.
        """
        if self.best < 0 or self.aim.target.is_size:
            return max(self.best, 0)
        tried = self.known.keys() | ({0} if len(self[self.best].data) < _FLAT else set())
        return min((place for place in tried if self[place].gap <= 0), key=lambda p: (len(self[p].data), -p))

    @property
    def slope(self) -> float:
        """How the gap moves with log λ from quality to quality: by the two files that are next to the target."""
        usual = _SLOPES[self.aim.target.is_size]
        nearest = sorted(self.known, key=lambda place: abs(self.known[place].gap))
        for one, other in pairwise(nearest):
            away = self.logs[other] - self.logs[one]
            if abs(away) > _APART:
                rise = (self.known[other].gap - self.known[one].gap) / away
                return rise if 0.25 < rise / usual < 4 else usual
        return usual

    def log_at(self, gap: float) -> float:
        """log λ of the quality at which a plain encoding is foreseen to have a gap."""
        first = min(self.known, key=lambda place: abs(self.known[place].gap - gap))
        return self.logs[first] + (gap - self.known[first].gap) / self.slope

    def place_at(self, gap: float) -> int:
        """The place whose λ is nearest to that of a gap."""
        log = self.log_at(gap)
        return min(range(len(self.logs)), key=lambda place: abs(self.logs[place] - log))
