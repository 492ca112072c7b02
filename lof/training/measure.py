"""What trained weights are worth: float16 as they ship, real files, 8-bit images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from lof import api
from lof.codecs import Codec, trainable
from lof.containers import container, unpack
from lof.errors import TrainingError
from lof.metrics import bpp, ms_ssim, mse, psnr
from lof.pictures.picture import Picture
from lof.results import Measured

State = dict[str, Tensor]
_TABLES = ("_offset", "_quantized_cdf", "_cdf_length", "scale_table")


@dataclass(frozen=True)
class Summary:
    """Means over a set of pictures; PSNR is the mean of the pictures' own, as published figures have it."""

    images: int
    bpp: float
    psnr: float
    ms_ssim: float | None
    cost: float


def shippable(codec: str, sizes: Sequence[int], state: Mapping[str, Tensor], origin: str) -> State:
    """Weights as they ship: parameters in float16, and the entropy coder's tables computed from those.

    Raises:
        TrainingError: the weights are not of this codec's class and sizes.
    """
    family = trainable(codec)
    net = family.network(*sizes)
    parameters = dict(net.named_parameters())
    # Tables of a state are those of other weights, if it has any.
    wanted = {k: v for k, v in state.items() if not k.endswith(_TABLES)}
    rounded = {k: v.half().float() if k in parameters else v for k, v in wanted.items()}
    load_weights_into(net, rounded, origin)
    net.eval()
    net.update(force=True)
    return family.ship(net)


def load_weights_into(net: torch.nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load every tensor but the entropy coder's tables, which training does not use.

    Raises:
        TrainingError: a tensor is missing, unknown, or of another shape.
    """
    own = net.state_dict()
    kept = {key: value for key, value in state.items() if not key.endswith(_TABLES)}
    missing = sorted(key for key in own.keys() - kept.keys() if not key.endswith(_TABLES))
    unknown = sorted(kept.keys() - own.keys())
    other_shape = sorted(key for key in kept.keys() & own.keys() if kept[key].shape != own[key].shape)
    for keys, wrong in ((missing, "is missing"), (unknown, "is unknown"), (other_shape, "has another shape")):
        if keys:
            raise TrainingError(
                f"{origin}: not weights of this architecture ({keys[0]} {wrong}); check `codec` and `sizes`"
            )
    # CompressAI's networks insist on tables in what they load; their own empty ones will do.
    net.load_state_dict({key: value for key, value in own.items() if key.endswith(_TABLES)} | kept)


def measure(codec: Codec, pictures: Iterable[Picture]) -> list[Measured]:
    """Encode each picture to a file, without its metadata, decode that file, and compare.

    Raises:
        SearchError: the codec was trained for MS-SSIM and a picture is too small for it.
    """
    return [_measure(codec, picture) for picture in pictures]


def summarise(measured: Sequence[Measured]) -> Summary:
    """Means over pictures; MS-SSIM over those large enough for it."""
    similar = [m.ms_ssim for m in measured if m.ms_ssim is not None]
    return Summary(
        images=len(measured),
        bpp=fmean(m.bpp for m in measured),
        psnr=fmean(m.psnr for m in measured),
        ms_ssim=fmean(similar) if similar else None,
        cost=fmean(m.cost for m in measured),
    )


def _measure(codec: Codec, picture: Picture) -> Measured:
    height, width = picture.pixels.shape[:2]
    plain = Picture(picture.pixels)
    data = api.encode(plain, codec=codec)
    parsed = unpack(data)
    decoded = container(parsed.container).to_pixels(codec.decompress(parsed.strings, height, width).image)
    rate, error, similarity = (
        bpp(len(data), height, width),
        mse(picture.pixels, decoded),
        ms_ssim(picture.pixels, decoded),
    )
    distortion = error if codec.metric == "mse" else 1 - (similarity or 0.0)
    return Measured(len(data), rate, error, psnr(error), similarity, rate + codec.lmbda * distortion)
