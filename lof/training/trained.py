"""Weights that a training run left behind, whoever ran it, with what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lof.codecs import CodecSpec, codec_spec, codec_specs, trainable
from lof.errors import TrainingError
from lof.training.checkpoint import FORMAT, Checkpoint, read_torch_file
from lof.training.recipe import parse_recipe


@dataclass(frozen=True)
class Trained:
    """Averaged weights of one rate point.

    Attributes:
        state: ``state_dict`` with the moving averages in place of the parameters.
        history: for the model card: steps, seconds, data, hardware, as far as known, in words.
    """

    path: Path
    state: dict[str, Tensor]
    codec: str | None
    metric: str
    quality: float | None
    lmbda: float | None
    sizes: tuple[int, ...]
    history: Mapping[str, str]

    @property
    def spec(self) -> CodecSpec:
        """The registered codec.

        Raises:
            TrainingError: it is not known which one.
        """
        if self.codec is None:
            raise TrainingError(f"{self.path}: no registered codec has its sizes; name one with --codec")
        return codec_spec(self.codec)


def read_trained(path: Path) -> Trained:
    """Read a checkpoint of :func:`lof.training.train`, any ``{"sd", "ema", "args"}`` file, or safetensors.

    Raises:
        TrainingError: it cannot be read, or holds no weights.
    """
    if path.suffix == ".safetensors":
        return _from_safetensors(path)
    content = read_torch_file(path)
    if content.get("format") == FORMAT:
        return _from_checkpoint(path, Checkpoint(**{k: v for k, v in content.items() if k != "format"}))
    state = content.get("sd", content.get("state_dict"))
    if not isinstance(state, dict):
        raise TrainingError(f"{path}: holds no weights; name a checkpoint")
    averages = content.get("ema", {})
    return _from_script(path, {**state, **averages}, content)


def quality_of(lmbda: float, metric: str) -> float | None:
    """The quality at which registered codecs have this λ, if any does."""
    points = (item for spec in codec_specs(hidden=True) for item in spec.rate_points.items())
    return next(
        (
            quality
            for (known, quality), point in points
            if known == metric and abs(point.lmbda / lmbda - 1) < 0.01
        ),
        None,
    )


def _from_checkpoint(path: Path, checkpoint: Checkpoint) -> Trained:
    recipe = parse_recipe(checkpoint.recipe, str(path))
    rung = recipe.rung[checkpoint.rung]
    about = checkpoint.about
    earlier = sum(r.steps for r in recipe.rung[: checkpoint.rung])
    return Trained(
        path=path,
        state=checkpoint.sd | checkpoint.ema,
        codec=recipe.codec,
        metric=recipe.metric,
        quality=rung.quality,
        lmbda=rung.lmbda,
        sizes=recipe.sizes,
        history={
            "steps": f"{checkpoint.step} of {rung.steps}"
            + (f", after {earlier} of the rungs above" if earlier else ""),
            "batch": f"{recipe.batch} crops of {recipe.crop}×{recipe.crop}"
            + (f", transforms of {recipe.frozen}, frozen" if recipe.frozen else ""),
            "data": f"{about['pictures']} pictures, {about['pixels'] / 1e6:.0f} megapixels",
            "hardware": f"{about['hardware']}, {about['precision']}",
            "time": f"{checkpoint.seconds / 3600:.2f} h",
        },
    )


def _from_script(path: Path, state: dict[str, Tensor], content: Mapping[str, Any]) -> Trained:
    arguments: Mapping[str, Any] = content.get("args", {})
    history: dict[str, str] = {}
    if "step" in content:
        history["steps"] = str(content["step"])
    if "batch" in arguments and "crop" in arguments:
        history["batch"] = f"{arguments['batch']} crops of {arguments['crop']}×{arguments['crop']}"
    if "spent" in content:
        history["time"] = f"{content['spent'] / 60:.2f} h"
    lmbda = arguments.get("lmbda")
    codec, sizes = _codec_of(state)
    return Trained(
        path=path,
        state=state,
        codec=codec,
        metric="mse",
        quality=None if lmbda is None else quality_of(lmbda, "mse"),
        lmbda=lmbda,
        sizes=sizes,
        history=history,
    )


def _from_safetensors(path: Path) -> Trained:
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            about = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: cannot be read as weights ({error}); name another file") from error
    full = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    lmbda = float(about["lambda"]) if "lambda" in about else None
    codec, sizes = _codec_of(full)
    quality = None if lmbda is None else quality_of(lmbda, "mse")
    return Trained(path, full, codec, "mse", quality, lmbda, sizes, {})


def _codec_of(state: Mapping[str, Tensor]) -> tuple[str | None, tuple[int, ...]]:
    """The codec that ships with lof whose network has exactly these parameters, and its sizes."""
    sizes: tuple[int, ...] = ()
    for spec in codec_specs(hidden=True):
        if spec.source != "bundled":
            continue
        family = trainable(spec.name)
        sizes = family.sizes_in(state) or sizes
        shipped, _ = family.read(None, *next(iter(spec.rate_points)))
        if family.sizes_in(state) and family.sizes_in(state) == family.sizes_in(shipped):
            parameters = {name for name, _ in family.network(*family.sizes_in(state)).named_parameters()}
            if parameters <= state.keys():
                return spec.name, family.sizes_in(state)
    return None, sizes
