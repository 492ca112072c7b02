"""How fast a recipe trains, against the same loop written plainly."""

from __future__ import annotations

import pytest

from lof.training import load_recipe
from pipelines.throughput import compare


def test_the_throughput_of_both_loops_is_measured() -> None:
    recipe = load_recipe("tiny").model_copy(update={"precision": "bf16", "crop": 64, "batch": 2})
    found = compare(recipe, device="cpu", rounds=1, steps=1)
    assert found.plain > 0
    assert found.gain == pytest.approx(found.fast / found.plain)
    assert found.precision == "bfloat16"
