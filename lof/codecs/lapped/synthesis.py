"""The synthesis as the decoder computes it: in strips of rows, each on a single thread.

Large images are made in bands of many strips. The
result has the same bits for every number of threads; and tensors between the layers of a block stay in the cache.
Equal to :meth:`Transforms.synthesis` up to the order of summation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lof.codecs.exact import one_thread_each
from lof.codecs.lapped.transforms import BLOCK, GatedBlock, Transforms, lap, plausible, shuffle

PLACES = 1024
"""At most about so many places at once."""
BAND = 2**15
"""Places of y in a band of rows: larger images are made band by band, so that memory stays bounded."""


class Strips(Protocol):
    """Makes a tensor in strips of rows, each on a single thread."""

    def __call__(self, x: Tensor, make: Callable[[int, int], Tensor]) -> Tensor:
        """What ``make`` makes from the first row of a strip of ``x`` to the one after its last, put together."""
        ...


@contextmanager
def striped() -> Iterator[Strips]:
    """Threads that work on strips. How many there are changes nothing in what comes out."""
    with one_thread_each() as pool:

        def strips(x: Tensor, make: Callable[[int, int], Tensor]) -> Tensor:
            rows = x.shape[1]
            height = max(1, PLACES // x.shape[2])
            return torch.cat(
                list(pool.map(lambda top: make(top, min(top + height, rows)), range(0, rows, height))), 1
            )

        yield strips


class Synthesis:
    """y to an image, for decoding."""

    def __init__(self, transforms: Transforms) -> None:
        self.transforms = copy.deepcopy(transforms).eval().requires_grad_(False)

    def __call__(self, y: Tensor, t: float) -> Tensor:
        """(1, h, w, M) float32, in steps of the quantiser, to (1, 16·h, 16·w, 3)."""
        rows, height = y.shape[1], max(1, BAND // y.shape[2])
        if rows <= height:
            return self._band(y, t)
        net = self.transforms
        reach = len(net.db2) + -(-len(net.db1) // 2) + 1
        image = y.new_empty(1, BLOCK * rows, BLOCK * y.shape[2], 3)
        for top in range(0, rows, height):
            above, end = min(top, reach), min(top + height, rows)
            band = self._band(y[:, top - above : end + reach], t)
            image[:, BLOCK * top : BLOCK * end] = band[:, BLOCK * above : BLOCK * (above + end - top)]
        return image

    def _band(self, y: Tensor, t: float) -> Tensor:
        y, net, rate = y.detach(), self.transforms, torch.full((1, 1, 1, 1), t)
        with striped() as strips:

            def blocks(x: Tensor, layers: torch.nn.Sequential) -> Tensor:
                for block in layers:
                    x = strips(x, partial(_block, cast(GatedBlock, block), x))
                return x

            steps = net.steps(rate)
            y = y * steps
            linear = strips(y, lambda top, end: shuffle(net.iklt(y[:, top:end]).add_(net.mean), BLOCK))
            image = lap(linear, net.filter.T)

            def added(y: Tensor) -> Tensor:
                x = strips(y, lambda top, end: net.enter_coarse(y[:, top:end], rate))
                coarse = blocks(x, net.db2)
                x = strips(coarse, lambda top, end: net.enter_fine(coarse[:, top:end], rate))
                fine = blocks(x, net.db1)
                return strips(fine, lambda top, end: shuffle(plausible(net.do(fine[:, top:end])), BLOCK // 2))

            def by_strips(layer: torch.nn.Linear, y: Tensor) -> Tensor:
                return strips(y, lambda top, end: cast(Tensor, layer(y[:, top:end])))

            return image.add_(net.of_views(y, added, by_strips))


def _block(block: GatedBlock, x: Tensor, top: int, end: int) -> Tensor:
    """Rows of ``block(x)``."""
    above, below = min(top, 1), min(x.shape[1] - end, 1)
    seen = block.dw(x[:, top - above : end + below])[:, above : above + end - top]
    p, q = block.a(seen).chunk(2, -1)
    return F.linear(p.mul_(q.relu_()), block.b.weight, block.b.bias).add_(x[:, top:end])
