"""How the filter and its descriptors are trained: on JPEGs of random crops, of all qualities in every batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Final, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lof.codecs.base import Codec
from lof.codecs.jpeg import files
from lof.codecs.jpeg.descriptors.codec import DescriptorCodec
from lof.codecs.jpeg.descriptors.config import CELL, CLASSES, CONFIGS, SIDE
from lof.codecs.jpeg.descriptors.extraction import drawn
from lof.codecs.jpeg.descriptors.network import DescriptorNetwork
from lof.codecs.jpeg.descriptors.pictures import coefficients_of_planes, picture_of
from lof.codecs.jpeg.files import Sampling
from lof.codecs.jpeg.latents import PLANES, levels_of, used_blocks
from lof.codecs.jpeg.planes import TO_RGB, coefficients_of, gains, ycbcr_of
from lof.codecs.jpeg.rates import RATES
from lof.codecs.jpeg.search import LARGEST_STEP, STEP
from lof.codecs.training import Aim, Losses, ParameterGroup, Shipped, State, Task
from lof.errors import TrainingError

QUALITIES: Final = (5, 95)
"""The lowest and the highest that are trained."""
_LOW: Final = 1.5
"""Low qualities are drawn more often: there is more to repair."""
_FLAT: Final = 0.5
"""The share of JPEGs as lof's search makes them: tables that are flat in error, and small levels often 0."""
_ZONE: Final = 0.2
"""How much more than half a step may become 0 there."""
_CUT: Final = 0.3
"""The share of batches that are cut and not scaled down: photographs are softer at their full size than smaller."""
_GRAPHIC: Final = 0.06
"""The share of crops that become graphics of two colours: what has hard edges must not be filtered to pieces."""
_GRAINS: Final = (1, 2, 3, 8)
"""Pixels a side of what is of one colour, in those of noise."""
_STEEPER: Final = 2.0
"""λ of libjpeg's own JPEGs over that of searched ones: how many bits its next quality pays for a squared error less."""
_FULL: Final = 0.2
"""The share of batches of 4:4:4; the others are 4:2:0."""
_CHOICE: Final = 0.05
"""Weight of how far the choice of descriptors is from the best ones."""
_WITHOUT: Final = 0.25
"""The share of JPEGs that are filtered without descriptors, where there are some."""
_STEERED: Final = ("steering", "searched", "descriptors")
"""Parts of a training with descriptors."""
_TRIED: Final = 8
"""Classes that are tried in a step of ``steering``."""
_SETTLED: Final = 2
"""How often ``searched`` chooses descriptors anew, as their neighbours stand."""
_NEXT_TO_NOTHING: Final = 2.0
"""Added to squared errors in grey levels, so that the best JPEGs do not decide."""


class DescriptorTraining:
    """See :class:`lof.codecs.training.Trainable`. Parts:

    ``filter`` is the filter without descriptors. The others are all but its first blocks, which no descriptor changes:
    ``steering`` with the best descriptors whatever they cost, for before they bring something a price would make them
    all alike; ``searched`` with the best ones at their price, as lof's search finds them; ``descriptors`` with those
    that the network of :mod:`.extraction` draws, at their price, as in the paper.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self, network: Mapping[str, Any]) -> DescriptorNetwork:
        """See :class:`Trainable`; ``network`` holds fields of :class:`Config` that differ."""
        try:
            return DescriptorNetwork(*replace(CONFIGS[self.name], **network).sizes)
        except (TypeError, ValueError) as error:
            raise TrainingError(f"network: {error}") from None

    def load(self, net: nn.Module, state: State, origin: str) -> None:
        """See :class:`Trainable`: a state in training, or one as it ships."""
        own = net.state_dict()
        decides = state.get("context.leave.weight")
        if decides is not None and not decides.is_floating_point():
            try:
                state = DescriptorNetwork.from_state(state).state_dict()
            except (KeyError, ValueError, RuntimeError) as error:
                raise TrainingError(f"{origin}: not weights of this network; check `codec`") from error
        wrong = sorted(
            k
            for k in own.keys() | state.keys()
            if k not in own or k not in state or own[k].shape != state[k].shape
        )
        if wrong:
            raise TrainingError(
                f"{origin}: not weights of this network ({wrong[0]}); check `codec` and `network`"
            )
        net.load_state_dict(dict(state))

    def task(self, net: nn.Module, aim: Aim) -> Task:
        """See :class:`Trainable`."""
        net = cast(DescriptorNetwork, net)
        if aim.frozen is not None or aim.part not in (None, "filter", *_STEERED):
            known = f"'filter', {', '.join(map(repr, _STEERED))}, and no frozen transforms"
            raise TrainingError(f"{self.name}: has no such part; it has {known}")
        choice = {*net.extraction.parameters(), *net.context.parameters(), net.filter.steer}
        parts = {
            None: set(net.parameters()),
            "filter": set(net.filter.parameters()) - choice,
        } | dict.fromkeys(_STEERED, choice | set(net.filter.last.parameters()))
        for parameter in net.parameters():
            parameter.requires_grad_(parameter in parts[aim.part])
        trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
        return Task(net, _AllQualities(net, aim), [ParameterGroup(trained)])

    def ship(self, state: State, metric: str, quality: float | None, origin: str) -> Shipped:
        """See :class:`Trainable`: whole numbers where they decide symbols, else float16."""
        if "sizes" not in state:
            raise TrainingError(f"{origin}: not weights of {self.name} (it has no sizes)")
        net = DescriptorNetwork(*state["sizes"].tolist())
        self.load(net, state, origin)
        net.context.to_grid()
        return Shipped(f"{self.name}.safetensors", net.shippable_state(), {})

    def card(self, codec: Codec) -> str:
        """See :class:`Trainable`."""
        net = cast(DescriptorCodec, codec).net
        million = sum(p.numel() for p in net.filter.parameters()) / 1e6
        return (
            f"Architecture: `{net.config}`; the filter has {million:.1f} million parameters for all qualities. The "
            "probability model is in 8-bit integers, the rest in float16."
        )


class _AllQualities(nn.Module):
    """The network with its loss: what is left of the JPEG's squared error, and descriptors at the price of its λ."""

    def __init__(self, net: DescriptorNetwork, aim: Aim) -> None:
        super().__init__()
        self.net, self.part = net, aim.part
        net.filter.precision = aim.precision

    def forward(self, images: Tensor) -> Losses:
        """Filter JPEGs made of images, (B, 3, H, W) float32 in [0, 1], at half of their side."""
        images = _some_graphic(_scaled(images))
        net, (count, _, height, width) = self.net, images.shape
        coefficients, tables, divisors, lmbda = jpegs_of(images)
        plain = _error(picture_of(coefficients), images)
        bpp = torch.zeros_like(plain)
        with torch.set_grad_enabled(self.part in (None, "filter") and torch.is_grad_enabled()):
            features, gain = net.filter.trunk(coefficients, tables, divisors)
        descriptors, choice = None, torch.zeros((), device=images.device)
        if self.part != "filter":
            with torch.no_grad():
                neutral = picture_of(coefficients + net.filter.head(features, gain, tables))
            logits = net.extraction(images, neutral, _error(neutral, images).sqrt() / 255)
            if self.part in ("steering", "searched"):
                price = None if self.part == "steering" else 1 / lmbda
                best = self._best(images, coefficients, features, gain, tables, price)
                descriptors = F.one_hot(best, CLASSES).float()
                choice = F.cross_entropy(logits.permute(0, 3, 1, 2), best)
            else:
                descriptors = drawn(logits)
            bpp = net.context.bits(descriptors, tables).sum((1, 2)) / (height * width)
            # The filter must remain good without any.
            steered = (torch.rand(count, device=images.device) >= _WITHOUT).float()
            bpp, steered = bpp * steered, steered.reshape(-1, 1, 1, 1)
            neither = F.one_hot(torch.zeros(1, dtype=torch.long, device=images.device), CLASSES)
            descriptors = steered * descriptors + (1 - steered) * neither
        added = net.filter.head(features, gain, tables, descriptors)
        error = _error(picture_of(coefficients + added), images)
        loss = ((error + bpp / lmbda) / (plain + _NEXT_TO_NOTHING)).mean()
        return loss + _CHOICE * choice, loss.detach(), bpp.mean().detach(), error.mean().detach()

    @torch.no_grad()
    def _best(
        self,
        images: Tensor,
        coefficients: Tensor,
        features: Tensor,
        gain: Tensor,
        tables: Tensor,
        price: Tensor | None,
    ) -> Tensor:
        """The class that costs the least at each place, (B, h, w), if all of a picture had it.

        Args:
            price: of a bit per pixel in squared grey levels, (B,); without one bits cost nothing, and a part of the
                classes is tried, so that none dies out.
        """
        # The transform is orthonormal, so that errors of coefficients are those of pixels.
        planes = ycbcr_of(images).split(1, 1)
        left = coefficients - torch.cat([coefficients_of(plane) for plane in planes], 1).permute(0, 2, 3, 1)
        shape = (len(images), images.shape[2] // SIDE, images.shape[3] // SIDE)
        errors = torch.full((CLASSES, *shape), torch.inf, device=images.device)
        for number in range(CLASSES) if price is not None else torch.randperm(CLASSES)[:_TRIED].tolist():
            hot = F.one_hot(torch.full(shape, number), CLASSES).to(features)
            wrong = left + self.net.filter.head(features, gain, tables, hot)
            wrong = torch.einsum("cs,bhwsf->bhwcf", TO_RGB.to(wrong), wrong.unflatten(-1, (3, -1)))
            errors[number] = F.avg_pool2d(wrong.square().mean((3, 4)), CELL)
        errors = errors.transpose(0, 1)
        best = errors.argmin(1)
        for _ in range(_SETTLED if price is not None else 0):
            bits = self.net.context.prices(F.one_hot(best, CLASSES).float(), tables)
            best = (errors + cast(Tensor, price).reshape(-1, 1, 1, 1) * bits / SIDE**2).argmin(1)
        return best


def _error(decoded: Tensor, images: Tensor) -> Tensor:
    return 255**2 * (decoded - images).square().mean((1, 2, 3))


def _scaled(images: Tensor) -> Tensor:
    """Squares of half the side, (B, 3, h, h) from (B, 3, H, W): cut, or sharper, scaled down by up to 2."""
    side = max(SIDE, images.shape[2] // 2 // SIDE * SIDE)
    if float(torch.rand(())) < _CUT:
        return images[..., :side, :side]
    part = int(torch.randint(side, images.shape[2] + 1, ()))
    scaled = F.interpolate(images[..., :part, :part], (side, side), mode="bicubic", antialias=True)
    return scaled.clamp(0, 1)


def _some_graphic(images: Tensor) -> Tensor:
    """Images, (B, 3, H, W), some of them with two colours only: above and below the mean of a channel, or of noise."""
    count, device = len(images), images.device
    channel = images[torch.arange(count), torch.randint(3, (count,), device=device)][:, None]
    grain = _GRAINS[int(torch.randint(len(_GRAINS), ()))]
    noise = torch.rand(count, 1, *(-(-side // grain) for side in images.shape[2:]), device=device)
    noise = noise.repeat_interleave(grain, 2).repeat_interleave(grain, 3)[
        ..., : images.shape[2], : images.shape[3]
    ]
    field = torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.5, noise, channel)
    dark, light = torch.rand(2, count, 3, 1, 1, device=device)
    graphic = torch.where(field > field.mean((2, 3), keepdim=True), light, dark)
    chosen = torch.rand(count, 1, 1, 1, device=device) < _GRAPHIC
    return torch.where(chosen, graphic, images)


@torch.no_grad()
def jpegs_of(images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """JPEGs of images, of random qualities: what the filter takes, and λ.

    Half of them are as libjpeg makes them, half about as lof's search does.

    Returns:
        Coefficients (B, h, w, 192), tables (B, 2, 64), divisors (B, 2), λ (B,) of the curve that each is on.
    """
    device, count = images.device, len(images)
    random = torch.rand(4, count, device=device)
    low, high = QUALITIES
    quality = (low + (high + 1 - low) * random[0] ** _LOW).long().clamp_max(high)
    sampling = Sampling.FULL if float(torch.rand(())) < _FULL else Sampling.HALF
    searched = (random[1] < _FLAT)[:, None, None]
    annex, lambdas = (each.to(device)[quality] for each in _known())
    tables = torch.where(searched, _flat(lambdas, sampling), annex)
    zone = torch.where(searched, _ZONE * random[2, :, None, None], 0)[..., None]
    levels = levels_of(images, tables.reshape(-1, 2, 8, 8), sampling)
    coefficients = {}
    for index, name in enumerate(PLANES):
        found = levels[name].sign() * (levels[name].abs() + 0.5 - zone).floor().clamp_min(0)
        found[:, :1] = levels[name][:, :1].round()
        coefficients[name] = found * tables[:, min(index, 1), :, None, None]
    part = used_blocks(coefficients["cb"], sampling)
    chroma = [coefficients[name][part] for name in PLANES[1:]]
    whole = coefficients_of_planes(coefficients["y"], chroma, sampling.divisors)
    divisors = torch.tensor([sampling.divisors], dtype=torch.float32, device=device).expand(count, -1)
    return whole, tables, divisors, torch.where(searched.flatten(), lambdas, _STEEPER * lambdas)


def _flat(lmbda: Tensor, sampling: Sampling) -> Tensor:
    """Tables as the search of photographs has them at λ, (B, 2, 64)."""
    luma, *chroma = gains(sampling.divisors).to(lmbda) / 3
    costs = torch.stack([luma, 0.5 * (chroma[0] + chroma[1])])
    return (STEP["mse"] / (lmbda[:, None, None] * costs).sqrt()).round().clamp(1, LARGEST_STEP)


@cache
def _known() -> tuple[Tensor, Tensor]:
    """By quality, 0 to 100: libjpeg's own tables, (101, 2, 64), and λ."""
    dot = np.zeros((8, 8, 3), np.uint8)
    tables = [files.read(files.plain_file(dot, max(1, quality))).tables for quality in range(101)]
    lambdas = [RATES.at("jpeg", "mse", max(1.0, float(quality))).lmbda for quality in range(101)]
    return torch.from_numpy(np.stack(tables).astype(np.float32)).flatten(2), torch.tensor(lambdas)
