"""The standard decoder of JointIQ files' strings, and the encoder that is its mirror: lapped's, with mixtures."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lof.codecs.entropy.mixture import MEAN_UNIT, MixtureTables
from lof.codecs.entropy.tables import Tables
from lof.codecs.lapped.config import RATE_MAX
from lof.codecs.lapped.decoder import Decoder
from lof.codecs.lapped.jointiq.enhancement import Described, Enhancement
from lof.codecs.lapped.jointiq.network import JointNetwork, components_of
from lof.codecs.lapped.prior import rows_of
from lof.codecs.lapped.synthesis import Synthesis, striped

_PLACES = 1024
"""Places whose mixtures are made ready at once."""
_FIELDS = ("cdfs", "lengths", "offsets")


class JointDecoder(Decoder):
    """Strings to images. ``net`` must be on the CPU, in float32, its probability model on its grid."""

    def __init__(self, net: JointNetwork) -> None:
        super().__init__(net)
        self.joint = net.joint
        if self.joint.components > 1:
            self.mixtures = MixtureTables(net.mixture)
        if net.enhancement is not None:
            self.synthesis = EnhancedSynthesis(Synthesis(net.transforms), net.enhancement)

    def described(self, values: Tensor, rate: int, descriptors: Tensor) -> Tensor:
        """As :meth:`synthesise`, with descriptors, (1, rows, columns, 16), one-hot."""
        return cast(EnhancedSynthesis, self.synthesis)(values, rate / RATE_MAX, descriptors)

    def coding(self, part: int, place: Tensor) -> Iterator[tuple[list[int], Tables]]:
        """See :meth:`Decoder.coding`: elements with mixtures have a table each."""
        components = components_of(self.joint, part)
        if components == 1:
            yield from super().coding(part, place)
            return
        for some in place.split(_PLACES, 1):
            numbers = some.unflatten(-1, (3 * components, -1)).movedim(-2, 0).flatten(1)
            numbers[:components] *= MEAN_UNIT
            yield self._mixed(numbers.long().numpy(), components)

    def _mixed(self, numbers: NDArray[np.int64], components: int) -> tuple[list[int], Tables]:
        # Where the others weigh nothing the first component has lapped's own table.
        wide, indexes = numbers[2 * components + 1] > 0, numbers[components].copy()
        indexes[wide] = len(self.tables.cdfs) + np.arange(np.count_nonzero(wide))
        found = [self.tables, *self.mixtures.of(numbers[:, wide], components)]
        cdfs, lengths, offsets = ([one for t in found for one in getattr(t, name)] for name in _FIELDS)
        return indexes.tolist(), Tables(cdfs, lengths, offsets)


class EnhancedSynthesis:
    """y to an image that is repaired, for decoding: the same bits for every number of threads."""

    def __init__(self, synthesis: Synthesis, enhancement: Enhancement) -> None:
        self.synthesis = synthesis
        self.enhancement = copy.deepcopy(enhancement).eval().requires_grad_(False)

    def __call__(self, y: Tensor, t: float, descriptors: Tensor | None = None) -> Tensor:
        """See :meth:`Synthesis.__call__`."""
        image = self.synthesis(y, t)
        with striped() as strips:
            torch.set_num_threads(1)

            def apply(layer: Callable[[Tensor], Tensor], x: Tensor, reach: int) -> Tensor:
                return strips(x, lambda top, end: rows_of(layer, x, top, end, reach))

            seen = self.enhancement.features(image, torch.full((1, 1, 1, 1), t), apply)
            if descriptors is None:
                return self.enhancement.shown(image, seen, apply)
            return cast(Described, self.enhancement).shown(image, seen, apply, descriptors)
