"""Recipes: what to train and how, as TOML files with one schema. Every default stands here."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from os.path import isfile
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from lof.codecs import CodecSpec, Points, RatePoint, codec_spec, recipes
from lof.codecs.rates import check_rates
from lof.codecs.training import Aim
from lof.errors import TrainingError, UnknownCodecError
from lof.machine.devices import resolve_precision
from lof.profiles import NUMBER, WHOLE, describe_validation, read_toml

MS_SSIM_MIN_CROP = 192
"""Five scales of an 11-pixel window need more than 160 pixels; crops are multiples of 64."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), NUMBER]
Share = Annotated[float, Field(ge=0, lt=1), NUMBER]
Count = Annotated[int, Field(ge=1), WHOLE]
Crop = Annotated[int, Field(ge=64, multiple_of=64), WHOLE]

_FREE = {"name", "data", "checkpoint_minutes", "qualities"}
"""What may change from one call of a run to the next."""
_SINCE: Mapping[str, Any] = {"varied": 0.0}
"""Keys that older checkpoints lack, and what they stood for."""
_ALLOWED = "the keys are those of the shipped recipes"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Model):
    """Folders of photographs; the training and the validation pictures must not overlap."""

    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    validation_images: Count = 8
    """At most so many of the validation pictures are measured, evenly spread over them."""
    latents: str | None = None
    """Folder that keeps the latents of frozen transforms from one run to the next."""


class Schedule(_Model):
    """Learning rate over the steps of a rung: linear warm-up, plateau, cosine decay to ``final`` of it."""

    warmup: Annotated[int, Field(ge=0), WHOLE] = 200
    hold: Share = 0.4
    """Share of the steps before the decay starts."""
    final: Annotated[float, Field(ge=0, le=1), NUMBER] = 0.01
    """1 for no decay."""


class Crops(_Model):
    """Crops of another size, from a share of a rung's steps on."""

    after: Share
    crop: Crop
    batch: Count


class Rung(_Model):
    """One training of the network: of one rate point, or of all rates where one network serves them."""

    quality: Positive | None = None
    """One that files can state."""
    lmbda: Positive | None = None
    """λ of the loss ``bpp + λ·D``; D is ``255²·MSE``, or ``1 - MS-SSIM``."""
    steps: Count
    learning_rate: Positive = 4e-4
    part: str | None = None
    """The part of the network that is trained, as its family calls it; all of it if left out."""
    schedule: Schedule | None = None
    """In place of the recipe's."""
    then: tuple[Crops, ...] = ()
    """In place of the recipe's ``crop`` and ``batch``, in the order of ``after``."""


class Recipe(_Model):
    """Rungs, one after another: each starts from the averaged weights of the one before it.

    Rate points come highest rate first.
    """

    name: Annotated[str, Field(min_length=1, max_length=64)]
    codec: str
    """Name in the registry; its family gives the architecture."""
    network: dict[str, Count | tuple[Count, ...]] = {}
    """Sizes by name, as the family has them, where they are not the codec's own."""
    metric: Literal["mse", "ms-ssim"] = "mse"
    rung: Annotated[tuple[Rung, ...], Field(min_length=1)]
    schedule: Schedule = Schedule()
    data: Data = Data()
    frozen: str | None = None
    """Codec whose transforms are taken, at each rung's quality, and left as they are; only the probability model
    is trained, on the latents of all pictures."""
    init: str | None = None
    """Weights to start the first rung from: a checkpoint or a safetensors file."""
    crop: Crop = 256
    batch: Count = 16
    """Crops per step, over all workers together."""
    varied: Annotated[float, Field(ge=0, le=1), NUMBER] = 0.0
    """Share of the crops that look like cuts of other photographs, see :mod:`lof.training.variation`."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Precision of the transforms; ``auto`` takes bf16 where the hardware computes in it."""
    compile: StrictBool = True
    """Compile the step and capture it as a graph; on CUDA only, the CPU always runs eagerly."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay rates of Adam's two moments."""
    clip: Positive = 1.0
    """Largest gradient norm."""
    ema: Share = 0.9995
    """Decay of the weights' moving average, which is what ships."""
    seed: Annotated[int, Field(ge=0, lt=2**31), WHOLE] = 0
    diverged: Annotated[float, Field(gt=1), NUMBER] = 5.0
    """The run stops when the mean loss of ``log_every`` steps is over this many times the lowest one."""
    log_every: Count = 50
    validate_every: Count = 5000
    qualities: tuple[Positive, ...] = ()
    """To validate at, where one network serves all; whole qualities if left out."""
    checkpoint_minutes: Positive = 2.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        lambdas = [rung.lmbda for rung in self.rung if rung.lmbda is not None]
        if any(later >= earlier for earlier, later in pairwise(lambdas)):
            raise ValueError("rung: λ must fall from one rung to the next (the highest rate first)")
        qualities = [rung.quality for rung in self.rung if rung.quality is not None]
        if len(set(qualities)) != len(qualities):
            raise ValueError("rung: each quality once")
        if self.frozen and self.init:
            raise ValueError("init: has no place beside frozen, which brings the transforms")
        if self.frozen and self.varied:
            raise ValueError("varied: has no place beside frozen, which keeps the latents of the pictures")
        if self.metric == "ms-ssim" and min(self.crop_sides) < MS_SSIM_MIN_CROP:
            raise ValueError(f"crop: ms-ssim needs at least {MS_SSIM_MIN_CROP}")
        return self

    def continues(self, recorded: Mapping[str, Any]) -> bool:
        """Whether a run may go on whose checkpoint holds this recipe; where it is validated changes nothing learned."""
        own, recorded = self.model_dump(mode="json"), {**_SINCE, **recorded}
        return all(own.get(key) == recorded.get(key) for key in (own.keys() | recorded.keys()) - _FREE)

    @property
    def spec(self) -> CodecSpec:
        """The registered codec."""
        return codec_spec(self.codec)

    @property
    def largest_crop(self) -> int:
        """No picture that is trained on may be smaller."""
        return max(self.crop_sides)

    @property
    def crop_sides(self) -> list[int]:
        """Of all crops, in pixels."""
        return [self.crop, *(crops.crop for rung in self.rung for crops in rung.then)]

    @property
    def checkpoints(self) -> list[str]:
        """The names of the rungs' checkpoints."""
        return [
            f"rung-{index}.pt" if rung.quality is None else f"quality-{rung.quality:.10g}.pt"
            for index, rung in enumerate(self.rung, start=1)
        ]

    def title(self, index: int) -> str:
        """A rung in words."""
        rung = self.rung[index]
        return f"quality {rung.quality:.10g}" if rung.quality is not None else f"rung {index + 1}"

    def rates(self, rung: Rung) -> tuple[float, ...]:
        """Qualities to validate a rung at."""
        if rung.quality is not None:
            return (rung.quality,)
        return self.qualities or tuple(quality for _, quality in self.spec.rate_points)

    def check_shared(self, workers: int) -> None:
        """Raise :class:`TrainingError` where so many workers cannot share a batch."""
        for batch in (self.batch, *(crops.batch for rung in self.rung for crops in rung.then)):
            if batch % workers:
                raise TrainingError(
                    f"recipe {self.name}: batch {batch} cannot be shared by {workers} workers"
                )

    def precision_on(self, device: torch.device) -> torch.dtype:
        """``precision`` on a device."""
        return resolve_precision(self.precision, device)

    def aim(self, rung: Rung, precision: torch.dtype) -> Aim:
        """What a rung asks of the codec's family."""
        return Aim(self.metric, rung.quality, rung.lmbda, precision, self.frozen, rung.part)

    def crops(self, rung: Rung, step: int) -> tuple[int, int]:
        """Side and number of the crops of the step after ``step`` steps."""
        found = (self.crop, self.batch)
        for crops in rung.then:
            if step >= crops.after * rung.steps:
                found = (crops.crop, crops.batch)
        return found

    def crops_until(self, rung: Rung, step: int) -> list[tuple[int, int]]:
        """Side and number of the crops of the first ``step`` steps, at least one, in order."""
        starts = sorted({0, *(math.ceil(crops.after * rung.steps) for crops in rung.then)})
        return [
            found for found, _ in groupby(self.crops(rung, start) for start in starts if start < max(1, step))
        ]

    def with_data(
        self, train: Sequence[Path], validation: Sequence[Path], init: Path | None = None
    ) -> Recipe:
        """The recipe with other folders, and other weights to start from, where some are given.

        Raises:
            TrainingError: it takes no weights to start from.
        """
        content = self.model_dump()
        if train:
            content["data"]["train"] = tuple(map(str, train))
        if validation:
            content["data"]["validation"] = tuple(map(str, validation))
        if init is not None:
            content["init"] = str(init)
        return parse_recipe(content, f"recipe {self.name}")


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A shipped recipe by name, or any by the path of its TOML file.

    Raises:
        TrainingError: there is none, or it does not fit the schema; the message names file and key.
    """
    text, shipped = str(name_or_path), recipes()
    if text in shipped:
        return _parse(shipped[text])
    path = Path(text)
    if path.suffix == ".toml" or isfile(path):
        return _parse(path)
    near = difflib.get_close_matches(text, shipped, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"use {', '.join(shipped)} or the path of a TOML file"
    raise TrainingError(f"recipe {text!r}: unknown; {hint}")


def parse_recipe(content: dict[str, Any], origin: str = "recipe") -> Recipe:
    """A recipe from already parsed TOML or any dictionary; ``origin`` is what errors call it.

    Raises:
        TrainingError: it does not fit the schema or the codec, names a codec that is not registered or a quality
            that no file can state, or its later crops are out of order.
    """
    recipe = recorded_recipe(content, origin)
    if recipe.spec.rates.one_network:
        _check_validation(recipe, origin)
    for index, rung in enumerate(recipe.rung):
        if rung.quality is not None and rung.lmbda is not None:
            check_rate(recipe.metric, rung.quality, rung.lmbda, f"{origin}: rung[{index}]")
        if any(later.after <= earlier.after for earlier, later in pairwise(rung.then)):
            raise TrainingError(f"{origin}: rung[{index}].then: after must rise from one entry to the next")
    return recipe


def recorded_recipe(content: dict[str, Any], origin: str) -> Recipe:
    """The recipe in a checkpoint: what is learned is worth having, even where it could not be trained again.

    Raises:
        TrainingError: it does not fit the schema or the codec, or names a codec that is not registered.
    """
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise TrainingError(f"{origin}: {describe_validation(error, content, _ALLOWED)}") from error
    for key, codec in (("codec", recipe.codec), ("frozen", recipe.frozen or recipe.codec)):
        try:
            codec_spec(codec)
        except UnknownCodecError as error:
            raise TrainingError(f"{origin}: {key}: {error}") from error
    one_network = recipe.spec.rates.one_network
    for index, rung in enumerate(recipe.rung):
        given = {rung.quality is not None, rung.lmbda is not None}
        if one_network and given != {False}:
            why = f"{recipe.codec} has one network for all qualities; leave quality and lmbda out"
            raise TrainingError(f"{origin}: rung[{index}]: {why}")
        if not one_network and given != {True}:
            raise TrainingError(f"{origin}: rung[{index}]: give quality and lmbda")
    if recipe.qualities and not one_network:
        raise TrainingError(f"{origin}: qualities: {recipe.codec} has one network per quality; leave it out")
    return recipe


def check_rate(metric: str, quality: float, lmbda: float, origin: str) -> None:
    """Refuse with a :class:`TrainingError` what no codec can be registered with and no file can state."""
    try:
        check_rates(Points({(metric, quality): RatePoint(lmbda)}))
    except ValueError as error:
        raise TrainingError(f"{origin}: {error}") from error


def _check_validation(recipe: Recipe, origin: str) -> None:
    """What validation would find only after hours of training."""
    asked = [("metric", recipe.spec.default_quality), *(("qualities", rate) for rate in recipe.qualities)]
    for key, quality in asked:
        try:
            recipe.spec.rate_point(recipe.metric, quality)
        except UnknownCodecError as error:
            raise TrainingError(f"{origin}: {key}: {error}") from error


def _parse(path: Path) -> Recipe:
    return parse_recipe(read_toml(path, TrainingError, "name a recipe in TOML"), str(path))
