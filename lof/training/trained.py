"""Weights that a training run left behind, whoever ran it, with what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lof.errors import TrainingError
from lof.files.storage import open_read
from lof.report.figures import plural
from lof.training.checkpoint import FORMAT, Checkpoint, checkpoint_of, read_torch_file
from lof.training.recipe import recorded_recipe


@dataclass(frozen=True)
class Trained:
    """Averaged weights.

    Attributes:
        state: ``state_dict`` with the moving averages in place of the parameters.
        codec: ``None`` where the file does not say it; then nothing else is known either.
        history: for the model card: steps, time, data, hardware, as far as known, in words.
    """

    path: Path
    state: dict[str, Tensor]
    codec: str | None = None
    metric: str = "mse"
    quality: float | None = None
    lmbda: float | None = None
    history: Mapping[str, str] = field(default_factory=dict)


def read_trained(path: Path) -> Trained:
    """Read a checkpoint of :func:`lof.training.train`, a script's, or safetensors.

    A script's is a dictionary with a ``state_dict`` by any name, and perhaps averages as ``ema``.

    Raises:
        TrainingError: it cannot be read, or holds no weights.
    """
    if path.suffix == ".safetensors":
        return _from_safetensors(path)
    content = read_torch_file(path)
    if content.get("format") == FORMAT:
        return _from_checkpoint(path, checkpoint_of(content, path))
    averages = content.pop("ema", {})
    state: dict[str, Tensor] = {}
    for part in [*content.values(), averages]:
        if isinstance(part, dict) and all(isinstance(value, Tensor) for value in part.values()):
            state |= part
    if not state:
        raise TrainingError(f"{path}: holds no weights; name a checkpoint")
    return Trained(path, state)


def _from_checkpoint(path: Path, checkpoint: Checkpoint) -> Trained:
    recipe = recorded_recipe(checkpoint.recipe, str(path))
    rung = recipe.rung[checkpoint.rung]
    about = checkpoint.about
    (side, batch), *later = recipe.crops_until(rung, checkpoint.step)
    earlier = sum(r.steps for r in recipe.rung[: checkpoint.rung])
    return Trained(
        path=path,
        state=checkpoint.sd | checkpoint.ema,
        codec=recipe.codec,
        metric=recipe.metric,
        quality=rung.quality,
        lmbda=rung.lmbda,
        history={
            "steps": f"{checkpoint.step} of {rung.steps}"
            + (f", after {earlier} of the rungs above" if earlier else ""),
            "batch": f"{plural(batch, 'crop')} of {side}×{side}"
            + "".join(f", then {batch} of {side}×{side}" for side, batch in later)
            + (f", transforms of {recipe.frozen}, frozen" if recipe.frozen else ""),
            "data": f"{about['pictures']} pictures, {about['pixels'] / 1e6:.0f} megapixels",
            "seen": f"{checkpoint.pixels / 1e6:.0f} megapixels",
            "hardware": f"{about['hardware']}, {about['precision']}",
            "time": f"{checkpoint.seconds / 3600:.2f} h",
        },
    )


def _from_safetensors(path: Path) -> Trained:
    try:
        with open_read(path), safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: cannot be read as weights ({error}); name another file") from error
    return Trained(path, {k: v.float() if v.is_floating_point() else v for k, v in state.items()})
