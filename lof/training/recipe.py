"""Recipes: what to train and how, as TOML files with one schema. Every default stands here."""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lof.codecs import CodecSpec, codec_spec
from lof.errors import TrainingError, UnknownCodecError
from lof.profiles import describe_validation

BUILT_IN = (
    "mean-scale-96",
    "msp-fast",
    "msp-base",
    "msp-high",
    "prior-autoregressive",
    "prior-mean-scale",
    "tiny",
)
"""Shipped recipes."""

MS_SSIM_MIN_CROP = 176
"""Five scales of an 11-pixel window need more than 160 pixels; crops are multiples of 16."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


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


class Rung(_Model):
    """One rate point of the ladder."""

    quality: Annotated[int, Field(ge=1, le=255)]
    lmbda: Positive
    """λ of the loss ``bpp + λ·D``; D is ``255²·MSE``, or ``1 - MS-SSIM``."""
    steps: Count
    learning_rate: Positive = 4e-4


class Schedule(_Model):
    """Learning rate over the steps of a rung: linear warm-up, plateau, cosine decay to ``final`` of it."""

    warmup: Annotated[int, Field(ge=0)] = 200
    hold: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Share of the steps before the decay starts."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.01


class Recipe(_Model):
    """A ladder of rate points, highest rate first: each starts from the weights of the one before it.

    ``digest`` identifies everything that changes what is learned.
    """

    name: Annotated[str, Field(min_length=1, max_length=64)]
    codec: str
    """Name in the registry; its class gives the architecture."""
    sizes: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Arguments of the network's constructor, for example ``[N, M]``; for MSP ``MSPConfig.sizes``, where one number
    after the groups is that of the Gaussians in each element's mixture."""
    metric: Literal["mse", "ms-ssim"] = "mse"
    rung: Annotated[tuple[Rung, ...], Field(min_length=1)]
    schedule: Schedule = Schedule()
    data: Data = Data()
    frozen: str | None = None
    """Codec whose transforms are taken, at each rung's quality, and left as they are; only the probability model
    is trained, on the latents of all pictures."""
    init: str | None = None
    """Weights to start the first rung from: a checkpoint or a safetensors file."""
    crop: Annotated[int, Field(ge=64, multiple_of=64)] = 256
    batch: Count = 16
    """Crops per step, over all workers together."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = True
    """Compile the step and capture it as a graph; on CUDA only, the CPU always runs eagerly."""
    quantiles_learning_rate: Positive = 1e-3
    clip: Positive = 1.0
    """Largest gradient norm."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.9995
    """Decay of the weights' moving average, which is what ships."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    diverged: Annotated[float, Field(gt=1)] = 5.0
    """The run stops when the mean loss of ``log_every`` steps is over this many times the lowest one."""
    log_every: Count = 50
    validate_every: Count = 5000
    checkpoint_minutes: Positive = 2.0

    @model_validator(mode="after")
    def _ladder_descends(self) -> Self:
        lambdas = [rung.lmbda for rung in self.rung]
        if any(later >= earlier for earlier, later in pairwise(lambdas)):
            raise ValueError("rung: λ must fall from one rung to the next (the highest rate first)")
        if len({rung.quality for rung in self.rung}) != len(self.rung):
            raise ValueError("rung: each quality once")
        if self.frozen and self.init:
            raise ValueError("init: has no place beside frozen, which brings the transforms")
        if self.metric == "ms-ssim" and self.crop < MS_SSIM_MIN_CROP:
            raise ValueError(f"crop: ms-ssim needs at least {MS_SSIM_MIN_CROP}")
        return self

    @property
    def digest(self) -> str:
        """16 hexadecimal digits; equal for runs that may continue each other."""
        content = self.model_dump_json(exclude={"name", "data", "checkpoint_minutes"})
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def spec(self) -> CodecSpec:
        """The registered codec."""
        return codec_spec(self.codec)

    def with_data(self, train: Sequence[Path], validation: Sequence[Path]) -> Recipe:
        """The recipe with other folders, where some are given."""
        data = self.data.model_dump()
        if train:
            data["train"] = tuple(map(str, train))
        if validation:
            data["validation"] = tuple(map(str, validation))
        return self.model_copy(update={"data": Data(**data)})


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A shipped recipe by name, or any by the path of its TOML file.

    Raises:
        TrainingError: there is none, or it does not fit the schema; the message names file and key.
    """
    text = str(name_or_path)
    if text in BUILT_IN:
        return _parse(Path(str(files("lof.training") / "recipes" / f"{text}.toml")))
    path = Path(text)
    if path.suffix == ".toml" or path.is_file():
        return _parse(path)
    near = difflib.get_close_matches(text, BUILT_IN, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"use {', '.join(BUILT_IN)} or the path of a TOML file"
    raise TrainingError(f"recipe {text!r}: unknown; {hint}")


def parse_recipe(content: dict[str, Any], origin: str = "recipe") -> Recipe:
    """A recipe from already parsed TOML or any dictionary; ``origin`` is what errors call it.

    Raises:
        TrainingError: it does not fit the schema, or names a codec that is not registered.
    """
    try:
        recipe = Recipe.model_validate(content)
        codec_spec(recipe.codec)
        if recipe.frozen:
            codec_spec(recipe.frozen)
    except ValidationError as error:
        raise TrainingError(f"{origin}: {_describe(error)}") from error
    except UnknownCodecError as error:
        raise TrainingError(f"{origin}: codec: {error}") from error
    return recipe


def _describe(error: ValidationError) -> str:
    if error.errors()[0]["type"] == "extra_forbidden":
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        return f"{key}: unknown key; the keys are those of the shipped recipes"
    return describe_validation(error)


def _parse(path: Path) -> Recipe:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise TrainingError(f"{path}: cannot be read ({reason}); name a recipe in TOML") from error
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"{path}: not valid TOML ({error}); correct that line") from error
    content.setdefault("name", path.stem)
    return parse_recipe(content, str(path))
