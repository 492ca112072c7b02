"""The weights that an archive's streams need, kept in the archive: a newer lof may ship others under the same name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lof.archive.schema import Row
from lof.errors import UnknownCodecError, WeightsError
from lof.files.atomic import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

    from lof.codecs import Codec

WEIGHTS = "weights"
_DIGITS = 8
"""Hexadecimal digits of the fingerprint, those that a stream holds."""


def keep_weights(dst: Path, codec: Codec) -> None:
    """Write ``DST/weights/FINGERPRINT/NAME.safetensors`` unless it is there; a second look proves that it will do.

    Raises:
        OutputError: it cannot be written.
        WeightsError: what was written does not make the same codec.
    """
    from safetensors.torch import save

    from lof.codecs import load_codec, weights_name

    path = _folder(dst, codec.fingerprint.hex()) / weights_name(codec.name, codec.metric, codec.quality)
    state = codec.state()
    if path.is_file() or not state:
        return
    metadata = {"lambda": repr(codec.lmbda), "codec": codec.name, "fingerprint": codec.fingerprint.hex()}
    write_atomically(path, save(_small(state), metadata))
    again = load_codec(codec.name, codec.quality, metric=codec.metric, weights=path.parent, device="cpu")
    if again.fingerprint != codec.fingerprint:
        path.unlink()
        raise WeightsError(f"{path}: does not read back as it was written; check the disk")


def kept_weights(dst: Path, row: Row) -> Path | None:
    """Folder of the kept weights of a streamed row; ``None`` where lof ships the very same, or none are kept."""
    if row.codec is None or row.metric is None or row.quality is None:
        return None
    return kept_for(dst, row.codec, row.metric, row.quality, row.fingerprint or "")


def kept_for(dst: Path, codec: str, metric: str, quality: float, fingerprint: str) -> Path | None:
    """The same for a codec, by the first 8 or all hexadecimal digits of its fingerprint."""
    from lof.codecs import codec_spec, weights_name

    try:
        shipped = codec_spec(codec).rate_point(metric, quality).fingerprint or ""
    except UnknownCodecError:
        return None
    if re.fullmatch("[0-9a-f]{8}([0-9a-f]{56})?", fingerprint) is None or shipped.startswith(fingerprint):
        return None
    folder = _folder(dst, fingerprint)
    path = folder / weights_name(codec, metric, quality)
    links = any(
        place.is_symlink() for place in (path, folder, dst / WEIGHTS)
    )  # to anything, in a stranger's archive
    return folder if path.is_file() and not links else None


def _folder(dst: Path, fingerprint: str) -> Path:
    return dst / WEIGHTS / fingerprint[:_DIGITS]


def _small(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights and tables without loss, in float16 where that holds them."""
    import torch

    halved = {name: tensor.half() for name, tensor in state.items() if tensor.dtype == torch.float32}
    exact = {name: half for name, half in halved.items() if torch.equal(half.float(), state[name])}
    return {name: tensor.contiguous() for name, tensor in (state | exact).items()}
