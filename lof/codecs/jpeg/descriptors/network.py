"""Filter, choice of descriptors and their probabilities as one module, to train and to ship."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from lof.codecs.descriptors.context import Context
from lof.codecs.entropy.fixed import FixedConv
from lof.codecs.jpeg.descriptors.config import Config
from lof.codecs.jpeg.descriptors.edsr import EdsrFilter
from lof.codecs.jpeg.descriptors.extraction import Extraction
from lof.codecs.jpeg.descriptors.filter import Filter
from lof.codecs.jpeg.descriptors.patches import PatchFilter


class DescriptorNetwork(nn.Module):
    """See the module.

    Args:
        sizes: as :attr:`Config.sizes`.
    """

    sizes: Tensor

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.config = Config.from_sizes(sizes)
        self.register_buffer("sizes", torch.tensor(sizes, dtype=torch.int32))
        self.filter: Filter = EdsrFilter(self.config) if self.config.edsr else PatchFilter(self.config)
        self.extraction = Extraction(self.config.seen)
        self.context = Context(self.config.width)

    def shippable_state(self) -> dict[str, Tensor]:
        """All weights once the context is on its grid: integers where there are, else float16."""
        state = {k: v.half() if v.is_floating_point() else v for k, v in self.state_dict().items()}
        for name, layer in self.context.layers().items():
            state |= {f"context.{name}.{leaf}": value for leaf, value in layer.counts().items()}
        return {key: value.contiguous() for key, value in state.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Inverse of :meth:`shippable_state`, up to what float16 cannot tell.

        Raises:
            KeyError, ValueError, RuntimeError: it is no such state.
        """
        net = cls(*state["sizes"].tolist())
        state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        for name in net.context.layers():
            key = f"context.{name}"
            exact = FixedConv.from_counts(state[f"{key}.weight"], state[f"{key}.bias"], state[f"{key}.shift"])
            state |= {f"{key}.{leaf}": value for leaf, value in exact.items()}
        net.load_state_dict(state)
        net.context.check()
        return net.eval()


def level_of(tables: Tensor) -> Tensor:
    """The mean step of luma, (B,), as quarters of octaves from 0 (a step of 1) to 7.75."""
    totals = tables[:, 0].sum(1).tolist()
    # No sum of whole steps is so near to the middle of two quarters that machines could differ.
    return torch.tensor(
        [min(31, max(0, round(4 * math.log2(max(64, total) / 64)))) / 4 for total in totals],
        device=tables.device,
    )
