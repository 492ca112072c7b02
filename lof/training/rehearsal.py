"""What a recipe would stumble over later, found before the pictures are read."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lof.codecs import trainable
from lof.errors import LofError, TrainingError
from lof.training.recipe import Recipe
from lof.training.trained import read_trained


def rehearse(recipe: Recipe, precision: torch.dtype, *, begins: bool) -> None:
    """Set up every rung once: what is wrong with the last one must not be found after the training of the others.

    Args:
        begins: no checkpoint is there to go on from, so that the first rung needs the recipe's ``init``.

    Raises:
        LofError: a rung cannot be set up.
    """
    name = f"recipe {recipe.name}"
    family = trainable(recipe.codec)
    for index, rung in enumerate(recipe.rung):
        try:
            net = _built(recipe)
            name = f"recipe {recipe.name}, {recipe.title(index)}"
            if begins and index == 0 and recipe.init:
                family.load(net, read_trained(Path(recipe.init)).state, recipe.init)
            stride = family.task(net, recipe.aim(rung, precision)).stride
            if any(side % stride for side in recipe.crop_sides):
                raise TrainingError(
                    f"crop: this codec takes multiples of {stride} pixels a side; choose such a one"
                )
        except LofError as error:
            raise type(error)(f"{name}: {error}") from error


def _built(recipe: Recipe) -> nn.Module:
    try:
        return trainable(recipe.codec).build(recipe.network)
    except (MemoryError, RuntimeError) as error:  # the second is PyTorch's
        raise TrainingError("network: asks for more memory than there is; make it smaller") from error
