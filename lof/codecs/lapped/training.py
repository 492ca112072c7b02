"""How lapped codecs are trained: one network, with a rate drawn for each picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from lof.codecs.base import Codec
from lof.codecs.graphics import some_graphic
from lof.codecs.lapped.codec import LappedCodec
from lof.codecs.lapped.config import CONFIGS, RATE_MAX, LappedConfig
from lof.codecs.lapped.network import LappedNetwork
from lof.codecs.lapped.prior import FORMULA_BITS, OCTAVE, bounded
from lof.codecs.lapped.transforms import BLOCK, lap, unshuffle
from lof.codecs.rates import Continuous
from lof.codecs.registry import codec_spec
from lof.codecs.training import Aim, Losses, ParameterGroup, Shipped, Source, State, Task, with_sizes
from lof.errors import TrainingError

TYPICAL = 4.85, 0.47
"""a and b: a photograph costs about ``a·λ^b`` bits per pixel; so it was on CID22 with the ninth weights."""
LINEAR_FACTOR = 0.1
"""Of the learning rate, for the linear transforms: high rates destroy their start."""
GRAPHIC = 0.03
"""The share of crops with graphics; their costs are high."""
PIXELS = 3 * BLOCK**2
"""Numbers of a block of the linear transform."""
BATCHES, BATCH = 300, 8
"""Of crops, for the statistics that a new network starts from."""


class LappedTraining:
    """See :class:`lof.codecs.training.Trainable`. The part ``prior`` leaves the transforms as they are."""

    network: ClassVar[type[LappedNetwork]] = LappedNetwork
    configs: ClassVar[Mapping[str, LappedConfig]] = CONFIGS
    parts: ClassVar[tuple[str, ...]] = ("prior",)
    optional: ClassVar[tuple[str, ...]] = (".turn.", ".mirror.", "tails")
    """What is in the names of parts that a codec can do without."""

    def __init__(self, name: str) -> None:
        rates = codec_spec(name).rates
        assert isinstance(rates, Continuous)
        self.name, self.lambdas = name, rates.lmbda

    def build(self, network: Mapping[str, Any]) -> LappedNetwork:
        """See :class:`Trainable`; ``network`` holds fields of :class:`LappedConfig` that differ."""
        try:
            config = with_sizes(self.configs[self.name], network)
            if config.latent_channels > PIXELS:
                raise ValueError(f"slices: at most {PIXELS} channels together")
            return self.network(*config.sizes)
        except ValueError as error:
            raise TrainingError(f"network: {error}") from None

    def load(self, net: nn.Module, state: State, origin: str) -> None:
        """See :class:`Trainable`: all parameters, in training or as they ship, and those buffers that the state has.

        Parts that the state lacks and a codec can do without begin untrained, other views as the linear transforms say.
        """
        net = cast(LappedNetwork, net)
        parameters = dict(net.named_parameters())
        own = net.state_dict()
        begun = {k for k in own.keys() - state.keys() if any(part in k for part in self.optional)}
        state = {**state, **{k: own[k] for k in begun}, "sizes": own["sizes"]}
        missing = sorted(parameters.keys() - state.keys())
        wrong = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
        if missing or wrong:
            raise TrainingError(
                f"{origin}: not weights of this network ({[*missing, *wrong][0]}); check `codec` and `network`"
            )
        found = net.in_real_units(state)
        net.load_state_dict({k: v for k, v in found.items() if k in own}, strict=False)
        for name in net.transforms.views:
            if f"transforms.{name}.weight" in begun:
                net.transforms.start_view(name)

    def task(self, net: nn.Module, aim: Aim) -> Task:
        """See :class:`Trainable`."""
        net = cast(LappedNetwork, net)
        if aim.frozen is not None or aim.part not in (None, *self.parts):
            known = ", ".join(f"'{part}'" for part in self.parts)
            raise TrainingError(f"{self.name}: has no such part; it has {known}, and no frozen transforms")
        cast(Any, net.prior.slices[-1]).join.requires_grad_(False)  # nothing is coded after the last slice
        self.freeze(net, aim.part)
        linear = [
            parameter
            for layer in (net.transforms.klt, net.transforms.iklt, *net.transforms.views.values())
            for parameter in layer.parameters()
        ]
        apart = {id(parameter) for parameter in linear}
        groups = [ParameterGroup([p for p in net.parameters() if p.requires_grad and id(p) not in apart])]
        if aim.part is None:
            groups.append(ParameterGroup(linear, LINEAR_FACTOR))

        def begin(source: Source) -> None:
            start(net, source, self.lambdas)

        return Task(net, self.loss(net, aim), groups, start=begin)

    def loss(self, net: LappedNetwork, aim: Aim) -> nn.Module:
        """The network with its loss."""
        return AllRates(net, aim, self.lambdas)

    def freeze(self, net: LappedNetwork, part: str | None) -> None:
        """Leave what is of no part to be trained as it is."""
        net.transforms.requires_grad_(part is None)

    def ship(self, state: State, metric: str, quality: float | None, origin: str) -> Shipped:
        """See :class:`Trainable`: whole numbers where they decide symbols, else float16."""
        sizes = state["sizes"].tolist() if "sizes" in state else self.configs[self.name].sizes
        net = self.network(*sizes)
        self.load(net, state, origin)
        net.settle()
        return Shipped(f"{self.name}.safetensors", net.shippable_state(), {})

    def card(self, codec: Codec) -> str:
        """See :class:`Trainable`."""
        net = cast(LappedCodec, codec).net
        million = sum(p.numel() for p in net.parameters()) / 1e6
        return (
            f"Architecture: `{net.config}`, {million:.1f} million parameters for all rates. The probability model is "
            "in 8-bit integers, the rest in float16."
        )


class AllRates(nn.Module):
    """The network with its loss; every batch has pictures of all rates."""

    def __init__(self, net: LappedNetwork, aim: Aim, lambdas: tuple[float, float]) -> None:
        super().__init__()
        self.net, self.precision, self.prior_alone = net, aim.precision, aim.part == "prior"
        self.low, self.high = map(math.log, lambdas)

    def forward(self, images: Tensor) -> Losses:
        """Price images, (B, 3, H, W) float32 in [0, 1]."""
        net, x = self.net, some_graphic(images, GRAPHIC).permute(0, 2, 3, 1).contiguous()
        count, height, width, _ = x.shape
        places = torch.arange(count, device=x.device) + torch.rand(count, device=x.device)
        rate = torch.round(RATE_MAX * (2 * places / count - 1)).long()
        lmbda = torch.exp(self.low + (rate / RATE_MAX + 1) / 2 * (self.high - self.low))
        t = (rate / RATE_MAX)[:, None, None, None]
        reduced = torch.autocast(x.device.type, self.precision, enabled=self.precision != torch.float32)
        with reduced, torch.set_grad_enabled(not self.prior_alone and torch.is_grad_enabled()):
            y = net.transforms.analysis(x, t)
        y_hat, bits_y, bits_z = net.price(y.float(), rate)
        bpp = (bits_y + bits_z) / (height * width)
        distortion = torch.zeros_like(bpp)
        if not self.prior_alone:
            with reduced:
                decoded, told = self.decoded(y_hat, t, rate, x, lmbda)
            bpp = bpp + told
            # As files are measured: what decoders clip costs nothing.
            shown = bounded(decoded.float(), 0, 1)
            distortion = 255**2 * (shown - x).square().mean((1, 2, 3))
        factor, power = TYPICAL
        # A per cent less counts about the same in smooth and in busy crops, and at all rates. The busiest crops would
        # decide a sum of costs, and one spoilt graphic would stop all learning for a while.
        loss = torch.log1p((bpp + lmbda * distortion) / (factor * lmbda**power)).mean()
        return loss, loss.detach(), bpp.mean().detach(), distortion.mean().detach()

    def decoded(self, y: Tensor, t: Tensor, rate: Tensor, x: Tensor, lmbda: Tensor) -> tuple[Tensor, Tensor]:
        """Images of y, (B, H, W, 3), and bits per pixel that tell more of them, (B,).

        Args:
            t: the rate as -1 to 1, (B, 1, 1, 1).
            x: what they should be.
            rate, lmbda: (B,).
        """
        return self.net.reconstruct(y, t), lmbda.new_zeros(())


@torch.no_grad()
def start(net: LappedNetwork, source: Source, lambdas: tuple[float, float]) -> None:
    """Begin as a transform codec: a KLT of lapped blocks, and the quantiser's steps that are best at high rates."""
    transforms, prior = net.transforms, net.prior
    total = torch.zeros((), dtype=torch.float64)
    squares, count = torch.zeros((), dtype=torch.float64), 0
    for seed in range(BATCHES):
        images = lap(source.batch(BATCH, seed).permute(0, 2, 3, 1), transforms.filter)
        # The blocks at an image's edge are not lapped on that side.
        blocks = unshuffle(images[:, BLOCK:-BLOCK, BLOCK:-BLOCK], BLOCK).flatten(0, 2).double()
        total, squares, count = total + blocks.sum(0), squares + blocks.T @ blocks, count + len(blocks)
    mean = total / count
    values, vectors = torch.linalg.eigh(squares / count - mean.outer(mean))
    channels = net.config.latent_channels
    basis = vectors.flip(1)[:, :channels].T.float()
    transforms.klt.weight.copy_(basis)
    transforms.iklt.weight.copy_(basis.T)
    transforms.mean.copy_(mean)
    for name in transforms.views:
        transforms.start_view(name)
    low, high = map(math.log, lambdas)
    transforms.logd.fill_(0.5 * (math.log(26) - (low + high) / 2) - math.log(255))
    transforms.logb.fill_(-(high - low) / 4)
    spread = values.flip(0)[:channels].float().clamp_min(1e-9).sqrt()
    octaves = (torch.log2(spread) - transforms.logd / math.log(2)) * OCTAVE
    prior.spread[0] = torch.round(octaves).int()
    prior.spread[1] = torch.round(-transforms.logb / math.log(2) * OCTAVE * 2**FORMULA_BITS / RATE_MAX).int()
    net.hyper_analysis.c.weight.mul_(2)
    net.side_scale[0].fill_(0.5)
