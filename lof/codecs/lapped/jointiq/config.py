"""What a JointIQ codec is made of, as data: lapped's sizes, and parts that may each be left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

from lof.codecs.lapped.config import LappedConfig

MOST_COMPONENTS: Final = 8
GRDN, GATED, DESCRIBED = 1, 2, 3
"""Kinds of networks behind the synthesis."""
_SIZES_OF = {GRDN: 6, GATED: 3, DESCRIBED: 5}
_ENHANCEMENT: Final = 1 + max(_SIZES_OF.values())
_OWN: Final = 7 + _ENHANCEMENT
"""Sizes that lapped does not have."""


@dataclass(frozen=True)
class JointConfig(LappedConfig):
    """Sizes of a JointIQ codec: those of :class:`LappedConfig`, and these. What is empty is left out.

    Attributes:
        components: Gaussians in the mixture of an element, 1 to 8.
        mixed: slices, from the first one, whose elements have mixtures; those of others have one Gaussian.
        refinement: ``(hidden,)``: the mixtures are refined component by component by a network of so many channels.
        context: ``(window, channels)``: what is decoded in the same window of so many places a side, an even number, is
            recalled by its likeness in so many channels.
        serial: ``(1,)``: instead of in two passes places are coded as in raster order, each with the twelve before it
            in a window of 5×5; those that do not see each other together, about w + 3·h steps for a slice.
        turned: as lapped's; ``(2,)``: the picture mirrored left to right is seen too, upright and turned.
        enhancement: of the picture behind the synthesis. ``(1, shrink, channels, growth, layers, blocks, groups)``:
            grouped residual dense blocks at 1/shrink of the resolution. ``(2, shrink, channels, blocks)``: gated
            blocks there. ``(3, shrink, channels, blocks, steered, width)``: gated blocks, the last ``steered`` of which
            descriptors steer, with a probability model of ``width`` channels for descriptors.
    """

    components: int = 1
    mixed: int = 1
    refinement: tuple[int, ...] = ()
    context: tuple[int, ...] = ()
    serial: tuple[int, ...] = ()
    enhancement: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        parts = (self.refinement, self.context, self.serial, self.turned, self.enhancement)
        kind = self.enhancement[:1]
        wrong = (
            not self.slices
            or min(*self.base_sizes, self.components, self.mixed, *(n for part in parts for n in part)) < 1
            or self.components > MOST_COMPONENTS
            or self.mixed > len(self.slices)
            or len(self.refinement) > 1
            or (bool(self.refinement) and self.components == 1)
            or len(self.context) not in (0, 2)
            or (bool(self.context) and self.context[0] % 2 == 1)
            or self.serial not in ((), (1,))
            or self.turned not in ((), (1,), (2,))
            or (bool(kind) and len(self.enhancement) != 1 + _SIZES_OF.get(kind[0], -1))
            or (bool(kind) and self.enhancement[1] not in (1, 2, 4, 8, 16))
            or (kind == (DESCRIBED,) and self.enhancement[4] > self.enhancement[3])
        )
        if wrong:
            raise ValueError(f"no such JointIQ codec: {self}")

    @classmethod
    def from_sizes(cls, sizes: tuple[int, ...]) -> Self:
        """Inverse of :attr:`sizes`.

        Raises:
            ValueError: they describe no codec.
        """
        own, base = tuple(sizes[:_OWN]), LappedConfig.from_sizes(tuple(sizes[_OWN:]))
        components, mixed, *numbers = own
        told = {
            "refinement": numbers[:1],
            "context": numbers[1:3],
            "serial": numbers[3:4],
            "turned": numbers[4:5],
            "enhancement": numbers[5:],
        }
        parts: dict[str, Any] = {name: tuple(n for n in part if n) for name, part in told.items()}
        config = cls(**vars(base) | parts, components=components, mixed=mixed)
        if config.sizes != tuple(sizes):
            raise ValueError(f"no such JointIQ codec: {sizes}")
        return config

    @property
    def sizes(self) -> tuple[int, ...]:
        """All fields as one flat tuple of integers; 0 for what is left out, and lapped's last."""
        parts = (
            (self.refinement, 1),
            (self.context, 2),
            (self.serial, 1),
            (self.turned, 1),
            (self.enhancement, _ENHANCEMENT),
        )
        own = [n for part, length in parts for n in (*part, *[0] * (length - len(part)))]
        return (self.components, self.mixed, *own, *self.base_sizes)

    @property
    def in_waves(self) -> bool:
        """See :attr:`LappedConfig.in_waves`."""
        return bool(self.serial)

    @property
    def described(self) -> bool:
        """Whether descriptors steer what is behind the synthesis."""
        return self.enhancement[:1] == (DESCRIBED,)

    def components_of(self, number: int) -> int:
        """Gaussians in the mixture of an element of that slice."""
        return self.components if number < self.mixed else 1


JOINTIQ = JointConfig(
    *(160, 320, 4, 3, 64, 128),
    slices=(16, 32, 80, 192),
    components=3,
    mixed=3,
    refinement=(32,),
    context=(32, 32),
    turned=(2,),
    enhancement=(GRDN, 8, 64, 32, 4, 3, 1),
)
"""Lapped's sizes, so that its weights can be gone on from."""
JOINTIQ_TINY = JointConfig(
    *(6, 6, 1, 1, 4, 8),
    slices=(4, 3),
    components=3,
    mixed=1,
    refinement=(4,),
    context=(8, 4),
    enhancement=(GRDN, 4, 6, 4, 2, 2, 1),
)

CONFIGS = {"jointiq": JOINTIQ, "jointiq-tiny": JOINTIQ_TINY}
"""By the codec's name."""
