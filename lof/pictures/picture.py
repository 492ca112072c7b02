"""An image as the codecs take it, with what its file said beside the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

ICC: Final = b"iccp"
EXIF: Final = b"exif"
XMP: Final = b"xmpd"
IPTC: Final = b"iptc"
RESOLUTION: Final = b"reso"
BOX_NAMES: Final[Mapping[bytes, str]] = {
    ICC: "ICC profile",
    EXIF: "EXIF",
    XMP: "XMP",
    IPTC: "IPTC",
    RESOLUTION: "resolution",
}
"""The kinds of boxes that a picture may have, in words. Small first letters: a reader may skip them all."""


@dataclass(frozen=True)
class Picture:
    """An image as the codecs take it.

    Attributes:
        pixels: ``(H, W, 3)`` uint8, RGB, C-contiguous, upright.
        boxes: what the file said beside the pixels, by kind:
            ``iccp``: the ICC profile that describes ``pixels``; without one, sRGB by convention.
            ``exif``: EXIF as a TIFF block (``II*…`` or ``MM…``), its orientation tag 1.
            ``xmpd``: an XMP packet, as XML.
            ``iptc``: IPTC-IIM, as in the TIFF tag 33723.
            ``reso``: pixels per unit across and down (big-endian uint32 each), then one byte: 1 for the
            metre, 0 where the two give only the shape of a pixel. The chunk ``pHYs`` of PNG is the same.
        notes: what was done to get here, in order: ``"orientation 6 applied"``, ``"palette expanded"``.
        source: the JPEG that ``pixels`` were decoded from, where nothing was done to them since.
    """

    pixels: NDArray[np.uint8]
    boxes: Mapping[bytes, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    source: bytes | None = None

    @property
    def icc(self) -> bytes | None:
        """The ICC profile, if there is one."""
        return self.boxes.get(ICC)

    @property
    def exif(self) -> bytes | None:
        """The EXIF block, if there is one."""
        return self.boxes.get(EXIF)

    @property
    def held(self) -> str:
        """The boxes in words, ``"ICC profile and EXIF"``; empty where there are none."""
        names = [BOX_NAMES.get(kind, kind.decode("ascii", "replace")) for kind in self.boxes]
        return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
