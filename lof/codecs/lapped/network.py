"""A lapped codec as one module, to train, to ship and to decode with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lof.codecs.lapped.bits import bits_of
from lof.codecs.lapped.config import RATE_MAX, LappedConfig
from lof.codecs.lapped.fixed import UNIT, counts, from_counts, layers_of, to_grid
from lof.codecs.lapped.prior import (
    OCTAVE,
    OCTAVES,
    PLACE_OF_ONE,
    PLACES,
    PLACES_PER_OCTAVE,
    WAVE,
    Prior,
    bounded,
    checkerboard,
    joined,
    power,
    waves,
)
from lof.codecs.lapped.tables import GAUSSIAN, TYPICAL, Form, TableBuffers, form_of, numbers_of
from lof.codecs.lapped.transforms import Depthwise, Transforms, unshuffle

SEEN_LIMIT = 8.0
TAILS_LIMIT = 8.0


class _Block(nn.Module):
    """x and two linear layers of a depthwise 3×3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dw, self.a, self.b = (
            Depthwise(channels),
            nn.Linear(channels, 2 * channels),
            nn.Linear(2 * channels, channels),
        )
        with torch.no_grad():
            self.b.weight.mul_(0.1)
            self.b.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.b(F.leaky_relu(self.a(self.dw(x)), 0.1)))


class HyperAnalysis(nn.Module):
    """y in standard deviations of its channels to z; only encoders need it, so that it need not be exact."""

    def __init__(self, config: LappedConfig) -> None:
        super().__init__()
        width = config.width
        self.a, self.block16 = nn.Linear(config.latent_channels, width), _Block(width)
        self.b, self.block32 = nn.Linear(4 * width, width), _Block(width)
        self.c = nn.Linear(4 * width, config.side_channels)

    def forward(self, seen: Tensor) -> Tensor:
        """(B, h, w, M), h and w multiples of 4, to (B, h/4, w/4, channels of z)."""
        x = self.block16(F.leaky_relu(self.a(seen), 0.1))
        x = self.block32(F.leaky_relu(self.b(unshuffle(x, 2)), 0.1))
        return cast(Tensor, self.c(unshuffle(x, 2)))


class LappedNetwork(nn.Module):
    """Transforms, probability model and hyper-analysis.

    Args:
        sizes: as :attr:`LappedConfig.sizes`.
    """

    family: ClassVar[str] = "lapped"
    kind: ClassVar[type[LappedConfig]] = LappedConfig
    sizes: Tensor

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.config = self.kind.from_sizes(sizes)
        self.register_buffer("sizes", torch.tensor(sizes, dtype=torch.int32))
        self.transforms = Transforms(self.config)
        self.hyper_analysis = HyperAnalysis(self.config)
        self.prior = self._prior()
        # Tells the form of the tables. Older weights lack it: their tables are Gaussian.
        self.tails: nn.Parameter | None = nn.Parameter(numbers_of(TYPICAL))
        self.tables = TableBuffers(TYPICAL)
        # Places of z's channels in the table of scales, less that of 1, and how they follow the rate.
        self.side_scale = nn.Parameter(torch.zeros(2, self.config.side_channels))

    def _prior(self) -> Prior:
        return Prior(self.config)

    def side(self, yq: Tensor, rate: Tensor) -> Tensor:
        """z, not rounded, from y in steps of the quantiser."""
        seen = (yq * power(-self.prior.scales(rate))[:, None]).clamp(-SEEN_LIMIT, SEEN_LIMIT)
        seen = F.pad(seen, (0, 0, 0, -seen.shape[2] % 4, 0, -seen.shape[1] % 4))
        return cast(Tensor, self.hyper_analysis(seen))

    def side_places(self, rate: Tensor) -> Tensor:
        """Places of z's channels in the table of scales, in training."""
        level = (rate / UNIT)[:, None]
        places = PLACES_PER_OCTAVE * (self.side_scale[0] + self.side_scale[1] * level) + PLACE_OF_ONE
        return bounded(places, 0, PLACES - 1)[:, None, None]

    def reconstruct(self, y: Tensor, t: Tensor) -> Tensor:
        """The image of y, (B, H, W, 3), as decoders show it but neither clamped nor rounded."""
        return self.transforms.synthesis(y, t)

    def bits(self, part: int, residual: Tensor, place: Tensor) -> Tensor:
        """Cost in bits of a part's elements, as :class:`Take` tells the part and its places."""
        return bits_of(residual, place, self.form)

    @property
    def form(self) -> Form:
        """The form of the tables; with gradients in training."""
        if self.tails is None:
            return GAUSSIAN
        if self.training:
            return form_of(self.tails)
        return Form(*map(float, form_of(self.tails.detach())))

    def price(self, yq: Tensor, rate: Tensor, *, hard: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """y rounded, and bits of y and of z, each (B,)."""
        z, parts = self.side(yq, rate), parted(yq, self.config)
        values: list[list[Tensor]] = [[] for _ in parts]
        bits: list[Tensor] = []

        def take(part: int, mean: Tensor | None, place: Tensor, rows: slice) -> Tensor:
            if mean is None:
                value = _through(z)
                bits.append(self.bits(part, value if hard else noisy(z), place).sum((1, 2, 3)))
                return value
            taken = sum(piece.shape[1] for piece in values[part - 1])
            residual = parts[part - 1][:, taken : taken + mean.shape[1]] - mean
            value = _through(residual) + mean
            bits.append(
                self.bits(part, torch.round(residual) if hard else noisy(residual), place).sum((1, 2))
            )
            values[part - 1].append(value)
            return value

        size = (yq.shape[1], yq.shape[2])
        self.prior.walk(rate, size, take, self.side_places(rate) if self.training else None)
        whole = [joined(pieces) for pieces in values]
        return arranged(whole, *size, in_waves=self.config.in_waves), torch.stack(bits[1:]).sum(0), bits[0]

    @torch.no_grad()
    def settle(self) -> None:
        """Put all that decides a symbol on its grid; what ships and decodes is on it."""
        to_grid(self.prior)
        if self.tails is not None:
            self.tails.copy_(self.tails.half())
        self.tables = TableBuffers(self.form).to(self.sizes.device)
        places = PLACES_PER_OCTAVE * self.side_scale + torch.tensor([[PLACE_OF_ONE], [0]])
        self.prior.side.copy_(torch.round(UNIT * places))

    def shippable_state(self) -> dict[str, Tensor]:
        """All weights after :meth:`settle`, as small as they can be: integers where there are, else float16.

        A fixed layer's weights are int8 counts of ``2**-shift``, its biases int32 counts of ``2**-shift / 256``.
        """
        state = {k: v.half() if v.is_floating_point() else v for k, v in self.state_dict().items()}
        for name, layer in layers_of(self.prior).items():
            state |= {f"prior.{name}.{leaf}": value for leaf, value in counts(layer).items()}
        return {key: value.contiguous() for key, value in state.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Inverse of :meth:`shippable_state`, up to what float16 cannot tell.

        Raises:
            KeyError, ValueError, RuntimeError: it is no such state.
        """
        net = cls(*state["sizes"].tolist())
        if "tails" not in state:
            net.tails = None
        elif bool((state["tails"].abs() > TAILS_LIMIT).any()):
            raise ValueError("tails hold numbers that cannot be")
        for name, layer in layers_of(net.prior).items():
            layer.shift = state[f"prior.{name}.shift"]
        net.load_state_dict(net.in_real_units(state))
        scales = net.prior.scales(torch.tensor([-RATE_MAX, RATE_MAX]))
        if bool((scales.abs() > OCTAVES * OCTAVE).any()):
            raise ValueError("prior.spread holds numbers that cannot be")
        return net.eval()

    def in_real_units(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights as they ship, or as they are in training, as they are in training.

        Raises:
            KeyError: a layer has a shift and no weights.
        """
        state = dict(state)
        for name in layers_of(self.prior):
            shift = state.pop(f"prior.{name}.shift", None)
            if shift is not None:
                keys = f"prior.{name}.weight", f"prior.{name}.bias"
                state |= zip(keys, from_counts(state[keys[0]], state[keys[1]], shift), strict=True)
        return state


def parted(y: Tensor, config: LappedConfig) -> list[Tensor]:
    """(B, rows, columns, M) as the parts that are coded one after another, each (B, places, channels)."""
    anchors, others, _ = (waves if config.in_waves else checkerboard)(y.shape[1], y.shape[2], y.device)
    slices = y.flatten(1, 2).split(list(config.slices), -1)
    return [piece.index_select(1, places) for piece in slices for places in (anchors, others)]


def arranged(parts: list[Tensor], rows: int, columns: int, *, in_waves: bool = False) -> Tensor:
    """Inverse of :func:`parted`."""
    back = (waves if in_waves else checkerboard)(rows, columns, parts[0].device)[2]
    pairs = [torch.cat(parts[i : i + 2], 1) for i in range(0, len(parts), 2)]
    return cast(Tensor, torch.cat(pairs, -1).index_select(1, back).unflatten(1, (rows, columns)))


def in_rows(y: Tensor, config: LappedConfig, part: int, rows: slice) -> tuple[Tensor, Tensor]:
    """Some rows of a slice of y, or all, as a view (B, rows, columns, channels), and which places there are meant."""
    number, second = divmod(part - 1, 2)
    first = sum(config.slices[:number])
    view = y[:, rows, :, first : first + config.slices[number]]
    if config.in_waves:
        view = y[..., first : first + config.slices[number]]
        wave = torch.arange(view.shape[2]) + WAVE * torch.arange(view.shape[1])[:, None]
        return view, (wave == rows.start) & (not second)
    odd = (torch.arange(view.shape[1])[:, None] + torch.arange(view.shape[2])) % 2
    return view, odd == second


def noisy(x: Tensor) -> Tensor:
    """Stands for x rounded, in expected cost."""
    return x + torch.rand_like(x) - 0.5


def _through(x: Tensor) -> Tensor:
    return x + (torch.round(x) - x).detach()
