"""The cut of a picture that shows best what the search changed, kept for the report page."""

from __future__ import annotations

import hashlib
import io
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lof.errors import LofError
from lof.files.atomic import write_atomically
from lof.files.storage import Location, open_read
from lof.jobs.manifest import FOLDER
from lof.pictures.cuts import heaviest_cut
from lof.pictures.picture import Picture
from lof.pictures.refusing import pillow_errors_mapped
from lof.pictures.writing import png_bytes
from lof.results import Crops, Pixels

SIDE = 256
_STREAM = "stream sha256"


def crop_path(out: Location, source: PurePosixPath | str) -> Location:
    """Where the cut of a source is kept."""
    return out.joinpath(*crop_name(source).split("/"))


def crop_name(source: PurePosixPath | str) -> str:
    """The same, below the output folder, posix."""
    name = hashlib.sha256(str(source).encode("utf-8", "surrogatepass")).hexdigest()[:20]
    return f"{FOLDER}/crops/{name}.png"


def write_crop(
    path: Location,
    original: Pixels,
    baseline: Pixels,
    optimised: Pixels,
    region: NDArray[np.float32] | None = None,
    *,
    stream_sha256: str = "",
) -> None:
    """Keep the cut of up to 256×256 where the error fell most, as one PNG: the three side by side.

    Args:
        region: weights of the pixels, (H, W); its picture is kept beside the cut.
        stream_sha256: of the stream that is written next, see :func:`stream_of`.
    """
    fell = np.empty(original.shape[:2], np.int32)
    for top in range(0, len(fell), SIDE):  # squares of a whole large picture would take many times its memory
        rows = slice(top, top + SIDE)
        before, after = (
            np.square(original[rows].astype(np.int32) - one[rows]) for one in (baseline, optimised)
        )
        fell[rows] = (before - after).sum(2)
    cut = heaviest_cut(fell, SIDE, SIDE)
    side_by_side = np.concatenate([image[cut] for image in (original, baseline, optimised)], axis=1)
    text, buffer = PngInfo(), io.BytesIO()
    text.add_text(_STREAM, stream_sha256)
    Image.fromarray(side_by_side).save(buffer, "PNG", pnginfo=text)
    write_atomically(path, buffer.getvalue())
    if region is not None:
        grey = Image.fromarray((region * (255 / max(float(region.max()), 1e-30))).round().astype(np.uint8))
        grey.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
        write_atomically(_map_path(path), png_bytes(Picture(np.asarray(grey.convert("RGB")))))


def read_crop(path: Location) -> Crops | None:
    """What :func:`write_crop` kept, or ``None`` where that is gone, damaged or of another size than it keeps."""
    pixels = _read(path, 3 * SIDE)
    if pixels is None or pixels.shape[1] % 3:
        return None
    width = pixels.shape[1] // 3
    original, baseline, optimised = (pixels[:, i * width : (i + 1) * width] for i in range(3))
    return Crops(original, baseline, optimised, _read(_map_path(path), SIDE))


def stream_of(path: Location) -> str:
    """The SHA-256 of the stream that was written after a crop, so that it is known before the manifest tells of it.

    Empty where the crop is gone or damaged, and for crops of older versions.
    """
    try:
        with open_read(path) as file, pillow_errors_mapped(), Image.open(file, formats=("PNG",)) as image:
            return str(image.info.get(_STREAM, ""))
    except (OSError, LofError):
        return ""


def _map_path(path: Location) -> Location:
    return path.parent / f"{path.name.removesuffix('.png')}-region.png"


def _read(path: Location, width: int) -> Pixels | None:
    """A picture of up to so many pixels in width, and in height what a cut has; by the header alone, if larger."""
    try:
        with open_read(path) as file, pillow_errors_mapped(), Image.open(file, formats=("PNG",)) as image:
            if image.width > width or image.height > SIDE:
                return None
            return np.asarray(image.convert("RGB"))
    except (OSError, LofError):
        return None
