"""What a profile is worth on the images of a study: real files, measured as the decoder sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import lof
from lof.codecs import codec_spec
from lof.errors import LofError, StudyError
from lof.files.inputs import find
from lof.pictures.batches import Image, batches, spread
from lof.profiles import Profile
from lof.report.rate_distortion import bjontegaard_deltas, rises
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
        value: float | None = getattr(self, objective.removeprefix("gradient-").replace("-", "_"))
        return value


@dataclass(frozen=True)
class Measurement:
    """``figures`` is ``None`` for one that was stopped; ``running`` holds the gain after each step.

    ``flat`` names the image to blame where there is no BD-rate: its curve after the search does not rise.
    """

    figures: Figures | None
    running: list[float]
    flat: str | None = None


class Bench:
    """The images of a study and its codecs, in memory.

    Steps go image by image (or batch by batch) through all rate points, in an order that never changes, so
    that the running gains of two trials can be compared step by step.

    Raises:
        LofError: a codec or its weights cannot be had.
    """

    def __init__(self, study: Study, images: Sequence[list[Image]], device: str = "auto") -> None:
        self.study, self.images = study, images
        made_for = codec_spec(study.codec).made_for(study.metric)
        self.codecs: list[Codec] = [
            lof.load_codec(study.codec, quality, metric=made_for, weights=study.weights, device=device)
            for quality in study.qualities
        ]

    @property
    def steps(self) -> int:
        """Steps of a whole measurement."""
        return len(self.images) * len(self.codecs)

    def measure(self, profile: Profile, on_step: OnStep = lambda step, gain: False) -> Measurement:
        """Run a profile on all images at all rate points.

        Raises:
            StudyError: BD-rate is an objective, and the plain encodings of an image have none.
            LofError: the search cannot run on an image. Both name the image.
        """
        running: list[float] = []
        results: list[Result] = []
        rates: dict[str, float | None] = {}
        for batch in self.images:
            found: list[list[Result]] = []
            for codec in self.codecs:
                found.append(self._search(batch, codec, profile))
                results += found[-1]
                running.append(fmean(result.optimised.cost / result.baseline.cost - 1 for result in results))
                if on_step(len(running), running[-1]):
                    return Measurement(None, running)
            rates |= {
                image.name: self._bd_rate(image, curve) for image, *curve in zip(batch, *found, strict=True)
            }
        flat = next((name for name, rate in rates.items() if rate is None), None)
        figures = Figures(
            cost=running[-1],
            bd_rate=None if flat is not None else fmean(rate for rate in rates.values() if rate is not None),
            evaluations=fmean(result.evaluations for result in results),
            seconds=fmean(result.seconds for result in results),
        )
        return Measurement(figures, running, flat)

    def _search(self, batch: list[Image], codec: Codec, profile: Profile) -> list[Result]:
        try:
            pictures = [image.picture for image in batch]
            # Widening comes after any search and is no part of a profile.
            return lof.optimize_batch(
                pictures, codec, profile, metric=self.study.metric, seed=self.study.seed, portable=False
            )
        except LofError as error:
            raise type(error)(f"{', '.join(image.name for image in batch)}: {error}") from error

    def _bd_rate(self, image: Image, results: Sequence[Result]) -> float | None:
        plain = [(r.baseline.bpp, r.baseline.psnr) for r in results]
        if "bd-rate" in self.study.objectives and not rises(plain):
            qualities = ", ".join(f"{quality:.10g}" for quality in self.study.qualities)
            raise StudyError(
                f"{image.name}: its plain encodings at quality {qualities} do not "
                "grow in rate and PSNR, so that it has no BD-rate; leave it out, or use the objective cost"
            )
        delta = bjontegaard_deltas(plain, [(r.optimised.bpp, r.optimised.psnr) for r in results])
        return None if delta is None else delta[0]


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
