"""The codec's own search: tables for λ, then rounds of rate-distortion optimal quantisation on the true decoder.

Around any picture the distortion is a parabola of each coefficient, whose lowest point follows from the gradient. A
round moves the coefficients of some planes to that point and quantises them by :mod:`lof.codecs.jpeg.trellis`, with the
prices that the levels before had in Huffman tables of their own. So luma makes up for what halved colour loses. Colour
at half and at full size are both tried, and each picture goes on with what suits it. A picture that comes from a JPEG
is also quantised from the levels in there, on their own grid. Every round's file is counted.
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
from lof.codecs.jpeg.files import Sampling
from lof.codecs.jpeg.latents import PLANES, levels_of, samplings_of, used_blocks
from lof.codecs.jpeg.planes import gains
from lof.codecs.jpeg.trellis import ZIGZAG, prices_of, quantise

STEP: Final = {"mse": 2.8, "ms-ssim": 3.7}
"""Steps are this over the root of what a coefficient's squared error costs; chosen on CID22's validation set."""
_STRIDE: Final = {"mse": 1.0, "ms-ssim": 0.6}
"""What share of the way to the lowest distortion a round goes: MS-SSIM is no parabola."""
_PROBES, _NOISE, _QUIET, _LEAST = 2, 1.3, 1e-3, 0.03
"""How often the slope is asked, of MS-SSIM or of a picture that is repaired; noise over the errors of the plain
encoding, and its least size; and the least price of a block over the mean."""
LARGEST_STEP: Final = 255
"""Of tables that every decoder takes."""
LARGEST_LEVEL: Final = 1023
"""That a file with 8 bits for a sample can hold."""
_ZONE: Final = 0.4
"""What is added to magnitudes before they are cut to whole levels, for the prices of the first round."""
_COARSER: Final = 1.2
"""How much larger steps on a JPEG's own grid are before they are rounded to multiples; chosen on the same set."""
_SAME: Final = 1e-4
"""A start with less distortion is the original itself, a JPEG."""
TURNS: Final = (PLANES[1:], PLANES[:1])
"""What is requantised in turn: luma and colour at once would make up for each other's errors twice."""
_BACK: Final = np.argsort(ZIGZAG)


@dataclass(frozen=True)
class Point:
    """Whole levels of a batch, and what their squared errors cost.

    Attributes:
        latents: as :meth:`JpegCodec.code` takes them.
        weights: by plane, (B, 64, h, w): bits for a squared error of one level.
    """

    latents: Latents
    weights: Latents

    def where(self, which: Tensor, other: Point) -> Point:
        """Per image: this one where ``which``, (B, 1, 1, 1), holds, else ``other``."""
        return Point(
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
    known = samplings_of(search.latents["halved"])
    grey = [sampling == Sampling.GREY for sampling in known]
    point = _start(search, [Sampling.GREY if one else Sampling.FULL for one in grey])
    others = []
    if not all(grey):
        half = [Sampling.GREY if one else Sampling.HALF for one in grey]
        others.append(_start(search, half, luma=point.latents["y"]))
    if any(trace[0].distortion < _SAME for trace in search.traces):
        others.append(_start(search, known, own=True))
    cost = _offered(search, point)
    for other in others:
        other_cost = _offered(search, other)
        which = other_cost <= cost
        point, cost = other.where(which.reshape(-1, 1, 1, 1), point), cost.minimum(other_cost)
    stale = 0
    for turn in range(evaluations):
        point = _turned(search, point, TURNS[turn % len(TURNS)])
        better = search.offer(point.latents, search.hard(point.latents))
        search.report()
        stale = 0 if bool(better.any()) else stale + 1
        if stale == len(TURNS):
            break


def _offered(search: Any, point: Point) -> Tensor:
    found = search.hard(point.latents)
    search.offer(point.latents, found)
    cost: Tensor = found.cost
    return cost


def _start(
    search: Any,
    samplings: Sequence[Sampling],
    *,
    luma: Tensor | None = None,
    own: bool = False,
) -> Point:
    """The images quantised anew.

    Args:
        luma: its levels, where they are known already.
        own: from the levels that the search began with. Steps are those odd multiples of theirs that come near to what
            suits λ: half of what lies on a grid falls between two steps of an even multiple of it.
    """
    images = search.codec.pad(search.objective.target)
    ones = torch.ones_like(search.best["tables"])
    each = [levels_of(images[i : i + 1], ones[i : i + 1], sampling) for i, sampling in enumerate(samplings)]
    halved = torch.tensor(samplings, dtype=torch.float32, device=ones.device).reshape(-1, 1, 1, 1)
    exact = search.best | {name: torch.cat([one[name] for one in each]) for name in PLANES}
    exact |= {"tables": ones, "halved": halved}
    prices = _prices_of_errors(search, exact)
    # With a region, the blocks that count most decide the steps; where errors cost less, more levels become 0.
    typical = {name: one.square().mean((2, 3)) / one.mean((2, 3)) for name, one in prices.items()}
    both = torch.stack([typical["y"], 0.5 * (typical["cb"] + typical["cr"])], 1)
    tables = search.codec.coarser * STEP[search.objective.metric] / both.clamp_min(1e-9).sqrt()
    tables = tables.round().clamp(1, LARGEST_STEP).reshape(-1, 2, 8, 8)
    if own:
        exact, before = exact | {name: search.latents[name] for name in PLANES}, search.latents["tables"]
        exact["tables"] = before
        multiple = 2 * ((_COARSER * tables / before - 1) / 2).round().clamp_min(0) + 1
        tables = torch.where(before * multiple > LARGEST_STEP, before, before * multiple)
    ratio = (exact["tables"] / tables).reshape(-1, 2, 64, 1, 1)
    levels = {name: exact[name] * ratio[:, min(plane, 1)] for plane, name in enumerate(PLANES)}
    steps = tables.reshape(-1, 2, 64, 1, 1)
    weights = {
        name: (prices[name] * steps[:, min(plane, 1)].square()).clamp_min(1e-9)
        for plane, name in enumerate(PLANES)
    }
    point = Point(search.best | about(levels) | {"tables": tables, "halved": halved}, weights)
    if luma is None:
        return quantised(point, levels)
    point.latents["y"] = luma
    return quantised(point, {name: levels[name] for name in PLANES[1:]})


def about(levels: Latents) -> Latents:
    """Whole levels whose prices do for the first round."""
    return {
        name: levels[name].sign() * (levels[name].abs() + _ZONE).floor().clamp_max(LARGEST_LEVEL)
        for name in PLANES
    }


def _prices_of_errors(search: Any, exact: Latents) -> Latents:
    """By plane, (B, 64, h, w): bits for a squared error of one grey level in a coefficient.

    Args:
        exact: unrounded coefficients of the originals.
    """
    codec, objective = search.codec, search.objective
    samplings = samplings_of(exact["halved"])
    gain = torch.stack([gains(sampling.divisors) for sampling in samplings]).to(exact["y"])[..., None, None]
    if objective.metric == "mse" and not codec.repaired:
        cost = 0.5 * objective.pixels * objective.error_curvature(objective.target) / 255**2
        luma, chroma = _by_block(codec.pad(cost.expand(-1, -1, *objective.target.shape[-2:])), samplings)
        return {name: gain[:, plane] * (chroma if plane else luma) for plane, name in enumerate(PLANES)}
    # Noise of about the size that errors will have, and what it makes of the distortion's slope. Then, of that, what
    # depends on the frequency and what on the place: single coefficients tell little.
    with torch.no_grad():
        now = codec.crop(codec.synthesise(search.best), objective.height, objective.width).clamp(0, 1)
    error = (now - objective.target).square().mean((1, 2, 3), keepdim=True).sqrt()
    size = 255 * _NOISE * error.clamp_min(_QUIET)
    found = {name: torch.zeros_like(exact[name]) for name in PLANES}
    random = torch.Generator().manual_seed(0)
    for _ in range(_PROBES):
        search.evaluations += 1
        noise = {
            name: size
            / gain[:, plane].sqrt()
            * torch.randn(exact[name].shape[1:], generator=random).sign().to(size)
            for plane, name in enumerate(PLANES)
        }
        leaves = {name: (exact[name] + noise[name]).requires_grad_() for name in PLANES}
        for name, slope in _slopes(search, exact, leaves).items():
            found[name] += slope / (2 * _PROBES * noise[name])
    for name, each in found.items():
        by_frequency = each.mean((2, 3), keepdim=True)
        by_frequency = by_frequency.maximum(0.02 * by_frequency.mean(1, keepdim=True)).clamp_min(1e-9)
        smooth = F.pad((each / by_frequency).mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        by_block = F.avg_pool2d(smooth, 3, 1)
        found[name] = by_frequency * by_block.maximum(_LEAST * by_block.mean((1, 2, 3), keepdim=True))
    return found


def _slopes(search: Any, latents: Latents, leaves: Latents) -> Latents:
    """How the distortion grows, in bits, with some planes of the latents."""
    codec, objective = search.codec, search.objective
    decoded = codec.crop(codec.synthesise(latents | leaves), objective.height, objective.width)
    bits = objective.pixels * objective.lmbda * objective.distortion(decoded)
    return dict(zip(leaves, torch.autograd.grad(bits.sum(), list(leaves.values())), strict=True))


def _turned(search: Any, point: Point, names: Sequence[str]) -> Point:
    """Some planes moved to where the distortion is lowest as the others stand, and quantised again."""
    search.evaluations += 1
    slopes = _slopes(
        search, point.latents, {name: point.latents[name].clone().requires_grad_() for name in names}
    )
    stride = 0.5 * _STRIDE[search.objective.metric]
    lowest = {
        name: point.latents[name] - stride * slope / point.weights[name] for name, slope in slopes.items()
    }
    return quantised(point, lowest)


def quantised(point: Point, values: Latents) -> Point:
    """The point with these planes at the levels of the lowest cost."""
    latents = dict(point.latents)
    for name, wanted in values.items():
        plane = wanted.clamp(-LARGEST_LEVEL, LARGEST_LEVEL)  # a filter's slope may be steep
        latents[name] = torch.zeros_like(plane)
        for index, sampling in enumerate(samplings_of(point.latents["halved"])):
            part = used_blocks(plane, Sampling.FULL if name == "y" else sampling)
            if not plane[index][part].numel():
                continue
            prices = prices_of(_rows(point.latents[name][index][part]).astype(np.int32))
            weights = _rows(point.weights[name][index][part])
            levels = quantise(_rows(plane[index][part]), weights, prices, torch.get_num_threads())
            shape = plane[index][part].shape
            found = levels[:, _BACK].reshape(shape[1], shape[2], 64).transpose(2, 0, 1)
            latents[name][index][part] = torch.from_numpy(np.ascontiguousarray(found)).to(plane)
    return Point(latents, point.weights)


def _rows(plane: Tensor) -> NDArray[np.float32]:
    """(64, h, w) to (N, 64) in the order of coding."""
    return plane.flatten(1).T.cpu().numpy()[:, ZIGZAG]


def _by_block(cost: Tensor, samplings: Sequence[Sampling]) -> tuple[Tensor, Tensor]:
    """(B, 1, H, W) to its means over the blocks of luma and of colour, both (B, 1, h, w), at least a little."""
    luma = F.avg_pool2d(cost, 8).maximum(1e-3 * cost.mean((1, 2, 3), keepdim=True))
    colour = torch.ones_like(luma)
    rows, columns = luma.shape[-2:]
    for index, sampling in enumerate(samplings):
        down, across = sampling.divisors
        even = F.pad(luma[index : index + 1], (0, columns % across, 0, rows % down), mode="replicate")
        means = F.avg_pool2d(even, (down, across))
        colour[index, :, : means.shape[2], : means.shape[3]] = means[0]
    return luma, colour
