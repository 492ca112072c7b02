"""The codec's own search: tables for λ, then rounds of rate-distortion optimal quantisation on the true decoder.

Around any picture the distortion is a parabola of each coefficient, whose lowest point follows from the gradient. A
round moves the coefficients of some planes to that point and quantises them by :mod:`lof.codecs.jpeg.trellis`, with the
prices that the levels before had in Huffman tables of their own. So luma makes up for what halved colour loses. Colour
at half and at full size are both tried, and each picture goes on with what suits it. Every round's file is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lof.codecs.base import Latents
from lof.codecs.jpeg.latents import PLANES, levels_of, used_blocks
from lof.codecs.jpeg.planes import gains
from lof.codecs.jpeg.trellis import ZIGZAG, prices_of, quantise

STEP: Final = 2.8
"""Steps are this over the root of what a coefficient's squared error costs; chosen on CID22's validation set."""
_ZONE: Final = 0.4
"""What is added to magnitudes before they are cut to whole levels, for the prices of the first round."""
_TURNS: Final = (PLANES[1:], PLANES[:1])
"""What is requantised in turn: luma and colour at once would make up for each other's errors twice."""
_BACK: Final = np.argsort(ZIGZAG)


@dataclass(frozen=True)
class _Point:
    """Whole levels of a batch, and what their squared errors cost.

    Attributes:
        latents: as :meth:`JpegCodec.code` takes them.
        weights: by plane, (B, 64, h, w): bits for a squared error of one level.
    """

    latents: Latents
    weights: Latents

    def where(self, which: Tensor, other: _Point) -> _Point:
        """Per image: this one where ``which``, (B, 1, 1, 1), holds, else ``other``."""
        return _Point(
            *(
                {name: torch.where(which, mine[name], theirs[name]) for name in mine}
                for mine, theirs in ((self.latents, other.latents), (self.weights, other.weights))
            )
        )


def refine(search: Any, evaluations: int) -> None:
    """See the module.

    Args:
        search: as for :meth:`lof.codecs.Codec.refine`.
        evaluations: gradient evaluations that may be spent.
    """
    full = _start(search, False, {})
    half = _start(search, True, {"y": full.latents["y"]})
    costs = []
    for point in (full, half):
        found = search.hard(point.latents)
        search.offer(point.latents, found)
        costs.append(found.cost)
    point = half.where((costs[1] <= costs[0]).reshape(-1, 1, 1, 1), full)
    stale = 0
    for turn in range(evaluations):
        point = _turned(search, point, _TURNS[turn % len(_TURNS)])
        better = search.offer(point.latents, search.hard(point.latents))
        search.report()
        stale = 0 if bool(better.any()) else stale + 1
        if stale == len(_TURNS):
            break


def _start(search: Any, halved: bool, known: Latents) -> _Point:
    """The images with tables that suit λ, quantised; ``known`` are planes for which that is done."""
    codec, objective = search.codec, search.objective
    images = codec.pad(objective.target)
    with torch.no_grad():
        now = codec.crop(codec.synthesise(search.best), objective.height, objective.width)
    cost = 0.5 * objective.pixels * objective.error_curvature(now) / 255**2
    # With a region, the pixels that count most decide the steps; where errors cost less, more levels become 0.
    typical = cost.square().mean((1, 2, 3), keepdim=True) / cost.mean((1, 2, 3), keepdim=True)
    gain = gains(halved).to(cost)
    tables = (STEP / (typical * torch.stack([gain[0], gain[1:].mean(0)]).reshape(1, 2, 64, 1)).sqrt()).round()
    tables = tables.clamp(1, 255).reshape(-1, 2, 8, 8)
    steps = tables.reshape(-1, 2, 64, 1, 1)
    levels = levels_of(images, tables, halved=halved)
    by_block = _by_block(codec.pad(cost.expand(-1, -1, *objective.target.shape[-2:])), halved)
    weights = {
        name: by_block[min(plane, 1)] * gain[plane].reshape(1, 64, 1, 1) * steps[:, min(plane, 1)].square()
        for plane, name in enumerate(PLANES)
    }
    latents = levels | {"tables": tables, "halved": torch.full_like(typical, float(halved))}
    about = {name: levels[name].sign() * (levels[name].abs() + _ZONE).floor() for name in PLANES}
    point = _Point(latents | about | known, weights)
    return _quantised(point, {name: levels[name] for name in PLANES if name not in known})


def _turned(search: Any, point: _Point, names: Sequence[str]) -> _Point:
    """Some planes moved to where the distortion is lowest as the others stand, and quantised again."""
    codec, objective = search.codec, search.objective
    search.evaluations += 1
    leaves = {name: point.latents[name].clone().requires_grad_() for name in names}
    decoded = codec.crop(codec.synthesise(point.latents | leaves), objective.height, objective.width)
    bits = objective.pixels * objective.lmbda * objective.distortion(decoded)
    slopes = torch.autograd.grad(bits.sum(), list(leaves.values()))
    lowest = {
        name: point.latents[name] - slope / (2 * point.weights[name])
        for name, slope in zip(names, slopes, strict=True)
    }
    return _quantised(point, lowest)


def _quantised(point: _Point, values: Latents) -> _Point:
    """The point with these planes at the levels of the lowest cost."""
    latents = dict(point.latents)
    for name, plane in values.items():
        latents[name] = torch.zeros_like(plane)
        for index, halved in enumerate(point.latents["halved"].flatten().tolist()):
            part = used_blocks(plane, halved and name != "y")
            prices = prices_of(_rows(point.latents[name][index][part]).astype(np.int32))
            weights = _rows(point.weights[name][index][part])
            levels = quantise(_rows(plane[index][part]), weights, prices, torch.get_num_threads())
            shape = plane[index][part].shape
            found = levels[:, _BACK].reshape(shape[1], shape[2], 64).transpose(2, 0, 1)
            latents[name][index][part] = torch.from_numpy(np.ascontiguousarray(found)).to(plane)
    return _Point(latents, point.weights)


def _rows(plane: Tensor) -> NDArray[np.float32]:
    """(64, h, w) to (N, 64) in the order of coding."""
    return plane.flatten(1).T.cpu().numpy()[:, ZIGZAG]


def _by_block(cost: Tensor, halved: bool) -> tuple[Tensor, Tensor]:
    """(B, 1, H, W) to its means over the blocks of luma and of colour, both (B, 1, h, w), at least a little."""
    least = 1e-3 * cost.mean((1, 2, 3), keepdim=True)
    luma = F.avg_pool2d(cost, 8).maximum(least)
    if not halved:
        return luma, luma
    rows, columns = luma.shape[-2:]
    colour = F.avg_pool2d(F.pad(luma, (0, columns % 2, 0, rows % 2), mode="replicate"), 2)
    spare = (0, columns - colour.shape[3], 0, rows - colour.shape[2])
    return luma, F.pad(colour, spare, mode="constant", value=1.0)
