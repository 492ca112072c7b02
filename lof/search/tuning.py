"""A profile fitted to one codec by a handful of trials: minutes, where a study takes hours.

A profile's steps suit the codecs that it was chosen on. :func:`tune` tries longer and shorter ones on a few images, one
setting after the other, and keeps what lowers the true cost by more than chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from torch import Tensor

from lof.codecs import Codec
from lof.errors import UsageError
from lof.profiles import MeanFieldStage, Profile
from lof.search.engine import search
from lof.search.objective import Objective
from lof.search.sensitivity import distortion_curvature, natural_steps
from lof.search.state import Search

Move = tuple[str, Callable[[MeanFieldStage], dict[str, object]]]
"""What a trial changes, in words, and the keys that it sets in each mean-field stage."""


@dataclass(frozen=True)
class Trial:
    """One profile, measured.

    Attributes:
        change: what it changes, in words; empty for the profile as it was.
        profile: with that change, on top of those kept before.
        cost: change of the true cost ``bpp + λ·D`` against the plain encoding, as a share; the mean over images and
            codecs.
        kept: whether it was better than the best before by more than the standard error of the difference.
    """

    change: str
    profile: Profile
    cost: float
    kept: bool


def tune(
    profile: Profile,
    codecs: Sequence[Codec],
    images: Sequence[Tensor],
    *,
    metric: str | None = None,
    seed: int = 0,
) -> Iterator[Trial]:
    """Measure ``profile`` and changes of it; the last trial that was kept has the profile to use.

    Args:
        codecs: one codec at several rate points.
        images: batches, (B, 3, H, W) float32 in [0, 1]. With fewer than eight pairs of image and rate point, chance
            decides much.
        metric: what is optimised; what the codecs were made for if ``None``.

    Raises:
        UsageError: see :func:`check_tunable`.
        LofError: the search cannot run on an image.
    """
    check_tunable(profile, codecs[0])
    codec = codecs[0]
    side = [name for name in codec.latents if name not in (*codec.synthesised, *codec.held)]

    def costs(tried: Profile) -> list[float]:
        """Change of the true cost of every image at every rate point."""
        return [
            found.trace[-1].cost / found.trace[0].cost - 1
            for batch in images
            for codec in codecs
            for found in search(
                codec, batch, tried, lmbda=codec.lambda_for(metric or codec.metric), metric=metric, seed=seed
            )
        ]

    best, rows = profile, costs(profile)
    yield Trial("", best, fmean(rows), True)
    for moves in _moves(side):
        for change, keys in moves:
            # A direction that helps is followed for as long as it does; its opposite is not tried then.
            helped = False
            while True:
                tried = _with(best, keys)
                if tried.digest == best.digest:
                    break
                found = costs(tried)
                kept = _better(found, rows)
                yield Trial(change, tried, fmean(found), kept)
                if not kept:
                    break
                best, rows, helped = tried, found, True
            if helped:
                break


def check_tunable(profile: Profile, codec: Codec) -> None:
    """Refuse what :func:`tune` can change nothing of.

    Raises:
        UsageError: the profile has no mean-field stage, or the codec runs a search of its own in its place.
    """
    if not any(isinstance(stage, MeanFieldStage) for stage in codec.plan(profile).stage):
        raise UsageError(
            f"profile {profile.name}: {codec.name} runs no mean-field stage of it; there is nothing to tune"
        )


def half_bits(codec: Codec, images: Tensor, metric: str | None = None) -> dict[str, float]:
    """How sensitive a codec is: the move of an element that costs about half a bit, by latent tensor.

    In steps of the quantiser, the median over channels; see :func:`lof.search.sensitivity.natural_steps`.

    Args:
        images: (B, 3, H, W) float32 in [0, 1].
        metric: as for :func:`tune`.
    """
    latents = codec.analyse(codec.pad(images))
    objective = Objective(codec, images, codec.lambda_for(metric or codec.metric), metric=metric)
    state = Search(objective, latents, 1, [0] * len(images), None)
    curvature = distortion_curvature(state, state.best)
    found = natural_steps(state, state.best, curvature, 1.0)
    return {name: float(step.median()) for name, step in found.items()}


def _moves(side: Sequence[str]) -> list[list[Move]]:
    """Directions to try, those of one list opposite to each other."""

    def steps(factor: float) -> Callable[[MeanFieldStage], dict[str, object]]:
        return lambda stage: {"learning_rate": _rate(stage.learning_rate * factor)}

    def side_steps(factor: float) -> Callable[[MeanFieldStage], dict[str, object]]:
        return lambda stage: {
            "learning_rate_of": {
                **stage.learning_rate_of,
                **{n: _rate(stage.learning_rate_of.get(n, stage.learning_rate) * factor) for n in side},
            }
        }

    def start(fraction: float) -> Callable[[MeanFieldStage], dict[str, object]]:
        return lambda stage: {"fraction": fraction}

    def until(share: float) -> Callable[[MeanFieldStage], dict[str, object]]:
        return lambda stage: {"side_until": share}

    found: list[list[Move]] = [[("steps ÷ 1.6", steps(1 / 1.6)), ("steps × 1.6", steps(1.6))]]
    if side:
        names = " and ".join(side)
        found += [
            [(f"steps of {names} ÷ 4", side_steps(1 / 4)), (f"steps of {names} × 4", side_steps(4))],
            [(f"{names} rounded after 30 %", until(0.3)), (f"{names} rounded after 90 %", until(0.9))],
        ]
    return [*found, [("start at the encoder's latents", start(1.0)), ("start at integers", start(0.1))]]


def _with(profile: Profile, keys: Callable[[MeanFieldStage], dict[str, object]]) -> Profile:
    stages = tuple(
        stage.model_copy(update=keys(stage)) if isinstance(stage, MeanFieldStage) else stage
        for stage in profile.stage
    )
    return profile.model_copy(update={"stage": stages})


def _rate(rate: float) -> float:
    """Three digits, within what a profile may say."""
    return float(f"{min(10.0, max(1e-6, rate)):.3g}")


def _better(rows: Sequence[float], before: Sequence[float]) -> bool:
    gains = [old - new for old, new in zip(before, rows, strict=True)]
    error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return fmean(gains) > error
