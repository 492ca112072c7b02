"""A size or a quality that is asked for, met by searches over quality and λ, by what lies between two of them, and by
trades; all on real bytes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from lof.codecs import Codec, Latents, tensor_of
from lof.containers import container
from lof.errors import TargetError
from lof.machine.memory import require_memory
from lof.measure import Region, TrueCost
from lof.pictures.picture import Picture
from lof.profiles import Profile
from lof.results import Measured, Result, Target, TracePoint
from lof.search import (
    Found,
    Objective,
    Progress,
    Sensitivity,
    StopSearch,
    begin,
    search,
    search_in_windows,
    windows_for,
)
from lof.search.windows import HELD_FOR_TARGET
from lof.targets.between import between
from lof.targets.habits import HABITS, Habit
from lof.targets.ladder import Aim, Ladder, Plain, Plains
from lof.targets.least import least_file, nearest
from lof.targets.legs import leg
from lof.targets.traded import CLOSE, traded
from lof.targets.trial import Trial, Trials, gap_of

_LEGS = ((0.0, 0.4), (0.4, 0.75), (0.75, 1.0), (0.9, 1.0))
"""Shares of the profile's first stage, between which λ may move. The last one is for more searches, while needed."""
_WHOLE = 3
"""Legs after which a search has been done whole."""
_OVER = 0.01
"""How far beyond the target a search more is aimed, so that files lie on both sides of it."""
_ASTRAY = {True: 0.08, False: 0.05}
"""Gap after the first leg from which on another quality is better than another λ, for a size and for a quality."""
_STRETCHED = math.log(1.5)
"""How far log λ may move from the codec's own before another quality is better; for PSNR and MS-SSIM alone."""
_FARTHEST, _STEP, _MORE, _ANEW = math.log(64), math.log(4), 4, 3


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
    memory: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Result:
    """The best file of one picture that meets a target, never a worse one than the best plain encoding that does.

    Args:
        ladder: qualities that may be used; with one alone, λ alone moves.
        profile: of the search, as :class:`Codec.plan` has it.
        format: name of the container.
        metric: of the search; what the codec was made for if ``None``. The target has its own.
        region: as from :func:`lof.measure.region_of`.
        portable, memory, on_progress: as for :func:`lof.optimize`.

    Raises:
        TargetError: no file meets it; the message names the nearest that there is.
        SearchError, LowMemoryError: as for :func:`lof.optimize`.
    """
    return _Reach(
        picture, target, ladder, profile, format, metric, seed, region, portable, memory, on_progress
    ).result()


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
        memory: int | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.started = time.perf_counter()
        self.picture, self.target, self.ladder, self.profile = picture, target, ladder, profile
        self.seed, self.region, self.portable, self.on_progress = seed, region, portable, on_progress
        height, width = picture.pixels.shape[:2]
        first = ladder.load(ladder.start).for_size(height, width)
        self.metric = metric or first.metric
        self.offset = container(format).pixel_offset
        self.windows = [] if memory is None else windows_for(first, height, width, memory, HELD_FOR_TARGET)
        needed = memory if memory and self.windows else first.memory_needed(height, width)
        require_memory(needed, first.device, f"a {width}×{height} image")
        self.cost = TrueCost(picture.pixels, first.lmbda, self.metric, region)
        self.aim = Aim(target, picture.pixels, region)
        self.trials = Trials(self.aim, self.cost, portable)
        self.plains = Plains(
            ladder, self.aim, picture, format, self.cost, portable=portable, windows=self.windows
        )
        self.evaluations, self.stopped, self.sensitivity = 0, False, Sensitivity()
        self.trace: list[TracePoint] = []
        self.note = ""
        self.least: Trial | None = None

    def result(self) -> Result:
        """See :func:`reach_target`."""
        best = self.plains.best
        plain = self.plains[self.plains.baseline]
        self._refuse_the_impossible()
        found = self._searched()
        found += between(self.trials, found[_WHOLE - 1 :])
        found.append(self._exact(min(found, key=lambda trial: abs(trial.gap))))
        if self.least is not None and found[-1].gap > 0:
            found.append(self._exact(self.least))
        chosen = self._best_of(found)
        if chosen is not None:  # one from farther off may be better, and not there yet
            found.append(self._exact(chosen))
            chosen = self._best_of(found)
        if best < 0 and chosen is None and not (self.target.is_size or self.stopped):
            found.append(self._exact(self._finest()))
            chosen = self._best_of(found)
        if best < 0 and chosen is None:
            raise TargetError(self._nearest([trial.measured for trial in found]))
        baseline = plain.writer.measured(plain.data)
        if chosen is not None and best >= 0 and self._rank(chosen.measured) >= self._rank(baseline.measured):
            chosen = None
        kept = baseline if chosen is None else chosen.writer.measured(chosen.data)
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
            note=self.note,
        )

    def _best_of(self, trials: list[Trial]) -> Trial | None:
        met = [trial for trial in trials if trial.gap <= 0]
        return min(met, key=lambda trial: self._rank(trial.measured), default=None)

    def _searched(self, gain: float | None = None) -> list[Trial]:
        """Searches at one quality, each from where the last one stopped, until trades can do the rest.

        Args:
            gain: as of :class:`Habit`, where the first leg at another quality has shown it.
        """
        self.sensitivity = Sensitivity()
        place = self.plains.place_at(HABITS["legs", self.target.is_size].gain)
        own = all(stage.kind == "own" for stage in self.plains[place].codec.plan(self.profile).stage)
        habit = HABITS["own" if own else "legs", self.target.is_size]
        wanted = habit.gain if gain is None else gain
        place = self.plains.place_at(wanted)
        plain = self.plains[place]
        # At one quality λ moves the gap less than it does from quality to quality.
        away = (self.plains.log_at(wanted) - self.plains.logs[place]) * self.plains.slope / habit.stiff[0]
        lmbda = self._suited(plain) * math.exp(min(max(away, -_FARTHEST), _FARTHEST))
        begun = begin(plain.codec, self.picture, self.windows)
        self.note, start = begun.note, begun.start
        del begun
        trials: list[Trial] = []
        for number in range(habit.most + _MORE + (0 if own or self.windows else _ANEW)):
            part = self.profile if own else leg(self.profile, *_LEGS[min(number, len(_LEGS) - 1)])
            # The last legs move little, and trades over a long way spoil the picture: a whole search is better then.
            anew = number >= (len(_LEGS) if self.windows else habit.most + _MORE)
            if number == habit.most + _MORE:
                lmbda = trials[_WHOLE - 1].lmbda  # since then it has moved, and the files have not
            if anew:
                part, start = self.profile, begin(plain.codec, self.picture, self.windows).start
            last, stopped_at = self._trial(plain, lmbda, start, part, moving=number >= _WHOLE)
            trials.append(last)
            if gain is None and abs(last.gap) > _ASTRAY[self.target.is_size] and not (own or self.windows):
                if self.plains.place_at(plain.gap - last.gap) != place:
                    return self._searched(plain.gap - last.gap)
                gain = wanted
            whole = own or number + 1 >= _WHOLE
            if not own:
                start = stopped_at
                trials = self._forgetting(trials)
            # More has to be tried while no search has met the target.
            met = any(trial.gap <= 0 for trial in trials)
            far = anew and last.gap < -_ASTRAY[self.target.is_size]
            enough = number + 1 >= habit.most and met and not (self.windows or far)
            hopeless = anew and not (met or self.windows) and last.gap >= min(t.gap for t in trials[:-1])
            if (
                self.stopped
                or enough
                or hopeless
                or (whole and self._close(trials if own else trials[_WHOLE - 1 :], habit))
            ):
                break
            rise = habit.stiff[min(number + 1, len(habit.stiff) - 1)]
            if anew or (self.windows and number + 1 >= len(_LEGS)):
                rise = HABITS["own", self.target.is_size].stiff[0]
            if (own and number) or (anew and number != habit.most + _MORE):
                before = trials[-2]
                measured = (last.gap - before.gap) / math.log(last.lmbda / before.lmbda)
                rise = min(max(measured / rise, 0.05 if anew else 0.3), 3) * rise
            aimed = 0.0 if own or not whole else -math.copysign(_OVER, last.gap)
            lmbda = last.lmbda * math.exp(min(max((aimed - last.gap) / rise, -_STEP), _STEP))
            stretched = abs(math.log(lmbda / self._suited(plain))) > _STRETCHED
            if gain is None and stretched and not (whole or self.windows or self.target.is_size):
                if self.plains.place_at(plain.gap - last.gap) != place:
                    return self._searched(plain.gap - last.gap)
                gain = wanted
        return trials

    def _close(self, trials: list[Trial], habit: Habit) -> bool:
        """Whether no other search is needed: one is near, or the target lies between two."""
        gaps = [trial.gap for trial in trials]
        near = -CLOSE <= gaps[-1] <= 0 or abs(gaps[-1]) <= habit.near
        return near or min(gaps) <= 0 < max(gaps)

    @staticmethod
    def _forgetting(trials: list[Trial]) -> list[Trial]:
        """Trials without the latents that are not needed any more: they are large."""
        full = trials[_WHOLE - 1 :]
        keep = [max((t for t in full if t.gap <= 0), key=gap_of, default=None)]
        keep.append(min((t for t in full if t.gap > 0), key=gap_of, default=None))
        return [t if t in keep or t is trials[-1] else replace(t, latents=None) for t in trials]

    def _suited(self, plain: Plain) -> float:
        """λ that suits the quality."""
        return plain.codec.lambda_for(self.metric)

    def _trial(
        self, plain: Plain, lmbda: float, start: Latents, profile: Profile, *, moving: bool
    ) -> tuple[Trial, Latents]:
        """A search's best file, and where it stopped.

        Args:
            moving: the file is that of where it stopped, if nothing was better than the start: one on the other side of
                the target is wanted.
        """
        found = self._search(plain.codec, lmbda, start, profile)
        self.trace += [
            replace(point, evaluations=point.evaluations + self.evaluations) for point in found.trace
        ]
        self.evaluations += found.evaluations
        latents = found.last if moving and len(found.trace) == 1 else found.latents
        return self.trials.written(plain.writer, latents, lmbda), found.last

    def _search(self, codec: Codec, lmbda: float, start: Latents, profile: Profile) -> Found:
        if self.windows:
            return search_in_windows(
                codec,
                self.picture.pixels,
                profile,
                self.windows,
                latents={name: tensor.clone() for name, tensor in start.items()},
                lmbda=lmbda,
                metric=self.metric,
                seed=self.seed,
                region=self.region,
                offset=self.offset,
                on_progress=self._progressed,
            )
        return search(
            codec,
            tensor_of(self.picture),
            profile,
            initial=start,
            lmbda=lmbda,
            metric=self.metric,
            seed=self.seed,
            region=self._map(),
            offset=self.offset,
            sensitivity=self.sensitivity,
            on_progress=self._progressed,
        )[0]

    def _map(self) -> torch.Tensor | None:
        return None if self.region is None else torch.as_tensor(self.region)[None, None]

    def _exact(self, trial: Trial) -> Trial:
        """The trial with symbols changed until its file just meets the target, or as it was if that cannot be.

        Of large images, which do not fit into the memory whole, always as it was.
        """
        if self.windows or -CLOSE <= trial.gap <= 0:
            return trial
        codec = trial.writer.codec
        objective = Objective(
            codec,
            tensor_of(self.picture),
            trial.lmbda,
            metric=self.metric,
            region=self._map(),
            offset=self.offset,
        )
        symbols, evaluations = traded(objective, self.aim, trial.writer, trial.data, trial.gap, self.seed)
        self.evaluations += evaluations
        if symbols is None:
            return trial
        return self.trials.of(trial.writer, trial.writer.pack(symbols), None, trial.lmbda)

    def _finest(self) -> Trial:
        """A search at the best quality for which bits count next to nothing."""
        plain = self.plains[0]
        self.sensitivity = Sensitivity()
        start = begin(plain.codec, self.picture, self.windows).start
        lmbda = self._suited(plain) * math.exp(2 * _FARTHEST)
        return self._trial(plain, lmbda, start, self.profile, moving=False)[0]

    def _refuse_the_impossible(self) -> None:
        """A size that no file has needs no search to be refused."""
        if self.aim.size is None or self.plains.best >= 0:
            return
        self.least = self._least()
        if self.least.gap > 0:
            raise TargetError(self._nearest([self.least.measured]))

    def _least(self) -> Trial:
        plain = self.plains[0]
        writer = plain.writer
        latents = begin(plain.codec, self.picture, self.windows).plain
        data = least_file(writer, latents, large=bool(self.windows))
        return self.trials.of(writer, data, None, self._suited(plain))

    def _nearest(self, files: list[Measured]) -> str:
        """Why no file meets the target."""
        codec = self.plains[0].codec
        fixed = len(self.ladder.lmbdas) == 1
        name = f"{codec.name} quality {codec.quality:.10g}" if fixed else codec.name
        return nearest(files, self.target, name, sum(map(len, self.picture.boxes.values())))

    def _rank(self, measured: Measured) -> tuple[float, float]:
        """What is better is lower: the error of files that meet a size, the size of those that meet a quality."""
        found = measured.size, measured.cost - measured.bpp
        return found[::-1] if self.target.is_size else found

    def _priced(self, measured: Measured, lmbda: float) -> Measured:
        distortion = (measured.cost - measured.bpp) / self.cost.lmbda
        return replace(measured, cost=measured.bpp + lmbda * distortion)

    def _progressed(self, progress: Progress) -> None:
        if self.on_progress is None:
            return
        each = max(1, len(self.windows))
        done = each * self.evaluations + progress.evaluations
        whole = max(each * self.evaluations + progress.budget, each * self.profile.evaluations)
        try:
            self.on_progress(replace(progress, evaluations=done, budget=whole))
        except StopSearch:
            self.stopped = True
            raise
