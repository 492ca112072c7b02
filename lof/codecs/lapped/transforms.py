"""The image's way in and out: a linear lapped transform of 16×16 blocks, and a network parallel to it.

All tensors are channels-last, (B, H, W, C). ``t``, (B, 1, 1, 1), is the rate as -1 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lof.codecs.lapped.config import LappedConfig

BLOCK = 16
"""Pixels of a block of the linear transform, a side; y has one place for each block."""
PLAUSIBLE: Final = 0.5
"""What the network adds to a pixel at most, unless it has lost its way. In photographs it changes no pixel by more than
0.2, in screenshots none by more than 0.4."""


def unshuffle(x: Tensor, r: int) -> Tensor:
    """(B, H, W, C) to (B, H/r, W/r, r·r·C); channels by row, column, channel."""
    b, h, w, c = x.shape
    return x.view(b, h // r, r, w // r, r, c).transpose(2, 3).reshape(b, h // r, w // r, r * r * c)


def shuffle(x: Tensor, r: int) -> Tensor:
    """Inverse of :func:`unshuffle`."""
    b, h, w, c = x.shape
    return x.view(b, h, w, r, r, c // r**2).transpose(2, 3).reshape(b, h * r, w * r, c // r**2)


def lapping(n: int = BLOCK) -> Tensor:
    """Orthogonal filter across the border of two blocks, (n, n) (Tran, Liang, Tu 2003, type II)."""
    h = n // 2
    k, i = np.arange(h)[:, None], np.arange(h)[None]
    dct2 = np.sqrt(2 / h) * np.cos((i + 0.5) * k * np.pi / h)
    dct2[0] /= np.sqrt(2)
    dct4 = np.sqrt(2 / h) * np.cos((i + 0.5) * (k + 0.5) * np.pi / h)
    eye, zeros = np.eye(h), np.zeros((h, h))
    flip = eye[::-1]
    butterfly = np.block([[eye, flip], [flip, -eye]])
    v = flip @ dct2.T @ dct4 @ flip
    return torch.tensor(
        0.5 * butterfly @ np.block([[eye, zeros], [zeros, v]]) @ butterfly, dtype=torch.float32
    )


def lap(x: Tensor, filter: Tensor) -> Tensor:
    """Apply a filter across all inner borders of blocks, rows then columns; its transpose undoes it."""
    b, h, w, c = x.shape
    half = BLOCK // 2
    if h > BLOCK:
        inner = torch.einsum(
            "ij,bkjn->bkin", filter, x[:, half:-half].reshape(b, h // BLOCK - 1, BLOCK, w * c)
        )
        x = torch.cat([x[:, :half], inner.reshape(b, h - BLOCK, w, c), x[:, -half:]], 1)
    if w > BLOCK:
        inner = torch.einsum(
            "ij,bhkjc->bhkic", filter, x[:, :, half:-half].reshape(b, h, w // BLOCK - 1, BLOCK, c)
        )
        x = torch.cat([x[:, :, :half], inner.reshape(b, h, w - BLOCK, c), x[:, :, -half:]], 2)
    return x


class Depthwise(nn.Conv2d):
    """A 3×3 filter for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class GatedBlock(nn.Module):
    """``x + b(p·relu(q))``, p and q linear in a depthwise 3×3 of x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels + channels // 4
        self.dw, self.a, self.b = (
            Depthwise(channels),
            nn.Linear(channels, 2 * inner),
            nn.Linear(inner, channels),
        )
        with torch.no_grad():
            self.b.weight.mul_(0.1)
            self.b.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        p, q = self.a(self.dw(x)).chunk(2, -1)
        return x + cast(Tensor, self.b(p * F.relu(q)))


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _blocks(count: int, channels: int) -> nn.Sequential:
    return nn.Sequential(*[GatedBlock(channels) for _ in range(count)])


class Transforms(nn.Module):
    """Analysis, synthesis and the steps of y's quantiser."""

    mean: Tensor
    filter: Tensor

    def __init__(self, config: LappedConfig) -> None:
        super().__init__()
        fine, coarse, latent = config.fine, config.coarse, config.latent_channels
        pixels = 3 * BLOCK**2
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("filter", lapping(), persistent=False)
        self.klt, self.iklt = nn.Linear(pixels, latent, bias=False), nn.Linear(latent, pixels, bias=False)
        self.e1, self.eb1 = nn.Linear(pixels // 4, fine), _blocks(config.fine_blocks, fine)
        self.ed, self.eb2 = nn.Linear(4 * fine, coarse), _blocks(config.coarse_blocks, coarse)
        self.eo = _zero(nn.Linear(coarse, latent))
        self.d1, self.db2 = nn.Linear(latent, coarse), _blocks(config.coarse_blocks, coarse)
        self.du, self.db1 = nn.Linear(coarse, 4 * fine), _blocks(config.fine_blocks, fine)
        self.do = _zero(nn.Linear(fine, pixels // 4))
        # Logarithm of the quantiser's step by channel: logd + logb·t.
        self.logd, self.logb = nn.Parameter(torch.zeros(latent)), nn.Parameter(torch.zeros(latent))
        # Gains and biases that depend on t.
        self.fe, self.fd = nn.Parameter(torch.zeros(2, fine)), nn.Parameter(torch.zeros(2, fine))
        self.fe2, self.fd2 = nn.Parameter(torch.zeros(2, coarse)), nn.Parameter(torch.zeros(2, coarse))
        # From y of a place to y of its pixels turned by 180°, and mirrored left to right.
        self.turn = nn.Linear(latent, latent) if config.turned else None
        self.mirror = nn.Linear(latent, latent) if config.turned == (2,) else None

    def steps(self, t: Tensor) -> Tensor:
        """Width of the quantiser's steps, (B, 1, 1, M)."""
        return torch.exp(self.logd + self.logb * t)

    def analysis(self, x: Tensor, t: Tensor) -> Tensor:
        """Images (B, H, W, 3) to y in steps of the quantiser, (B, H/16, W/16, M)."""
        with torch.autocast(
            x.device.type, enabled=False
        ):  # a DC of 300 steps needs more than bfloat16's 8 bits
            linear: Tensor = self.klt(unshuffle(lap(x, self.filter), BLOCK) - self.mean)
        h = self.eb1(at_rate(self.fe, t, self.e1(unshuffle(x, 8))))
        h = self.eb2(at_rate(self.fe2, t, self.ed(unshuffle(h, 2))))
        return (linear + cast(Tensor, self.eo(h))) / self.steps(t)

    def synthesis(self, y: Tensor, t: Tensor) -> Tensor:
        """y in steps of the quantiser to images (B, H, W, 3), neither clamped nor rounded."""
        y = y * self.steps(t)
        with torch.autocast(y.device.type, enabled=False):
            linear = lap(shuffle(self.iklt(y) + self.mean, BLOCK), self.filter.T)

        def added(y: Tensor) -> Tensor:
            h = self.db1(self.enter_fine(self.db2(self.enter_coarse(y, t)), t))
            return shuffle(plausible(self.do(h)), 8)

        return linear + self.of_views(y, added, lambda layer, y: cast(Tensor, layer(y)))

    def of_views(
        self, y: Tensor, added: Callable[[Tensor], Tensor], apply: Callable[[nn.Linear, Tensor], Tensor]
    ) -> Tensor:
        """The mean of what is added to a picture in all views of it, (B, H, W, 3).

        Args:
            y: in units of pixels, (B, H/16, W/16, M).
            added: what the network adds to the picture of such a y.
            apply: computes a layer.
        """

        def both(y: Tensor) -> Tensor:
            if self.turn is None:
                return added(y)
            return added(y) + half_turn(added(half_turn(apply(self.turn, y))))

        if self.mirror is None:
            return both(y) if self.turn is None else 0.5 * both(y)
        return 0.25 * (both(y) + mirrored(both(mirrored(apply(self.mirror, y)))))

    @torch.no_grad()
    def start_view(self, name: str) -> None:
        """Let ``turn`` or ``mirror`` make of a place what the linear transforms make of its pixels in that view."""
        layer, sides = cast(nn.Linear, getattr(self, name)), {"turn": (0, 1), "mirror": (1,)}[name]
        pixels = self.iklt.weight.unflatten(0, (BLOCK, BLOCK, 3)).flip(sides).flatten(0, 2)
        mean = self.mean.unflatten(0, (BLOCK, BLOCK, 3)).flip(sides).flatten()
        layer.weight.copy_(self.klt.weight @ pixels)
        layer.bias.copy_(self.klt.weight @ (mean - self.mean))

    @property
    def views(self) -> dict[str, nn.Linear]:
        """The layers that make other views, by name."""
        made = {"turn": self.turn, "mirror": self.mirror}
        return {name: layer for name, layer in made.items() if layer is not None}

    def enter_coarse(self, y: Tensor, t: Tensor) -> Tensor:
        """What the synthesis's blocks at 1/16 take, from y."""
        return at_rate(self.fd2, t, self.d1(y))

    def enter_fine(self, h: Tensor, t: Tensor) -> Tensor:
        """What the synthesis's blocks at 1/8 take, from what those at 1/16 made."""
        return at_rate(self.fd, t, shuffle(self.du(h), 2))


def half_turn(x: Tensor) -> Tensor:
    """(B, H, W, C) turned by 180°."""
    return x.flip(1, 2)


def mirrored(x: Tensor) -> Tensor:
    """(B, H, W, C) mirrored left to right."""
    return x.flip(2)


def plausible(added: Tensor) -> Tensor:
    """What a network adds to a picture, (B, H/r, W/r, r·r·3): less where it is too much, nothing from twice that on.

    Features grow with each block where a pattern is unlike all that the network was trained on. The squares of r×r
    pixels that this spoils are left as the linear transform has them.
    """
    far = 2 * PLAUSIBLE
    added = added.nan_to_num(far).clamp(-far, far)
    most = added.abs().amax(-1, keepdim=True)
    return added * (2 - most / PLAUSIBLE).clamp_max(1)


def at_rate(film: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """x with gains and biases that depend on t: ``film``, (2, C)."""
    return x * torch.exp(film[0] * t) + film[1] * t
