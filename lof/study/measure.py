"""What a profile is worth on the images of a study: real files, measured as the decoder sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lof
from lof.errors import StudyError
from lof.files.inputs import find
from lof.pictures.batches import Image, batches, spread
from lof.profiles import Profile
from lof.report.rate_distortion import Curve, bjontegaard_deltas
from lof.results import Result
from lof.study.schema import Study

if TYPE_CHECKING:
    from lof.codecs import Codec

OnStep = Callable[[int, float], bool]
"""Called with the number of the step (from 1) and the running gain; true ends the measurement."""


@dataclass(frozen=True)
class Figures:
    """A profile in figures, over all images and rate points.

    Attributes:
        cost: mean relative change of the true cost ``bpp + λ·D`` against the plain encoding; each image
            counts the same at each rate point.
        bd_rate: mean over images, against the plain encoding; ``None`` with one rate point, and where an
            image's curve does not rise.
        evaluations, seconds: per image and rate point.
    """

    cost: float
    bd_rate: float | None
    evaluations: float
    seconds: float

    def value(self, objective: str) -> float | None:
        """The figure that an objective of a study means."""
        return {
            "cost": self.cost,
            "bd-rate": self.bd_rate,
            "gradient-evaluations": self.evaluations,
            "seconds": self.seconds,
        }[objective]


@dataclass(frozen=True)
class Measurement:
    """``figures`` is ``None`` for one that was stopped; ``running`` holds the gain after each step."""

    figures: Figures | None
    running: list[float]


class Bench:
    """The images of a study and its codecs, in memory.

    Steps go image by image (or batch by batch) through all rate points, in an order that never changes, so
    that the running gains of two trials can be compared step by step.

    Raises:
        LofError: a codec or its weights cannot be had.
    """

    def __init__(self, study: Study, images: Sequence[list[Image]], device: str = "auto") -> None:
        self.study, self.images = study, images
        self.codecs: list[Codec] = [
            lof.load_codec(study.codec, quality, metric=study.metric, weights=study.weights, device=device)
            for quality in study.qualities
        ]

    @property
    def steps(self) -> int:
        """Steps of a whole measurement."""
        return len(self.images) * len(self.codecs)

    def measure(self, profile: Profile, on_step: OnStep = lambda step, gain: False) -> Measurement:
        """Run a profile on all images at all rate points.

        Raises:
            LofError: the search cannot run on an image.
        """
        running: list[float] = []
        gains: list[float] = []
        curves: list[list[Result]] = []
        for batch in self.images:
            pictures = [image.picture for image in batch]
            found: list[list[Result]] = []
            for codec in self.codecs:
                results = lof.optimize_batch(pictures, codec, profile, seed=self.study.seed)
                found.append(results)
                gains += [result.optimised.cost / result.baseline.cost - 1 for result in results]
                running.append(_mean(gains))
                if on_step(len(running), running[-1]):
                    return Measurement(None, running)
            curves += [list(results) for results in zip(*found, strict=True)]
        return Measurement(_figures(curves, running[-1]), running)

    def identity(self) -> dict[str, object]:
        """What decides the figures besides the profile: trials of one study must share it."""
        study = self.study
        fingerprints = {str(codec.quality): codec.fingerprint.hex()[:16] for codec in self.codecs}
        return {
            "codec": study.codec,
            "metric": study.metric,
            "qualities": list(study.qualities),
            "weights": fingerprints,
            "images": {image.name: image.digest[:16] for batch in self.images for image in batch},
            "batch": study.batch,
            "seed": study.seed,
            "objectives": list(study.objectives),
            "base": study.base,
            "space": {entry.name: entry.model_dump(mode="json") for entry in study.space},
        }


def read_images(study: Study, instead: Sequence[str] = ()) -> list[list[Image]]:
    """The crops that a study is measured on, in batches of one size.

    Args:
        instead: images, folders and globs that take the place of the study's.

    Raises:
        StudyError: the study names no images.
        LofError: an image does not exist or cannot be read.
    """
    named = list(instead) or list(study.images)
    if not named:
        raise StudyError(f"study {study.name}: names no images; set images = [...] or give --images")
    sources = spread(find(named).sources, study.crops.n)
    return list(batches(sources, study.crops.size, study.batch))


def _figures(curves: Sequence[Sequence[Result]], gain: float) -> Figures:
    results = [result for curve in curves for result in curve]
    return Figures(
        cost=gain,
        bd_rate=_bd_rate(curves),
        evaluations=_mean([result.evaluations for result in results]),
        seconds=_mean([result.seconds for result in results]),
    )


def _bd_rate(curves: Sequence[Sequence[Result]]) -> float | None:
    rates = []
    for results in curves:
        plain: Curve = [(r.baseline.bpp, r.baseline.psnr) for r in results]
        found: Curve = [(r.optimised.bpp, r.optimised.psnr) for r in results]
        delta = bjontegaard_deltas(plain, found)
        if delta is None:
            return None
        rates.append(delta[0])
    return _mean(rates)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
