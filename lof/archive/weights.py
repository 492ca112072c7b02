"""The weights that an archive's streams need, kept in the archive: a newer lof may ship others under the same name."""

from __future__ import annotations

import hashlib
import re
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from lof.archive.objects import refuse_links
from lof.archive.schema import Row
from lof.archive.walk import OWN
from lof.errors import LofError, UnknownCodecError, WeightsError
from lof.files.atomic import Staged, cannot_write, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

    from lof.codecs import Codec

WEIGHTS = "weights"
_REMEDY = "see 'Codecs with weights' in lof/codecs/README.md"
_DIGITS = 8
"""Hexadecimal digits of the fingerprint, those that a stream holds."""


def keep_weights(dst: Path, codec: Codec) -> None:
    """Write ``DST/weights/FINGERPRINT/NAME.safetensors``, unless a good one is there.

    It gets its place once the same codec has been made of it, and of an empty folder none. A codec that has weights but
    gives none is warned of.

    Raises:
        OutputError: it cannot be written, or a folder on the way is a link.
        WeightsError: the codec's loader does not take the weights that its ``state`` gives.
    """
    from safetensors.torch import save

    from lof.codecs import weights_name

    state = codec.state()
    if not state:
        if codec.fingerprint != hashlib.sha256().digest():  # that of nothing
            warnings.warn(
                f"codec {codec.name}: {dst} keeps no weights of it, as its state() gives none; "
                "keep this version of its package, or nobody can read the streams",
                stacklevel=2,
            )
        return
    name = weights_name(codec.name, codec.metric, codec.quality)
    path, trial = _folder(dst, codec.fingerprint.hex()) / name, dst / OWN / WEIGHTS
    refuse_links(path.parent, path.parent.parent)
    try:
        shutil.rmtree(trial, ignore_errors=True)  # what a process left that was killed
        trial.mkdir(parents=True)
        if _problem(codec, trial) is None:
            raise WeightsError(
                f"codec {codec.name}: its loader needs nothing of the folder request.weights, so it would not read "
                f"those that an archive keeps; {_REMEDY}"
            )
        if path.is_file() and _problem(codec, path.parent) is None:
            return
        metadata = {"lambda": repr(codec.lmbda), "codec": codec.name, "fingerprint": codec.fingerprint.hex()}
        content = save(_small(state), metadata)
        write_atomically(trial / name, content)
        if problem := _problem(codec, trial):
            raise WeightsError(
                f"codec {codec.name}: cannot be made again of the weights that an archive keeps ({problem}); {_REMEDY}"
            )
        Staged(trial / name, len(content), hashlib.sha256(content).hexdigest()).place(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def _problem(codec: Codec, folder: Path) -> str | None:
    """Why the codec cannot be made of the weights in a folder; ``None`` if it can."""
    from lof.codecs import codec_spec

    try:
        again = codec_spec(codec.name).load(
            codec.quality, metric=codec.metric, weights=folder, device="cpu", download=False
        )
    except LofError as error:
        return str(error)
    return None if again.fingerprint == codec.fingerprint else "its fingerprint is another one then"


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
    # Tensors that share memory, as those of tied layers, have no place in a file.
    return {name: tensor.contiguous().clone() for name, tensor in (state | exact).items()}
