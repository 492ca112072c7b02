"""The expected cost and where it falls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lof.codecs import Latents, load_codec
from lof.search import Objective
from lof.search.expected import Move, Point, Walk, Weights
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
    return search_of("lapped-tiny", photograph)


def measured(state: Search, latents: Latents) -> tuple[Point, Walk]:
    walk = Walk.at(state, latents, WEIGHTS)
    return Point.measured(state, walk, distortion_curvature(state, latents)), walk


def moves_of(state: Search, latents: Latents, *, moved: bool = False) -> dict[str, Move]:
    point, walk = measured(state, latents)
    return walk.moves(point, latents, WEIGHTS.variance, moved=moved)


def cost(point: Point, state: Search, latents: Latents, variance: float = WEIGHTS.variance) -> float:
    """Expected cost of the one image in bits, from a walk of its own and the distortion as ``point`` foresees it."""
    walk = Walk.at(state, latents, WEIGHTS)
    (near,) = point.near.values()
    coded = walk.coded["y"]
    moved, residual = coded.value.detach() - near.point, coded.residual.detach()
    up = residual - residual.floor()
    bent = moved.square() + variance * up * (1 - up)
    foreseen = near.gradient * moved + 0.5 * near.curvature * bent
    return float(walk.bits + point.pixels * foreseen.double().sum())


def nudged(latents: Latents, name: str, by: torch.Tensor) -> Latents:
    return latents | {name: latents[name] + by}


# What rounding others adds to the distortion is left out of what z tells of them.
@pytest.mark.parametrize(("name", "variance"), [("y", 0.7), ("z", 0.0)])
def test_gradients_are_those_of_the_expected_cost(state: Search, name: str, variance: float) -> None:
    point, walk = measured(state, state.latents)
    move = walk.moves(point, state.latents, variance, moved=False)[name]
    by = 1e-3 * move.gradient / move.gradient.norm()
    if move.lowest is not None and move.highest is not None:
        # The gradient jumps at whole residuals.
        by = torch.where((move.lowest < -0.02) & (move.highest > 0.02), by, 0)
    up, down = (cost(point, state, nudged(state.latents, name, step), variance) for step in (by, -by))
    assert up - down == pytest.approx(2 * float((by * move.gradient).sum()), rel=0.02)


def test_the_cost_of_a_point_is_that_of_its_latents(state: Search) -> None:
    point, _ = measured(state, state.latents)
    expected = cost(point, state, state.latents) / point.pixels + float(point.distortion)
    assert float(point.cost(WEIGHTS.variance)) == pytest.approx(expected, rel=1e-4)


def test_elements_rest_where_both_neighbours_cost_more(photograph: NDArray[np.uint8]) -> None:
    state = search_of("tiny", photograph)  # no element of its y tells of another
    with torch.no_grad():
        coded = state.codec.code(state.latents, state.codec.rounded)
    latents = {name: part.value.detach() for name, part in coded.items()}
    point, walk = measured(state, latents)
    move = walk.moves(point, latents, WEIGHTS.variance, moved=False)["y"]
    assert move.lowest is not None
    assert move.highest is not None
    rests = move.lowest == move.highest
    moves = ~rests & (move.gradient.abs() > 5)
    assert min(int(rests.sum()), int(moves.sum())) > 50
    start = cost(point, state, latents)
    for places, falls in ((rests, False), (moves, True)):
        for index in torch.nonzero(places)[:: max(1, int(places.sum()) // 8)].tolist():
            changes = []
            for step in (-0.02, 0.02):
                by = torch.zeros_like(rests, dtype=torch.float32)
                by[tuple(index)] = step
                changes.append(cost(point, state, nudged(latents, "y", by)) - start)
            assert (min(changes) < 0) == falls, (index, changes)


def test_a_move_ends_at_the_next_whole_residual(state: Search) -> None:
    residual = Walk.at(state, state.latents, WEIGHTS).coded["y"].residual.detach()
    move = moves_of(state, state.latents)["y"]
    for end in (move.lowest, move.highest):
        assert end is not None
        reached = residual + end
        assert torch.allclose(reached, reached.round(), atol=1e-4)


def test_side_latents_wait_for_the_next_walk(state: Search) -> None:
    assert set(moves_of(state, state.latents)) == {"z", "y"}
    assert set(moves_of(state, state.latents, moved=True)) == {"y"}


def test_a_point_of_soft_side_latents_is_priced_as_one_measured_there_now(state: Search) -> None:
    curvature = distortion_curvature(state, state.latents)
    soft, hard = (Walk.at(state, state.latents, Weights(0.5, side)) for side in (1.0, None))
    before, now = (Point.measured(state, walk, curvature) for walk in (soft, hard))
    again = before.priced(hard)
    assert float((now.bits - before.bits).abs()) > 1
    assert torch.equal(again.bits, now.bits)
    assert torch.allclose(again.cost(0.5), now.cost(0.5), rtol=1e-6)


def test_gradients_are_kept_between_walks_only_once_side_latents_are_rounded(state: Search) -> None:
    near = nudged(state.latents, "y", torch.tensor(0.2))
    for before, now, kept in ((0.5, 0.5, False), (0.5, None, False), (None, None, True)):
        walk = Walk.at(state, state.latents, Weights(0.7, before))
        assert walk.settled(state, Weights(0.7, now)) == kept
    onwards, anew = walk.onwards(state, near, Weights(0.7, None)), Walk.at(state, near, Weights(0.7, None))
    assert torch.equal(onwards.coded["y"].residual, anew.coded["y"].residual)
    assert not torch.equal(walk.informing["y"], anew.informing["y"])
    assert torch.equal(onwards.informing["y"], walk.informing["y"])
