"""Networks that repair the picture behind the synthesis, at a fraction of its resolution; any of them fits.

All tensors are channels-last, (B, H, W, C). ``t``, (B, 1, 1, 1), is the rate as -1 to 1. What they add begins at 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lof.codecs.descriptors.classes import CLASSES, OFF, SIDE, repeated
from lof.codecs.descriptors.context import Context
from lof.codecs.lapped.config import RATE_MAX
from lof.codecs.lapped.jointiq.config import DESCRIBED, GATED, GRDN
from lof.codecs.lapped.transforms import GatedBlock, at_rate, plausible, shuffle, unshuffle

REDUCTION: Final = 16
"""By how much the channel attention narrows, as in CBAM."""


class Apply(Protocol):
    """How a layer is computed: at once, or, as a decoder does, in strips of rows."""

    def __call__(self, layer: Callable[[Tensor], Tensor], x: Tensor, reach: int) -> Tensor:
        """``layer(x)``, each row of which depends on ``reach`` rows of ``x`` on both sides."""
        ...


def at_once(layer: Callable[[Tensor], Tensor], x: Tensor, reach: int) -> Tensor:
    """``layer(x)``."""
    return layer(x)


class Enhancement(nn.Module, ABC):
    """A network at 1/shrink of the resolution, between two layers that look at one place at a time.

    Attributes:
        searched, decoded: about how many numbers are held for a place, in a search and in decoding.
    """

    searched: int
    decoded: int

    def __init__(self, shrink: int, channels: int) -> None:
        super().__init__()
        self.shrink = shrink
        self.enter, self.leave = nn.Linear(3 * shrink**2, channels), nn.Linear(channels, 3 * shrink**2)
        # Gains and biases that depend on t.
        self.gain = nn.Parameter(torch.zeros(2, channels))
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, image: Tensor, t: Tensor, apply: Apply = at_once) -> Tensor:
        """The picture repaired, (B, H, W, 3); H and W are multiples of 16."""
        return self.shown(image, self.features(image, t, apply), apply)

    def features(self, image: Tensor, t: Tensor, apply: Apply = at_once) -> Tensor:
        """What is seen in the picture, (B, H/shrink, W/shrink, channels)."""
        # Symbols far beyond any image's may not overflow.
        x = unshuffle(image.clamp(-1, 2) - 0.5, self.shrink)
        return self.repaired(apply(lambda rows: at_rate(self.gain, t, self.enter(rows)), x, 0), apply)

    def shown(self, image: Tensor, h: Tensor, apply: Apply = at_once) -> Tensor:
        """The picture repaired, from what :meth:`features` says of it."""
        return image + shuffle(self.added(h, apply), self.shrink)

    def added(self, h: Tensor, apply: Apply) -> Tensor:
        """What to add in each square of pixels, from features."""
        return apply(lambda rows: plausible(self.leave(rows)), h, 0)

    @abstractmethod
    def repaired(self, h: Tensor, apply: Apply) -> Tensor:
        """Features to features of the same shape."""


class Grdn(Enhancement):
    """Grouped residual dense blocks, then attention to channels and to places (Kim, Chung, Jung 2019)."""

    def __init__(
        self, shrink: int, channels: int, growth: int, layers: int, blocks: int, groups: int
    ) -> None:
        super().__init__(shrink, channels)
        self.searched = groups * blocks * sum(channels + i * growth for i in range(layers + 1))
        self.decoded = (2 * blocks + 3) * channels
        self.groups = nn.ModuleList(_Group(channels, growth, layers, blocks) for _ in range(groups))
        self.attention = _Attention(channels)

    def repaired(self, h: Tensor, apply: Apply) -> Tensor:
        """See :meth:`Enhancement.repaired`."""
        for group in self.groups:
            h = group(h, apply)
        return cast(Tensor, self.attention(h, apply))


class Gated(Enhancement):
    """The blocks of lapped's own transforms."""

    def __init__(self, shrink: int, channels: int, blocks: int) -> None:
        super().__init__(shrink, channels)
        self.searched, self.decoded = 8 * blocks * channels, 3 * channels
        self.blocks = nn.ModuleList(GatedBlock(channels) for _ in range(blocks))

    def repaired(self, h: Tensor, apply: Apply) -> Tensor:
        """See :meth:`Enhancement.repaired`."""
        for block in self.blocks:
            h = apply(block, h, 1)
        return h


class Described(Gated):
    """Blocks of which descriptors steer the last ones, as behind a JPEG (Ma, Liu, Wu 2020).

    Attributes:
        steer: what each descriptor but 0 adds to factors of 1, of each channel: for steered blocks and what follows.
        context: the probability model of descriptors.
    """

    def __init__(self, shrink: int, channels: int, blocks: int, steered: int, width: int) -> None:
        super().__init__(shrink, channels, blocks - steered)
        self.searched += 10 * steered * channels
        self.decoded = (steered + 7) * channels
        self.last = nn.ModuleList(GatedBlock(channels) for _ in range(steered))
        self.steer = nn.Parameter(0.1 * torch.randn(CLASSES - 1, (steered + 1) * channels))
        self.context = Context(width)

    def shown(
        self, image: Tensor, h: Tensor, apply: Apply = at_once, descriptors: Tensor | None = None
    ) -> Tensor:
        """See :meth:`Enhancement.shown`.

        Args:
            descriptors: (B, H/16, W/16, 16), one-hot; all 0 if ``None``.
        """
        if descriptors is None:
            for block in self.last:
                h = apply(block, h, 1)
            return super().shown(image, h, apply)
        told = repeated(1 + descriptors[..., 1:] @ self.steer, SIDE // self.shrink)
        *factors, end = told.chunk(len(self.last) + 1, -1)
        for block, factor in zip(self.last, factors, strict=True):
            h = apply(block, h * factor, 1)
        added = self.added(h * end, apply) * repeated(1 - descriptors[..., OFF:], SIDE // self.shrink)
        return image + shuffle(added, self.shrink)


def level_of(rate: Tensor) -> Tensor:
    """How coarse pictures of a rate are, as :class:`Context` takes it: 7.75 at the lowest of them, -224."""
    return (31 * (RATE_MAX - rate) + RATE_MAX).div(2 * RATE_MAX, rounding_mode="floor") / 4


KINDS: Final[Mapping[int, Callable[..., Enhancement]]] = MappingProxyType(
    {GRDN: Grdn, GATED: Gated, DESCRIBED: Described}
)
"""By the first number of :attr:`JointConfig.enhancement`; the others are their arguments."""


class _Conv(nn.Conv2d):
    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__(inputs, outputs, side, padding=side // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class _Dense(nn.Module):
    """A residual dense block: each layer sees all before it."""

    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Conv(channels + i * growth, growth, 3) for i in range(layers))
        self.fuse = nn.Linear(channels + layers * growth, channels)
        with torch.no_grad():
            self.fuse.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for layer in self.layers:
            seen = torch.cat([seen, F.relu(layer(seen))], -1)
        return x + cast(Tensor, self.fuse(seen))


class _Group(nn.Module):
    """Residual dense blocks in a row, what each of them gives seen together."""

    def __init__(self, channels: int, growth: int, layers: int, blocks: int) -> None:
        super().__init__()
        self.reach = layers
        self.blocks = nn.ModuleList(_Dense(channels, growth, layers) for _ in range(blocks))
        self.fuse = nn.Linear(blocks * channels, channels)
        with torch.no_grad():
            self.fuse.weight.mul_(0.1)

    def forward(self, x: Tensor, apply: Apply) -> Tensor:
        h, found = x, []
        for block in self.blocks:
            h = apply(block, h, self.reach)
            found.append(h)
        return x + apply(self.fuse, torch.cat(found, -1), 0)


class _Attention(nn.Module):
    """CBAM: factors for channels, from their mean and their largest value, then for places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(1, channels // REDUCTION)
        self.channels = nn.Sequential(nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, channels))
        self.places = _Conv(2, 1, 7)

    def forward(self, x: Tensor, apply: Apply) -> Tensor:
        mean = apply(lambda rows: rows.mean(2, keepdim=True), x, 0).mean(1, keepdim=True)
        factor = torch.sigmoid(self.channels(mean) + self.channels(x.amax((1, 2), keepdim=True)))

        def scaled(rows: Tensor) -> Tensor:
            seen = rows * factor
            near = torch.cat([seen.mean(-1, keepdim=True), seen.amax(-1, keepdim=True)], -1)
            return seen * torch.sigmoid(self.places(near))

        return apply(scaled, x, 3)
