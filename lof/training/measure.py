"""What trained weights are worth: as they ship, real files, 8-bit images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from safetensors.torch import save as to_safetensors

from lof import api
from lof.codecs import Codec, codec_spec
from lof.codecs.training import shipped
from lof.containers import container, unpack
from lof.files.atomic import write_atomically
from lof.measure import TrueCost
from lof.pictures.picture import Picture
from lof.results import Measured, Pixels
from lof.training.trained import Trained


@dataclass(frozen=True)
class Means:
    """Means over a set of pictures; PSNR is the mean of the pictures' own, as published figures have it."""

    images: int
    bpp: float
    psnr: float
    ms_ssim: float | None
    cost: float


def write_weights(trained: Trained, folder: Path) -> Path:
    """Write trained weights as they ship; all about them must be known, but where one network serves all rates.

    Raises:
        TrainingError: the weights are not of this codec's family, or damaged.
        OutputError: ``folder`` cannot be written.
    """
    assert trained.codec is not None
    found = shipped(trained.codec, trained.state, trained.metric, trained.quality, str(trained.path))
    stated = {} if trained.lmbda is None else {"lambda": repr(trained.lmbda)}
    path = folder / found.name
    write_atomically(path, to_safetensors(found.tensors, {**found.metadata, **stated}))
    return path


def load_written(trained: Trained, path: Path, quality: float) -> Codec:
    """The codec whose weights are at ``path``, through its ordinary loader, on the CPU in float32."""
    assert trained.codec is not None
    return codec_spec(trained.codec).load(
        quality,
        metric=trained.metric,
        weights=path.parent,
        device="cpu",
        precision="fp32",
        lmbda=trained.lmbda,
    )


def measure(codec: Codec, pictures: Iterable[Picture]) -> list[Measured]:
    """Encode each picture to a file, without its metadata, decode that file, and compare.

    Raises:
        SearchError: the codec was trained for MS-SSIM and a picture is too small for it.
    """
    return [_measure(codec, picture) for picture in pictures]


def decoded(codec: Codec, data: bytes, height: int, width: int) -> Pixels:
    """The picture of a file, (height, width, 3) uint8, through the codec that wrote it."""
    parsed = unpack(data)
    image = codec.for_size(height, width).decompress(parsed.strings, height, width).image
    return container(parsed.container).to_pixels(image)


def summarise(measured: Sequence[Measured]) -> Means:
    """Means over pictures; MS-SSIM over those large enough for it."""
    similar = [m.ms_ssim for m in measured if m.ms_ssim is not None]
    return Means(
        images=len(measured),
        bpp=fmean(m.bpp for m in measured),
        psnr=fmean(m.psnr for m in measured),
        ms_ssim=fmean(similar) if similar else None,
        cost=fmean(m.cost for m in measured),
    )


def _measure(codec: Codec, picture: Picture) -> Measured:
    height, width = picture.pixels.shape[:2]
    data = api.encode(Picture(picture.pixels), codec=codec)
    shown = decoded(codec, data, height, width)
    return TrueCost(picture.pixels, codec.lmbda, codec.metric).measure(len(data), shown)
