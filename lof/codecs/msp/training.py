"""How MSP is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lof.codecs.base import Codec
from lof.codecs.msp import TRANSFORMS
from lof.codecs.msp.codec import MSPCodec
from lof.codecs.msp.config import TIERS
from lof.codecs.msp.decoder import STRIDE
from lof.codecs.msp.network import MSPNetwork
from lof.codecs.network_training import NetworkTraining
from lof.codecs.training import Aim, Source, Task, with_sizes
from lof.codecs.weights import Place, without_lent_transforms
from lof.errors import TrainingError


class MSPTraining(NetworkTraining):
    """See :class:`lof.codecs.training.Trainable`."""

    def __init__(self, name: str) -> None:
        super().__init__(name, MSPCodec)

    def build(self, network: Mapping[str, Any]) -> MSPNetwork:
        """The tier's network; ``network`` holds fields of :class:`MSPConfig` that differ."""
        try:
            return MSPNetwork(*with_sizes(TIERS[self.name], network).sizes)
        except ValueError as error:
            raise TrainingError(f"network: {error}") from None

    def task(self, net: nn.Module, aim: Aim) -> Task:
        """With frozen transforms the order of channels, and all scales, start from the latents' spread."""
        task = super().task(net, aim)
        if task.kept is None:
            return task

        def start(source: Source) -> None:
            cast(MSPNetwork, net).calibrate(source.spread().to(cast(MSPNetwork, net).order.device))

        return replace(task, start=start)

    def compact(
        self, net: nn.Module, metric: str, quality: float
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Integers where there are any; transforms stay with the codec that they were taken from."""
        place = Place(self.name, metric, quality, transforms=TRANSFORMS)
        return without_lent_transforms(place, cast(MSPNetwork, net).shippable_state())

    def card(self, codec: Codec) -> str:
        """Evaluations and multiplications per pixel are the same for every image but for its padding."""
        net, decoder = cast(MSPNetwork, cast(MSPCodec, codec).net), cast(MSPCodec, codec).decoder
        rows = 2**net.config.levels
        y = torch.zeros(1, net.M, rows, rows)
        string, pixels = decoder.encode(y), (STRIDE * rows) ** 2
        prior = _multiplications(lambda: decoder.read(string, rows, rows)) / pixels
        synthesis = _multiplications(lambda: net.g_s(y)) / pixels
        parameters = sum(p.numel() for p in net.prior.parameters())
        return (
            f"Architecture: `{self._architecture(net)}`. The probability model is in 8-bit integers, the transforms "
            f"are in float16; transforms that equal those of `{TRANSFORMS}` lie in its files alone.\n\n"
            f"Decoding takes {net.config.evaluations} evaluations of a probability model of {parameters / 1e6:.1f} "
            f"million parameters, whatever the size of the image: {prior / 1e3:.1f} thousand "
            f"multiplications per pixel, and {synthesis / 1e3:.1f} thousand for the synthesis."
        )


def _multiplications(work: Callable[[], object]) -> float:
    """Of a network, as torch counts them: two operations each."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return float(counter.get_total_flops()) / 2
