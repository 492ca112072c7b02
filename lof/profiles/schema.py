"""What a profile may say: its stages, their settings, defaults and limits.

Every default stands here and nowhere else; ``lof profiles`` prints from these models.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic_core import PydanticKnownError

STAGE_KINDS = ("relax", "mean-field", "greedy-gradient", "greedy-flip", "own")


def _number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise PydanticKnownError("float_type")
    return value


def _whole_number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise PydanticKnownError("int_type")
    return value


NUMBER, WHOLE = BeforeValidator(_number), BeforeValidator(_whole_number)
"""Last in a type of numbers, for which pydantic would else take text and, as 0 and 1, truth values."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), NUMBER]
Count = Annotated[int, Field(ge=1), WHOLE]
_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False), NUMBER]
_Rate = Annotated[float, Field(gt=0, le=10), NUMBER]
_Share = Annotated[float, Field(ge=0, le=1), NUMBER]
_SomeShare = Annotated[float, Field(gt=0, le=1), NUMBER]
_PartShare = Annotated[float, Field(ge=0, lt=1), NUMBER]
_Factor = Annotated[float, Field(gt=0, lt=1), NUMBER]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _StageModel(_Model):
    evaluations: Annotated[int, Field(ge=1, le=100_000), WHOLE]

    @property
    def budget(self) -> int:
        """Gradient evaluations of this stage, at most."""
        return self.evaluations

    @property
    def rate_steps(self) -> int:
        """Steps that need the rate's gradient."""
        return self.evaluations


class Schedule(_Model):
    """A value that moves from ``start`` to ``end`` over a stage.

    ``hold`` is the share of the stage spent at ``start`` before it moves.
    """

    start: Positive
    end: Positive
    shape: Literal["linear", "cosine", "exponential"] = "cosine"
    hold: _PartShare = 0.0


class Ramp(_Model):
    """A value that moves linearly from ``start`` to ``end``, reached at the share ``reached`` of the stage."""

    start: _Weight
    end: _Weight
    reached: _SomeShare = 1.0


class RelaxStage(_StageModel):
    """Gradient descent (Adam) on relaxed latents; the true cost is checked on the way and the best is kept."""

    kind: Literal["relax"]
    relaxation: Literal["noise", "ste", "soft-round", "noisy-soft-round", "sga", "ssl", "ssl3"] = "soft-round"
    temperature: Schedule = Schedule(start=1.0, end=0.1, shape="exponential")
    learning_rate: _Rate = 0.3
    """In units of one quantisation step."""
    learning_rate_of: dict[str, _Rate] = {}
    """Other learning rates by latent tensor, for example ``{ z = 0.1 }``."""
    decay: Schedule = Schedule(start=1.0, end=0.01, shape="cosine")
    """Factor on the learning rates over the stage."""
    betas: tuple[_PartShare, _PartShare] = (0.9, 0.999)
    check_every: Count = 20
    """Gradient evaluations between two checks of the true cost; the stage always ends with one."""
    patience: Count | None = None
    """Checks without a better true cost after which the stage ends; never if absent."""


class MeanFieldStage(_StageModel):
    """Gradient descent (Adam) on the expected true cost under stochastic rounding: :mod:`lof.search.mean_field`."""

    kind: Literal["mean-field"]
    steps: Annotated[int, Field(ge=1, le=100), WHOLE] = 4
    """Steps per gradient evaluation: in between, the distortion is extrapolated and only the rate is exact."""
    walk_every: Count = 1
    """Steps for each walk of the probability model: in between, what elements tell of one another is extrapolated.

    With more than 1, only the first walk after a gradient evaluation finds gradients once side latents are rounded.
    """
    learning_rate: _Rate = 0.1
    """In units of one quantisation step."""
    learning_rate_of: dict[str, _Rate] = {"z": 0.4}
    """Other learning rates by latent tensor."""
    longest: Positive = 4.0
    """Bound on a channel's learning rate, in changes of an element that cost half a bit; lower is more careful."""
    tolerance: _Share = 0.05
    """Relative rise of the expected cost at which an image goes back to its best point, with steps half as long."""
    decay: Schedule = Schedule(start=1.0, end=0.2, shape="cosine")
    """Factor on the learning rates over the stage."""
    betas: tuple[_PartShare, _PartShare] = (0.8, 0.9)
    variance: Ramp = Ramp(start=0.0, end=1.0, reached=0.9)
    """Weight of the rounding variance in the expected distortion."""
    side: Schedule = Schedule(start=1.0, end=0.01, shape="exponential")
    """Temperature of the soft rounding of the latents that are not synthesised (a hyperprior's z)."""
    side_until: _SomeShare = 0.95
    """Share of the stage after which those latents are rounded for good, so that the rest fits to their integers."""
    fraction: _Share = 0.35
    """Share of its distance from the nearest integer with which each element starts; 1 starts at the latents."""
    curvature_every: Count = 100
    """Evaluations between two measurements of the curvature; the first always measures it."""
    check_every: Count = 20
    patience: Count | None = None

    @property
    def budget(self) -> int:
        """One gradient evaluation more for each measurement of the curvature."""
        return self.evaluations + -(-self.evaluations // self.curvature_every)

    @property
    def rate_steps(self) -> int:
        """``steps`` for each evaluation."""
        return self.evaluations * self.steps


class GreedyGradientStage(_StageModel):
    """Gradient steps under hard rounding at falling step sizes; only what lowers the true cost is kept.

    After Zhang et al. 2022: the learning rate falls when steps fail, patience ends the stage.
    """

    kind: Literal["greedy-gradient"]
    learning_rate: _Rate = 0.1
    shrink: _Factor = 0.5
    patience: Count = 6
    """Failed steps in a row that end the stage."""


class GreedyFlipStage(_StageModel):
    """Changes of single symbols by ±1, those with the highest predicted gain first, each batch checked.

    The predicted gain of an element is the exact change of its own rate plus a quadratic model of all else.
    """

    kind: Literal["greedy-flip"]
    share: _SomeShare = 0.5
    """Share of the elements with a predicted gain that is flipped at once at first."""
    shrink: _Factor = 0.5
    """Factor on the share after a batch of flips that failed."""
    patience: Count = 6


class OwnStage(_StageModel):
    """The codec's own search, for codecs that have one; the others skip it."""

    kind: Literal["own"]


Stage = Annotated[
    RelaxStage | MeanFieldStage | GreedyGradientStage | GreedyFlipStage | OwnStage,
    Field(discriminator="kind"),
]


class Profile(_Model):
    """A named list of stages. ``digest`` identifies its content."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    summary: str = ""
    stop_below: _PartShare = 0.0
    """Relative gain of a stage below which the stages after it are skipped."""
    stage: Annotated[tuple[Stage, ...], Field(min_length=1)]

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not all(c.isalnum() or c in "-_.+ " for c in name):
            raise ValueError("letters, digits, '-', '_', '.', '+' and spaces only")
        return name

    @property
    def evaluations(self) -> int:
        """The budget: gradient evaluations of all stages together, at most."""
        return sum(stage.budget for stage in self.stage)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over everything that changes what a search finds."""
        content = self.model_dump_json(exclude={"name", "summary"})
        return hashlib.sha256(content.encode()).hexdigest()[:16]
