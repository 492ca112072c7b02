"""The expected cost and where it falls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lof.codecs import Latents, load_codec
from lof.search import Objective
from lof.search.expected import Point, Walk, Weights
from lof.search.sensitivity import distortion_curvature
from lof.search.state import Search

WEIGHTS = Weights(variance=0.7, side=0.5)


def search_of(name: str, photograph: NDArray[np.uint8]) -> Search:
    codec = load_codec(name, 4, device="cpu", precision="fp32")
    image = torch.from_numpy(photograph[None, 64:128, 160:224].copy()).permute(0, 3, 1, 2).float() / 255
    return Search(Objective(codec, image, codec.lmbda), codec.analyse(image), 1, [0], None)


@pytest.fixture(scope="module")
def state(photograph: NDArray[np.uint8]) -> Search:
    # Not one of CompressAI's: gradients through their lower bounds are no derivatives.
    return search_of("lapped", photograph)


def point_at(state: Search, latents: Latents) -> Point:
    return Point.measured(state, latents, distortion_curvature(state, latents))


def cost(state: Search, point: Point, latents: Latents) -> float:
    """Expected cost of the one image in bits, from a walk of its own."""
    walk = Walk.at(state, point, latents, WEIGHTS)
    (near,) = point.near.values()
    moved = walk.coded["y"].value.detach() - near.point
    distortion = (near.gradient * moved + 0.5 * near.curvature * moved.square()).double().sum()
    return float(walk.bits + state.objective.pixels * (distortion + WEIGHTS.variance * walk.spread))


def nudged(latents: Latents, name: str, by: torch.Tensor) -> Latents:
    return latents | {name: latents[name] + by}


@pytest.mark.parametrize("name", ["y", "z"])
def test_gradients_are_those_of_the_expected_cost(state: Search, name: str) -> None:
    point = point_at(state, state.latents)
    walk = Walk.at(state, point, state.latents, WEIGHTS)
    move = walk.moves(state.latents, WEIGHTS, moved=False)[name]
    by = 1e-3 * move.gradient / move.gradient.norm()
    if move.lowest is not None and move.highest is not None:
        # The gradient jumps at whole residuals.
        by = torch.where((move.lowest < -0.02) & (move.highest > 0.02), by, 0)
    rise = cost(state, point, nudged(state.latents, name, by)) - cost(
        state, point, nudged(state.latents, name, -by)
    )
    assert rise == pytest.approx(2 * float((by * move.gradient).sum()), rel=0.05)


def test_elements_rest_where_both_neighbours_cost_more(photograph: NDArray[np.uint8]) -> None:
    state = search_of("tiny", photograph)  # no element of its y tells of another
    with torch.no_grad():
        coded = state.codec.code(state.latents, state.codec.rounded)
    latents = {name: part.value.detach() for name, part in coded.items()}
    point = point_at(state, latents)
    move = Walk.at(state, point, latents, WEIGHTS).moves(latents, WEIGHTS, moved=False)["y"]
    assert move.lowest is not None
    assert move.highest is not None
    rests = move.lowest == move.highest
    moves = ~rests & (move.gradient.abs() > 5)
    assert min(int(rests.sum()), int(moves.sum())) > 50
    start = cost(state, point, latents)
    for places, falls in ((rests, False), (moves, True)):
        for index in torch.nonzero(places)[:: max(1, int(places.sum()) // 8)].tolist():
            changes = []
            for step in (-0.02, 0.02):
                by = torch.zeros_like(rests, dtype=torch.float32)
                by[tuple(index)] = step
                changes.append(cost(state, point, nudged(latents, "y", by)) - start)
            assert (min(changes) < 0) == falls, (index, changes)


def test_a_move_ends_at_the_next_whole_residual(state: Search) -> None:
    point = point_at(state, state.latents)
    walk = Walk.at(state, point, state.latents, WEIGHTS)
    move = walk.moves(state.latents, WEIGHTS, moved=True)["y"]
    residual = walk.coded["y"].residual.detach()
    for end in (move.lowest, move.highest):
        assert end is not None
        reached = residual + end
        assert torch.allclose(reached, reached.round(), atol=1e-4)


def test_side_latents_wait_for_the_next_walk(state: Search) -> None:
    walk = Walk.at(state, point_at(state, state.latents), state.latents, WEIGHTS)
    assert set(walk.moves(state.latents, WEIGHTS, moved=False)) == {"z", "y"}
    assert set(walk.moves(state.latents, WEIGHTS, moved=True)) == {"y"}
