"""The form of a finished image's record: all that the next run, the displays and the reports take from it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, ValidationError, model_validator

from lof.pictures.formats import FORMATS

_Text = InstanceOf[str]  # names of files may have lone surrogates, which pydantic's own does not take
_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Size = Annotated[int, Field(ge=1, lt=2**53)]
_Number = Annotated[float, Field(ge=-1e30, le=1e30)]  # no NaN, and their sums are finite
_Psnr = Annotated[float, Field(ge=-1)]  # infinity where nothing is lost
_Flat = _Text | bool | int | float | None
_Other = _Flat | list[_Flat] | dict[str, _Flat] | list[dict[str, _Flat]]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    # Keys that other versions have are no fault, but what is nested too deep cannot be written again.
    __pydantic_extra__: dict[str, _Other]


class _Side(_Model):
    size: _Size
    bpp: _Number
    psnr: _Psnr
    cost: _Number
    ms_ssim: _Number | None
    psnr_inside: float | None = None
    psnr_outside: float | None = None


class _Done(_Model):
    state: Literal["done"]
    source: _Text
    output: _Text
    source_size: _Count
    source_sha256: _Text
    output_sha256: _Text
    codec: _Text
    quality: _Number
    profile: _Text
    lambda_: Annotated[_Number, Field(alias="lambda")]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    kept: _Text
    height: _Size
    width: _Size
    baseline: _Side
    optimised: _Side
    rate_change: _Number
    evaluations: _Count
    seconds: _Number
    notes: list[_Text]
    against: dict[_Text, _Count | None] = {}
    target: _Text | None = None
    total: _Size | None = None

    @model_validator(mode="after")
    def _is_shown(self) -> Self:
        """What is shown of one figure needs another."""
        sides, target = (self.baseline, self.optimised), self.target or "bytes"
        if not self.against.keys() <= FORMATS.keys():
            raise ValueError("a format that is not known")
        if self.optimised.psnr_inside is not None and any(
            value is None for side in sides for value in (side.psnr_inside, side.psnr_outside)
        ):
            raise ValueError("a region that was measured in part")
        if target.endswith("inside") and self.optimised.psnr_inside is None:
            raise ValueError("no PSNR inside")
        if not target.endswith(("bytes", "bpp", "dB", "inside")) and self.optimised.ms_ssim is None:
            raise ValueError("no MS-SSIM")
        return self


def is_complete(record: dict[str, Any]) -> bool:
    """Whether a record has all that an image that is done has, each as it should be."""
    try:
        _Done.model_validate(record)
    except ValidationError:
        return False
    return True
