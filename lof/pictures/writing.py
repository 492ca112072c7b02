"""Pictures out: image files with what their boxes say."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from lof.pictures.picture import Picture


def png_bytes(picture: Picture) -> bytes:
    """The picture as a lossless PNG file with its ICC profile and EXIF."""
    buffer = io.BytesIO()
    extra: dict[str, Any] = {} if picture.exif is None else {"exif": picture.exif}
    Image.fromarray(picture.pixels).save(buffer, "PNG", icc_profile=picture.icc, **extra)
    return buffer.getvalue()
