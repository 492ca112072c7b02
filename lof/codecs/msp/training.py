"""What training needs of MSP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from lof.codecs.base import Codec
from lof.codecs.msp import TRANSFORMS
from lof.codecs.msp.codec import MSPCodec
from lof.codecs.msp.cost import decoding_cost
from lof.codecs.msp.network import MSPNetwork
from lof.codecs.network import NetworkTraining
from lof.codecs.weights import Place, load_weights, without_lent_transforms


class MSPTraining(NetworkTraining):
    """See :class:`lof.codecs.trainable.Trainable`."""

    def __init__(self, name: str) -> None:
        super().__init__(name, MSPCodec)

    def ship(self, net: nn.Module) -> dict[str, Tensor]:
        """Integers where there are any, transforms in float16."""
        return cast(MSPNetwork, net).shippable_state()

    def compact(
        self, state: Mapping[str, Tensor], metric: str, quality: float
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Transforms stay with the codec that they were taken from."""
        return without_lent_transforms(self._place(metric, quality), dict(state))

    def decoding_cost(self, codec: Codec) -> str:
        """Evaluations and multiplications, which are the same for every image but for its size."""
        cost = decoding_cost(cast(MSPNetwork, cast(MSPCodec, codec).net))
        return (
            f"Decoding takes {cost.evaluations} evaluations of a probability model of {cost.parameters / 1e6:.1f} "
            f"million parameters, whatever the size of the image: {cost.prior_macs / 1e3:.1f} thousand "
            f"multiplications per pixel, and {cost.synthesis_macs / 1e3:.1f} thousand for the synthesis."
        )

    def read(
        self, folder: Path | None, metric: str, quality: float
    ) -> tuple[dict[str, Tensor], float | None]:
        """Weights with the transforms that they may have left out."""
        return load_weights(self._place(metric, quality), folder)

    def _place(self, metric: str, quality: float) -> Place:
        return Place(self.name, metric, quality, transforms=TRANSFORMS)
