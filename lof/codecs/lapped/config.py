"""What a lapped codec is made of, as data; and how qualities become numbers that its network takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

QUALITY_MIN, QUALITY_MAX = 1, 8
QUALITY_UNIT = 64
"""Qualities are multiples of 1/64."""
RATE_MAX = QUALITY_UNIT * (QUALITY_MAX - QUALITY_MIN) // 2
"""The network's *rate* is a whole number from -224 (quality 1) to 224 (quality 8)."""


def rate_of(quality: float) -> int:
    """The rate of a quality, a multiple of 1/64 from 1 to 8."""
    return round(QUALITY_UNIT * quality) - QUALITY_UNIT * (QUALITY_MIN + QUALITY_MAX) // 2


@dataclass(frozen=True)
class LappedConfig:
    """Sizes of a lapped codec.

    Attributes:
        fine: channels of the transforms at 1/8 of the resolution.
        coarse: channels of the transforms at 1/16 of the resolution.
        fine_blocks, coarse_blocks: residual blocks at each, in the analysis and in the synthesis.
        side_channels: channels of z.
        width: channels of the probability model's state.
        slices: channels of y coded together, in coding order.
        turned: ``(1,)``: the synthesis's network also sees y turned by 180°; the mean of what it adds is shown. See
            :attr:`.transforms.Transforms.turn`. Empty: it does not.
    """

    fine: int
    coarse: int
    fine_blocks: int
    coarse_blocks: int
    side_channels: int
    width: int
    slices: tuple[int, ...]
    turned: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.slices or min(self.base_sizes) < 1 or self.turned not in ((), (1,)):
            raise ValueError(f"no such lapped codec: {self}")

    @classmethod
    def from_sizes(cls, sizes: tuple[int, ...]) -> Self:
        """Inverse of :attr:`sizes`.

        Raises:
            ValueError: they describe no codec.
        """
        turned = (1,) if sizes[:1] == (0,) else ()
        numbers = sizes[len(turned) :]
        if len(numbers) < 7:
            raise ValueError("a lapped codec has at least 7 sizes")
        fine, coarse, fine_blocks, coarse_blocks, side_channels, width, *slices = numbers
        return cls(fine, coarse, fine_blocks, coarse_blocks, side_channels, width, tuple(slices), turned)

    @property
    def sizes(self) -> tuple[int, ...]:
        """All fields as one flat tuple of integers: :attr:`base_sizes`, after a 0 where y is seen turned too."""
        return (0, *self.base_sizes) if self.turned else self.base_sizes

    @property
    def base_sizes(self) -> tuple[int, ...]:
        """All fields but :attr:`turned`, the slices last."""
        single = (
            self.fine,
            self.coarse,
            self.fine_blocks,
            self.coarse_blocks,
            self.side_channels,
            self.width,
        )
        return (*single, *self.slices)

    @property
    def in_waves(self) -> bool:
        """Whether places of y are coded in waves, see :func:`lof.codecs.lapped.prior.waves`, instead of two passes."""
        return False

    @property
    def latent_channels(self) -> int:
        """Channels of y."""
        return sum(self.slices)


LAPPED = LappedConfig(160, 320, 4, 3, 64, 128, (16, 32, 80, 192), turned=(1,))
LAPPED_TINY = LappedConfig(8, 12, 1, 1, 4, 8, (4, 8))

CONFIGS = {"lapped": LAPPED, "lapped-tiny": LAPPED_TINY}
"""By the codec's name."""
