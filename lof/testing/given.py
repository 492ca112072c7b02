"""What the methods of a codec give, or an AssertionError that names the method and says what is wrong with it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lof.codecs import Codec, Coded, Decoded, Latents, Quantize
from lof.errors import LowMemoryError, one_line
from lof.results import Pixels

Check = Callable[[Codec, Pixels], None]


def told(check: Check) -> Check:
    """The check, with all that the codec raises told as an AssertionError; too little memory is no fault of it."""

    @wraps(check)
    def checked(codec: Codec, image: Pixels) -> None:
        try:
            check(codec, image)
        except (AssertionError, MemoryError, LowMemoryError):
            raise
        except Exception as error:
            frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
            own = [f.f_code.co_qualname for f in frames if isinstance(f.f_locals.get("self"), Codec)]
            where = own[-1] if own else check.__name__
            raise AssertionError(f"{where}: {type(error).__name__}: {one_line(error)}") from error

    return checked


def batch(image: Pixels) -> Tensor:
    """(1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255


def analysed(codec: Codec, image: Pixels) -> Latents:
    """Latents of a picture of any size."""
    latents: Latents = _by_latent(codec, "analyse", codec.analyse(codec.pad(batch(image))), Tensor)
    return latents


def coded_by(
    codec: Codec, latents: Mapping[str, Tensor], quantize: Quantize, *, exact: bool = False
) -> dict[str, Coded]:
    """What ``code`` gives."""
    coded: dict[str, Coded] = _by_latent(codec, "code", codec.code(latents, quantize, exact=exact), Coded)
    return coded


def decoded_by(codec: Codec, strings: Sequence[bytes], height: int, width: int) -> Decoded:
    """What ``decompress`` gives."""
    found: Any = codec.decompress(strings, height, width)
    assert isinstance(found, Decoded), f"decompress: gives a {type(found).__name__}, not a lof.codecs.Decoded"
    kind = type(found.image).__name__
    assert isinstance(found.image, Tensor), f"decompress: its image is a {kind}, not a Tensor"
    for field in ("symbols", "values"):
        _by_latent(codec, f"decompress: {field}", getattr(found, field), Tensor)
    return found


def _by_latent(codec: Codec, what: str, found: Any, kind: type) -> Any:
    assert isinstance(found, dict), f"{what}: a {type(found).__name__}, not a dict by latent tensor"
    names, wanted = (", ".join(map(str, each)) for each in (found, codec.latents))
    assert found.keys() == set(codec.latents), f"{what}: holds {names or 'nothing'}; latents names {wanted}"
    for name, one in found.items():
        assert isinstance(one, kind), f"{what}: {name} is a {type(one).__name__}, not a {kind.__name__}"
    return found
