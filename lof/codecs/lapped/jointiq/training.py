"""How JointIQ codecs are trained: as lapped, from lapped's weights or from a codec with fewer parts."""

from __future__ import annotations

from typing import cast

from torch import nn

from lof.codecs.lapped.jointiq.config import CONFIGS
from lof.codecs.lapped.jointiq.network import JointNetwork
from lof.codecs.lapped.network import LappedNetwork
from lof.codecs.lapped.training import LappedTraining
from lof.codecs.training import State
from lof.errors import TrainingError

_ADDED = ("enhancement.", "mixture.", "first_more.", "second_more.", "refinement.", "recalled.")
"""What is in the names of parts that a codec can do without."""


class JointTraining(LappedTraining):
    """See :class:`lof.codecs.training.Trainable`. Parts:

    ``prior`` leaves the transforms and what is behind them as they are; ``enhancement`` trains that alone, on decoded
    pictures. Without a part all are trained together, on the rate and the distortion of the enhanced picture.
    """

    network = JointNetwork
    configs = CONFIGS
    parts = ("prior", "enhancement")

    def load(self, net: nn.Module, state: State, origin: str) -> None:
        """See :class:`Trainable`: weights of lapped too, or of a codec that lacks some parts, which begin untrained."""
        own = cast(JointNetwork, net).state_dict()
        begun = {
            name: value
            for name, value in own.items()
            if name not in state and any(part in name for part in _ADDED)
        }
        super().load(net, begun | {**state, "sizes": own["sizes"]}, origin)

    def freeze(self, net: LappedNetwork, part: str | None) -> None:
        """See :meth:`LappedTraining.freeze`.

        Raises:
            TrainingError: there is no such part in this network.
        """
        enhancement = cast(JointNetwork, net).enhancement
        if part == "enhancement":
            if enhancement is None:
                raise TrainingError(
                    "network: has no enhancement to train; give it one, or leave out the part"
                )
            net.requires_grad_(False)
            enhancement.requires_grad_(True)
            return
        super().freeze(net, part)
        if enhancement is not None:
            enhancement.requires_grad_(part is None)
