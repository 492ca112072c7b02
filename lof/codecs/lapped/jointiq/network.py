"""A JointIQ codec as one module, to train, to ship and to decode with."""

from __future__ import annotations

from typing import ClassVar, cast

from torch import Tensor

from lof.codecs.entropy.mixture import MixtureConditional
from lof.codecs.lapped.jointiq.bits import REACH, mixture_bits_of
from lof.codecs.lapped.jointiq.config import JointConfig
from lof.codecs.lapped.jointiq.enhancement import KINDS
from lof.codecs.lapped.jointiq.prior import JointPrior
from lof.codecs.lapped.network import LappedNetwork
from lof.codecs.lapped.prior import PLACE_OF_ONE, PLACES, PLACES_PER_OCTAVE


class JointNetwork(LappedNetwork):
    """Lapped's network with JointIQ's probability model, and a network behind the synthesis.

    Args:
        sizes: as :attr:`JointConfig.sizes`.
    """

    family = "JointIQ"
    kind: ClassVar[type[JointConfig]] = JointConfig

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        kind, *arguments = self.joint.enhancement or (None,)
        self.enhancement = None if kind is None else KINDS[kind](*arguments)
        if self.joint.components > 1:
            # The table of scales that lapped has, so that weights of its can be gone on from.
            self.mixture = MixtureConditional(
                [2 ** ((place - PLACE_OF_ONE) / PLACES_PER_OCTAVE) for place in range(PLACES)], REACH
            )

    @property
    def joint(self) -> JointConfig:
        """The sizes."""
        return cast(JointConfig, self.config)

    def reconstruct(self, y: Tensor, t: Tensor) -> Tensor:
        """See :meth:`LappedNetwork.reconstruct`."""
        image = super().reconstruct(y, t)
        return image if self.enhancement is None else cast(Tensor, self.enhancement(image, t))

    def bits(self, part: int, residual: Tensor, place: Tensor) -> Tensor:
        """See :meth:`LappedNetwork.bits`."""
        components = components_of(self.joint, part)
        if components == 1:
            return super().bits(part, residual, place)
        return mixture_bits_of(residual, place, components)

    def _prior(self) -> JointPrior:
        return JointPrior(self.joint)


def components_of(config: JointConfig, part: int) -> int:
    """Gaussians of an element of a part, numbered as :class:`lof.codecs.lapped.prior.Take` does."""
    return config.components_of((part - 1) // 2) if part else 1
