"""What there is where no file meets a target: the smallest file, and the nearest to a quality."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lof.codecs import Latents
from lof.encoding import Writer
from lof.results import Measured, Target


def least_file(writer: Writer, latents: Latents, *, large: bool) -> bytes:
    """The smallest file there is at a quality, or nearly: all that gets cheaper by it is 0.

    Args:
        latents: of the plain encoding.
        large: whether what single elements cost cannot be known of the whole picture; all is 0 then.
    """
    codec = writer.codec
    symbols = codec.symbols(latents)
    if large:
        zeros = {name: torch.zeros_like(tensor) for name, tensor in symbols.items()}
    else:
        with torch.no_grad():
            coded = codec.code(latents, codec.rounded)
        zeros = {}
        for name, part in coded.items():
            cheaper = part.bits_of(torch.zeros_like(part.residual)) < part.bits
            zeros[name] = torch.where(cheaper.cpu(), 0, symbols[name])
    some = {name: zeros[name] if name in codec.synthesised else symbols[name] for name in symbols}
    return min((writer.pack(each) for each in (zeros, some)), key=len)


def nearest(files: Sequence[Measured], target: Target, codec: str, metadata: int) -> str:
    """That none of these files meets a target, and what the best of them comes to.

    Args:
        codec: what it is called.
        metadata: bytes of it in each file.
    """
    if target.is_size:
        size = min(file.size for file in files)
        hint = f", {metadata} of them metadata that --strip leaves out" if metadata else ""
        return f"no file of {codec} has {target} or less; the smallest has {size} bytes{hint}"
    if target.ms_ssim is not None:
        best = f"MS-SSIM {_down(max(file.ms_ssim or 0 for file in files), 5)}"
    elif target.psnr is not None:
        best = f"{_down(max(file.psnr for file in files), 2)} dB"
    else:
        best = f"{_down(max(file.psnr_inside or 0 for file in files), 2)} dB"
    return f"no file of {codec} reaches {target}; the best found has {best}"


def _down(value: float, digits: int) -> str:
    """Rounded down: what is told can be asked for."""
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"
