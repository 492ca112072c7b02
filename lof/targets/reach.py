"""A size or a quality that is asked for, met by a search over quality and λ and by trades on real bytes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from lof.codecs import Latents, tensor_of
from lof.containers import container
from lof.encoding import Symbols, Writer, Written
from lof.errors import TargetError
from lof.machine.memory import require_memory
from lof.measure import Region, TrueCost
from lof.pictures.picture import Picture
from lof.profiles import Profile
from lof.results import Measured, Result, Target, TracePoint
from lof.search import Objective, Progress, StopSearch, Trades, search, trades
from lof.targets.ladder import Aim, Ladder, Plain, Plains
from lof.targets.legs import leg

_LEGS = ((0.0, 0.4), (0.4, 0.75), (0.75, 1.0))
"""Shares of the profile's first stage, between which λ may move."""
_CLOSE = {True: 2e-3, False: 2.5e-3}
"""Gap below the target that is as good as none."""
_PATHS, _PROBES = 4, 5
_FARTHEST, _STEP, _MORE = math.log(64), math.log(4), 4


@dataclass(frozen=True)
class _Habit:
    """What is foreseen of searches, for gaps of a size or of a quality.

    Attributes:
        gain: gap of the plain encoding by whose search, at the codec's own λ, the target lies.
        stiff: how the gap moves with log λ from one leg to the next, by the leg that goes on.
        near: gap that trades close; above it they cost more quality than another search.
        most: legs.
    """

    gain: float
    stiff: tuple[float, ...]
    near: float
    most: int


_HABITS = {
    ("legs", True): _Habit(0.13, (0.3, 0.2, 0.1, 0.1), 0.015, 4),
    ("legs", False): _Habit(-0.09, (-0.3, -0.25, -0.15, -0.15), 0.015, 4),
    ("own", True): _Habit(0.43, (0.42,) * 4, 0.03, 4),
    ("own", False): _Habit(0.0, (-0.65,) * 4, 0.03, 4),
}
"""Measured on CID22's validation set. A codec's own search begins anew each time, and λ moves it farther."""


def reach_target(
    picture: Picture,
    target: Target,
    ladder: Ladder,
    profile: Profile,
    *,
    format: str,
    metric: str | None = None,
    seed: int = 0,
    region: Region | None = None,
    portable: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
) -> Result:
    """The best file of one picture that meets a target, never a worse one than the best plain encoding that does.

    Args:
        ladder: qualities that may be used; with one alone, λ alone moves.
        profile: of the search, as :class:`Codec.plan` has it.
        format: name of the container.
        metric: of the search; what the codec was made for if ``None``. The target has its own.
        region: as from :func:`lof.measure.region_of`.
        portable, on_progress: as for :func:`lof.optimize`.

    Raises:
        TargetError: no file meets it; the message names the nearest that there is.
        SearchError, LowMemoryError: as for :func:`lof.optimize`.
    """
    return _Reach(
        picture, target, ladder, profile, format, metric, seed, region, portable, on_progress
    ).result()


@dataclass(frozen=True, eq=False)
class _Trial:
    """What a search came to.

    Attributes:
        latents: not rounded, for another search to go on from.
    """

    writer: Writer
    symbols: Symbols
    written: Written
    latents: Latents
    lmbda: float
    gap: float
    note: str


@dataclass(frozen=True, eq=False)
class _Spot:
    """Symbols, and what their file would be: its gap and its size."""

    symbols: Symbols
    gap: float
    size: int


class _Reach:
    def __init__(
        self,
        picture: Picture,
        target: Target,
        ladder: Ladder,
        profile: Profile,
        format: str,
        metric: str | None,
        seed: int,
        region: Region | None,
        portable: bool,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.started = time.perf_counter()
        self.picture, self.target, self.ladder, self.profile = picture, target, ladder, profile
        self.seed, self.region, self.portable, self.on_progress = seed, region, portable, on_progress
        first = ladder.load(ladder.start)
        self.metric = metric or first.metric
        self.offset = container(format).pixel_offset
        height, width = picture.pixels.shape[:2]
        require_memory(first.memory_needed(height, width), first.device, f"a {width}×{height} image")
        self.cost = TrueCost(picture.pixels, first.lmbda, self.metric, region)
        self.aim = Aim(target, picture.pixels, region)
        self.plains = Plains(ladder, self.aim, picture, format, self.cost, portable=portable)
        self.evaluations, self.stopped = 0, False
        self.trace: list[TracePoint] = []
        self.tensor = tensor_of(picture)
        self.least: _Trial | None = None

    def result(self) -> Result:
        """See :func:`reach_target`."""
        best = self.plains.best
        plain = self.plains[max(best, 0)]
        self._refuse_the_impossible()
        baseline = plain.writer.write(plain.symbols)
        trials = self._searched()
        found = [*trials, self._exact(min(trials, key=lambda trial: abs(trial.gap)))]
        if self.least is not None and found[-1].gap > 0:
            found.append(self._exact(self.least))
        chosen = self._best_of(found)
        if chosen is not None and chosen in trials:  # one from farther off is better, and not there yet
            found.append(self._exact(chosen))
            chosen = self._best_of(found)
        if best < 0 and chosen is None:
            raise TargetError(self._nearest([trial.written for trial in found]))
        if chosen is not None and best >= 0 and self._rank(chosen.written) >= self._rank(baseline):
            chosen = None
        kept = baseline if chosen is None else chosen.written
        codec = plain.codec if chosen is None else chosen.writer.codec
        lmbda = self._suited(plain) if chosen is None else chosen.lmbda
        return Result(
            data=kept.data,
            pixels=kept.pixels,
            baseline=self._priced(baseline.measured, lmbda),
            optimised=self._priced(kept.measured, lmbda),
            baseline_pixels=baseline.pixels,
            codec=codec.name,
            quality=codec.quality,
            profile=self.profile.name,
            lmbda=lmbda,
            kept="plain" if chosen is None else "search",
            evaluations=self.evaluations,
            seconds=time.perf_counter() - self.started,
            seed=self.seed,
            metric=self.metric,
            trace=self.trace,
            target=self.target,
            note=plain.begun.note if chosen is None else chosen.note,
        )

    def _best_of(self, trials: list[_Trial]) -> _Trial | None:
        met = [trial for trial in trials if trial.gap <= 0]
        return min(met, key=lambda trial: self._rank(trial.written), default=None)

    def _searched(self) -> list[_Trial]:
        """Searches at one quality, each from where the last one stopped, until trades can do the rest."""
        place = self.plains.place_at(_HABITS["legs", self.target.is_size].gain)
        own = all(stage.kind == "own" for stage in self.plains[place].codec.plan(self.profile).stage)
        habit = _HABITS["own" if own else "legs", self.target.is_size]
        wanted = habit.gain
        place = self.plains.place_at(wanted)
        plain = self.plains[place]
        # At one quality λ moves the gap less than it does from quality to quality.
        away = (self.plains.log_at(wanted) - self.plains.logs[place]) * self.plains.slope / habit.stiff[0]
        lmbda = self._suited(plain) * math.exp(min(max(away, -_FARTHEST), _FARTHEST))
        trials: list[_Trial] = []
        for number in range(habit.most + _MORE):
            part = self.profile if own else leg(self.profile, *_LEGS[min(number, len(_LEGS) - 1)])
            start = trials[-1].latents if trials and not own else plain.begun.start
            trials.append(self._trial(plain, lmbda, start, part))
            last = trials[-1]
            # Without a plain encoding that meets the target, more has to be tried.
            enough = number + 1 >= habit.most and (last.gap <= 0 or self.plains.best >= 0)
            close = abs(last.gap) <= habit.near and (own or number + 1 >= len(_LEGS))
            if self.stopped or close or enough:
                break
            rise = habit.stiff[min(number + 1, len(habit.stiff) - 1)]
            if own and number:
                before = trials[-2]
                measured = (last.gap - before.gap) / math.log(last.lmbda / before.lmbda)
                rise = min(max(measured / rise, 0.3), 3) * rise
            lmbda = last.lmbda * math.exp(min(max(-last.gap / rise, -_STEP), _STEP))
        return trials

    def _suited(self, plain: Plain) -> float:
        """λ that suits the quality."""
        return plain.codec.lambda_for(self.metric)

    def _trial(self, plain: Plain, lmbda: float, start: Latents, profile: Profile) -> _Trial:
        codec, writer = plain.codec, plain.writer
        found = search(
            codec,
            self.tensor,
            profile,
            initial=start,
            lmbda=lmbda,
            metric=self.metric,
            seed=self.seed,
            region=self._map(),
            offset=self.offset,
            on_progress=self._progressed,
        )[0]
        self.trace += [
            replace(point, evaluations=point.evaluations + self.evaluations) for point in found.trace
        ]
        self.evaluations += found.evaluations
        symbols = codec.symbols(found.latents)
        symbols = codec.widen(symbols) if self.portable else symbols
        written = writer.write(symbols)
        gap = self.aim.gap(written.data, lambda: written.pixels)
        return _Trial(writer, symbols, written, found.latents, lmbda, gap, plain.begun.note)

    def _map(self) -> torch.Tensor | None:
        return None if self.region is None else torch.as_tensor(self.region)[None, None]

    def _exact(self, trial: _Trial) -> _Trial:
        """The trial with symbols changed until its file just meets the target, or as it was if that cannot be."""
        size = self.target.is_size
        objective = Objective(
            trial.writer.codec,
            self.tensor,
            trial.lmbda,
            metric=self.metric,
            region=self._map(),
            offset=self.offset,
        )
        now = _Spot(trial.symbols, trial.gap, len(trial.written.data))
        met = now if now.gap <= 0 else None
        apart = True
        for number in range(_PATHS):
            if met is not None and met.gap >= -_CLOSE[size]:
                break
            apart = apart and number + 1 < _PATHS
            path = trades(
                objective,
                now.symbols,
                cheaper=(now.gap > 0) == size,
                apart=apart,
                seed=self.seed,
            )
            self.evaluations += 1
            found = self._along(path, now, trial.writer)
            met = max(
                [spot for spot in (met, *found) if spot is not None and spot.gap <= 0], key=_gap, default=None
            )
            nearest = min([now, *found], key=lambda spot: abs(spot.gap + _CLOSE[size] / 2))
            if nearest is now and not apart:
                break
            apart, now = apart and nearest is not now, nearest
        if met is None or met.symbols is trial.symbols:
            return trial
        return replace(trial, symbols=met.symbols, written=trial.writer.write(met.symbols), gap=met.gap)

    def _along(self, path: Trades, start: _Spot, writer: Writer) -> list[_Spot]:
        """Files along a path, where the gap closes if it does."""
        size, found = self.target.is_size, [start]
        if not len(path):
            return []
        foreseen = path.bits / (8 * start.size) if size else path.distortion
        aimed = -_CLOSE[size] / 2
        low, high = (0, start.gap), (len(path) + 1, start.gap + 2 * float(foreseen[-1]))
        count = int((foreseen.abs() < abs(start.gap - aimed)).sum()) + 1
        for _ in range(_PROBES):
            count = min(max(count, low[0] + 1), high[0] - 1)
            symbols = path.symbols(count)
            data = writer.pack(symbols)
            gap = self.aim.gap(data, lambda: writer.read(data))  # noqa: B023
            found.append(_Spot(symbols, gap, len(data)))
            if -_CLOSE[size] <= gap <= 0:
                break
            if (gap > aimed) == (start.gap > aimed):
                low = count, gap
            else:
                high = count, gap
            if high[0] - low[0] <= 1:
                break
            share = (aimed - low[1]) / (high[1] - low[1]) if high[1] != low[1] else 0.5
            count = round(low[0] + min(max(share, 0.05), 0.95) * (high[0] - low[0]))
        return found[1:]

    def _refuse_the_impossible(self) -> None:
        """A size that no file has needs no search to be refused."""
        if self.aim.size is None or self.plains.best >= 0:
            return
        self.least = self._least()
        if self.least.gap > 0:
            raise TargetError(self._nearest([self.least.written]))

    def _least(self) -> _Trial:
        """The smallest file there is, or nearly: at the lowest quality, all that gets cheaper by it is 0."""
        plain = self.plains[0]
        with torch.no_grad():
            coded = plain.codec.code(plain.begun.plain, plain.codec.rounded)
        zeros = {}
        for name, part in coded.items():
            cheaper = part.bits_of(torch.zeros_like(part.residual)) < part.bits
            zeros[name] = torch.where(cheaper.cpu(), 0, plain.symbols[name])
        some = {
            name: zeros[name] if name in plain.codec.synthesised else symbols
            for name, symbols in plain.symbols.items()
        }
        files = [(symbols, plain.writer.write(symbols)) for symbols in (zeros, some)]
        symbols, least = min(files, key=lambda file: len(file[1].data))
        gap = self.aim.gap(least.data, lambda: least.pixels)
        return _Trial(
            plain.writer, symbols, least, plain.begun.plain, self._suited(plain), gap, plain.begun.note
        )

    def _nearest(self, files: list[Written]) -> str:
        """Why no file meets the target."""
        codec = self.plains[0].codec
        fixed = len(self.ladder.lmbdas) == 1
        name = f"{codec.name} quality {codec.quality:.10g}" if fixed else codec.name
        if self.aim.size is not None:
            size = min(len(file.data) for file in files)
            held = sum(map(len, self.picture.boxes.values()))
            hint = f", {held} of them metadata that --strip leaves out" if held else ""
            return f"no file of {name} has {self.target} or less; the smallest has {size} bytes{hint}"
        if self.target.ms_ssim is None:
            best = f"{max(self.aim.psnr(file.pixels) for file in files):.2f} dB"
        else:
            best = f"MS-SSIM {max(file.measured.ms_ssim or 0 for file in files):.5f}"
        return f"no file of {name} reaches {self.target}; the best found has {best}"

    def _rank(self, written: Written) -> tuple[float, float]:
        """What is better is lower: the error of files that meet a size, the size of those that meet a quality."""
        found = len(written.data), written.measured.cost - written.measured.bpp
        return found[::-1] if self.target.is_size else found

    def _priced(self, measured: Measured, lmbda: float) -> Measured:
        distortion = (measured.cost - measured.bpp) / self.cost.lmbda
        return replace(measured, cost=measured.bpp + lmbda * distortion)

    def _progressed(self, progress: Progress) -> None:
        if self.on_progress is None:
            return
        done = self.evaluations + progress.evaluations
        whole = max(self.evaluations + progress.budget, self.profile.evaluations)
        try:
            self.on_progress(replace(progress, evaluations=done, budget=whole))
        except StopSearch:
            self.stopped = True
            raise


def _gap(spot: _Spot) -> float:
    return spot.gap
