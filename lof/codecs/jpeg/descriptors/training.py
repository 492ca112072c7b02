"""How the filter and its descriptors are trained: on JPEGs of random crops, of all qualities in every batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lof.codecs.base import Codec
from lof.codecs.descriptors.classes import CLASSES, SIDE
from lof.codecs.jpeg.descriptors.codec import DescriptorCodec
from lof.codecs.jpeg.descriptors.config import CELL, CONFIGS
from lof.codecs.jpeg.descriptors.examples import crops_of, jpegs_of
from lof.codecs.jpeg.descriptors.extraction import drawn
from lof.codecs.jpeg.descriptors.filter import Seen
from lof.codecs.jpeg.descriptors.network import DescriptorNetwork, level_of
from lof.codecs.jpeg.descriptors.pictures import picture_of
from lof.codecs.jpeg.planes import TO_RGB, coefficients_of, ycbcr_of
from lof.codecs.training import Aim, Losses, ParameterGroup, Shipped, State, Task, with_sizes
from lof.errors import TrainingError

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
            return DescriptorNetwork(*with_sizes(CONFIGS[self.name], network).sizes)
        except ValueError as error:
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
        return Task(net, _AllQualities(net, aim, self.name), [ParameterGroup(trained)])

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

    def __init__(self, net: DescriptorNetwork, aim: Aim, name: str) -> None:
        super().__init__()
        self.net, self.part, self.name = net, aim.part, name
        net.filter.precision = aim.precision

    def forward(self, images: Tensor) -> Losses:
        """Filter JPEGs made of images, (B, 3, H, W) float32 in [0, 1], at half of their side."""
        images = crops_of(images)
        net, (count, _, height, width) = self.net, images.shape
        images, coefficients, tables, divisors, lmbda = jpegs_of(images, net.filter, self.name)
        plain = _error(picture_of(coefficients), images)
        bpp = torch.zeros_like(plain)
        with torch.set_grad_enabled(self.part in (None, "filter") and torch.is_grad_enabled()):
            seen = net.filter.trunk(coefficients, tables, divisors)
        descriptors, choice = None, torch.zeros((), device=images.device)
        if self.part != "filter":
            with torch.no_grad():
                neutral = picture_of(coefficients + net.filter.head(seen, tables))
            logits = net.extraction(images, neutral, _error(neutral, images).sqrt() / 255)
            if self.part in ("steering", "searched"):
                price = None if self.part == "steering" else 1 / lmbda
                best = self._best(images, coefficients, seen, tables, price)
                descriptors = F.one_hot(best, CLASSES).float()
                choice = F.cross_entropy(logits.permute(0, 3, 1, 2), best)
            else:
                descriptors = drawn(logits)
            bpp = net.context.bits(descriptors, level_of(tables)).sum((1, 2)) / (height * width)
            # The filter must remain good without any.
            steered = (torch.rand(count, device=images.device) >= _WITHOUT).float()
            bpp, steered = bpp * steered, steered.reshape(-1, 1, 1, 1)
            neither = F.one_hot(torch.zeros(1, dtype=torch.long, device=images.device), CLASSES)
            descriptors = steered * descriptors + (1 - steered) * neither
        added = net.filter.head(seen, tables, descriptors)
        error = _error(picture_of(coefficients + added), images)
        loss = ((error + bpp / lmbda) / (plain + _NEXT_TO_NOTHING)).mean()
        return loss + _CHOICE * choice, loss.detach(), bpp.mean().detach(), error.mean().detach()

    @torch.no_grad()
    def _best(
        self, images: Tensor, coefficients: Tensor, seen: Seen, tables: Tensor, price: Tensor | None
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
            hot = F.one_hot(torch.full(shape, number), CLASSES).to(coefficients)
            wrong = left + self.net.filter.head(seen, tables, hot)
            wrong = torch.einsum("cs,bhwsf->bhwcf", TO_RGB.to(wrong), wrong.unflatten(-1, (3, -1)))
            errors[number] = F.avg_pool2d(wrong.square().mean((3, 4)), CELL)
        errors = errors.transpose(0, 1)
        best = errors.argmin(1)
        for _ in range(_SETTLED if price is not None else 0):
            bits = self.net.context.prices(F.one_hot(best, CLASSES).float(), level_of(tables))
            best = (errors + cast(Tensor, price).reshape(-1, 1, 1, 1) * bits / SIDE**2).argmin(1)
        return best


def _error(decoded: Tensor, images: Tensor) -> Tensor:
    return 255**2 * (decoded - images).square().mean((1, 2, 3))
