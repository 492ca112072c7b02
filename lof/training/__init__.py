"""Training of codecs: recipes, the loop, export of weights. Knows nothing of the search."""

from lof.training.card import Exported
from lof.training.export import export_weights
from lof.training.loop import Finished, Group, Logged, Started, train
from lof.training.recipe import Recipe, load_recipe, parse_recipe

__all__ = [
    "Exported",
    "Finished",
    "Group",
    "Logged",
    "Recipe",
    "Started",
    "export_weights",
    "load_recipe",
    "parse_recipe",
    "train",
]
