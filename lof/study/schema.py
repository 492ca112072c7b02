"""The schema of studies. Every default stands here."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator, model_validator

from lof.codecs import DEFAULT_CODEC
from lof.profiles import NUMBER, WHOLE, Profile, parse_profile

GAINS = ("cost", "bd-rate")
EFFORTS = ("gradient-evaluations", "seconds")

Count = Annotated[int, Field(ge=1), WHOLE]
Seed = Annotated[int, Field(ge=0, lt=2**31), WHOLE]
Number = Annotated[int | float, NUMBER]
Value = bool | int | float | str


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Crops(_Model):
    """Which pictures count: ``n`` of the images, evenly spread over them, cut to their centre."""

    n: Count | None = None
    """All of them if absent."""
    size: Count | None = 192
    """Side of the square in pixels."""


class Sampler(_Model):
    """Where the next trial is looked for: one of Optuna's samplers."""

    kind: Literal["tpe", "nsga2", "random"] = "tpe"
    multivariate: StrictBool = True
    """TPE: model the parameters together."""
    startup: Count = 10
    """TPE: trials at random before the model is used. NSGA-II: size of the population."""
    seed: Seed = 0


class Pruner(_Model):
    """Which trials are stopped early, by their running gain: one of Optuna's pruners.

    With two objectives, which Optuna's pruners do not know, any kind but ``none`` stops a trial whose running
    gain is behind that of a finished trial with no more gradient evaluations.
    """

    kind: Literal["median", "hyperband", "none"] = "median"
    startup: Count = 5
    """Finished trials before any is stopped."""
    warmup: Annotated[int, Field(ge=0), WHOLE] = 3
    """Steps of a trial before it may be stopped; a step is one image (or batch) at one rate point."""


class Range(_Model):
    """What one parameter may be: a value of the base profile, or how two stages share their evaluations."""

    path: str | None = None
    """Key of the profile, for example ``stage.0.learning_rate_of.z`` or ``stage.0.betas.1``."""
    split: tuple[str, str] | None = None
    """Two integer keys whose sum stays; the parameter is the share of the first."""
    low: Number | None = None
    high: Number | None = None
    log: StrictBool = False
    step: Number | None = None
    """From ``low``; the last value is the highest that it reaches."""
    choices: tuple[Value, ...] | None = None

    @property
    def name(self) -> str:
        """The parameter's name in the study."""
        return self.path if self.path is not None else ":".join(self.split or ())

    @property
    def ends(self) -> tuple[Value, ...]:
        """Values that must be possible: both ends, or every choice."""
        return self.choices or tuple(value for value in (self.low, self.high) if value is not None)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.path is None) == (self.split is None):
            raise ValueError("give either path or split")
        if self.choices is not None:
            if any((self.low is not None, self.high is not None, self.log, self.step, self.split)):
                raise ValueError(f"{self.name}: choices go with path alone, without low, high, log and step")
            if len(set(map(repr, self.choices))) < max(2, len(self.choices)):
                raise ValueError(f"{self.name}: choices are two or more different values")
            return self
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(f"{self.name}: needs low and high, with low < high, or choices")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"{self.name}: log needs low > 0 and no step")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"{self.name}: step must be above 0 and at most high - low")
        if self.split is not None and not 0 <= self.low < self.high <= 1:
            raise ValueError(f"{self.name}: a share is in 0…1")
        return self


class Study(_Model):
    """What is searched, on which images, and what counts.

    Once loaded it stands alone: ``base`` is a whole profile, ``enqueue`` holds whole points of the space,
    and ``images`` are absolute.
    """

    name: Annotated[str, Field(min_length=1, max_length=48)]
    """Name of the study in its storage, and of the profiles that it finds."""
    codec: str = DEFAULT_CODEC
    metric: Literal["mse", "ms-ssim"] = "mse"
    qualities: tuple[Annotated[float, Field(gt=0), NUMBER], ...] = ()
    """Rate points; the codec's default one if empty."""
    weights: str | None = None
    """Folder with weights, for codecs that do not ship."""
    images: tuple[str, ...] = ()
    """Files, folders and globs; relative to the folder of the study's file."""
    crops: Crops = Crops()
    batch: Count = 1
    """Images of one size that are searched at once; more than 1 pays on a GPU, and for small crops on a CPU too."""
    seed: Seed = 0
    """Seed of the searches."""
    storage: str | None = None
    """URL of the database; a SQLite file beside the study's file if absent."""
    trials: Count = 100
    """Finished trials, of all processes together."""
    objectives: Annotated[
        tuple[Literal["cost", "bd-rate", "gradient-evaluations", "seconds"], ...],
        Field(min_length=1, max_length=2),
    ] = ("cost",)
    """A gain, ``cost`` or ``bd-rate``, and, if wanted, what it takes."""
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()
    base: str | dict[str, Any] = "medium"
    """The profile that trials change: a shipped one, a TOML file, or a table of a profile."""
    enqueue: tuple[str | dict[str, Value], ...] = ()
    """Tried first: ``base``, profiles with the same stages, or tables of parameters (the rest from base)."""
    space: Annotated[tuple[Range, ...], Field(min_length=1)]

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
            raise ValueError("letters, digits, '-', '_' and '.' only, and no '.' at its start")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        gain, *effort = self.objectives
        if gain not in GAINS or any(name not in EFFORTS for name in effort):
            raise ValueError(f"objectives: {' or '.join(GAINS)}, then, if wanted, {' or '.join(EFFORTS)}")
        names = [entry.name for entry in self.space]
        if len(set(names)) != len(names):
            raise ValueError("space: each parameter once")
        if len(set(self.qualities)) != len(self.qualities):
            raise ValueError("qualities: each rate point once")
        if gain == "bd-rate" and (len(self.qualities) < 2 or self.metric != "mse"):
            raise ValueError("objectives: bd-rate needs two qualities or more, and metric mse; use cost")
        return self

    @property
    def url(self) -> str:
        """URL of the storage."""
        return self.storage or "sqlite:///study.db"

    @property
    def points(self) -> list[dict[str, Value]]:
        """What is enqueued; of a loaded study only."""
        return [point for point in self.enqueue if isinstance(point, dict)]

    @property
    def profile(self) -> Profile:
        """The base profile; of a loaded study only."""
        return parse_profile({"name": self.name} | dict(self.base), f"study {self.name}: base")  # type: ignore[arg-type]
