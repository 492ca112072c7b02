"""A JointIQ codec as one module, to train, to ship and to decode with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self, cast

from torch import Tensor

from lof.codecs.entropy.fixed import FixedConv
from lof.codecs.entropy.mixture import MixtureConditional
from lof.codecs.lapped.jointiq.bits import REACH, mixture_bits_of
from lof.codecs.lapped.jointiq.config import JointConfig
from lof.codecs.lapped.jointiq.enhancement import KINDS, Described
from lof.codecs.lapped.jointiq.prior import JointPrior
from lof.codecs.lapped.network import LappedNetwork
from lof.codecs.lapped.prior import PLACE_OF_ONE, PLACES, PLACES_PER_OCTAVE
from lof.codecs.lapped.tables import TableBuffers


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
            # Mixtures say all that a form of lapped's tables could, which they would not fit.
            self.tails, self.tables = None, TableBuffers()
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

    def settle(self) -> None:
        """See :meth:`LappedNetwork.settle`."""
        super().settle()
        if self.joint.described:
            cast(Described, self.enhancement).context.to_grid()

    def shippable_state(self) -> dict[str, Tensor]:
        """See :meth:`LappedNetwork.shippable_state`."""
        state = super().shippable_state()
        for name, layer in self._of_descriptors().items():
            state |= {f"{name}.{leaf}": value.contiguous() for leaf, value in layer.counts().items()}
        return state

    def in_real_units(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :meth:`LappedNetwork.in_real_units`."""
        found = super().in_real_units(state)
        for name in self._of_descriptors():
            weight = found.get(f"{name}.weight")
            if weight is not None and not weight.is_floating_point():
                exact = FixedConv.from_counts(weight, found[f"{name}.bias"], found[f"{name}.shift"])
                found |= {f"{name}.{leaf}": value for leaf, value in exact.items()}
        return found

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """See :meth:`LappedNetwork.from_state`."""
        net = super().from_state(state)
        for name in net._of_descriptors():
            if state[f"{name}.weight"].is_floating_point():
                raise ValueError(f"{name} is on no grid")
        if net.joint.components > 1:
            net.mixture.check()
        if net.joint.described:
            cast(Described, net.enhancement).context.check()
        return net

    def _of_descriptors(self) -> dict[str, FixedConv]:
        """Layers that decide descriptors, by name."""
        if not self.joint.described:
            return {}
        layers = cast(Described, self.enhancement).context.layers()
        return {f"enhancement.context.{name}": layer for name, layer in layers.items()}

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
