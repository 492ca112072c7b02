"""From the colours of a file to 8-bit RGB, with a note for whatever is done."""

from __future__ import annotations

import io

from PIL import Image, ImageCms

from lof.errors import ImageError
from lof.pictures.headers import shown

GREY = frozenset({"1", "L", "LA", "La"})


def from_cmyk(image: Image.Image, icc: bytes | None, notes: list[str]) -> tuple[Image.Image, None]:
    """RGB of inks: sRGB by way of the profile, where it is one for them."""
    if icc is not None and icc[16:20] == b"CMYK":
        converted = _to_srgb(image, icc)
        if converted is not None:
            notes.append("CMYK converted to sRGB")
            return converted, None
    notes.append("CMYK without a usable profile converted to RGB")
    return image.convert("RGB"), None


def without_alpha(image: Image.Image, notes: list[str]) -> Image.Image:
    """RGB of what is opaque; what is not is refused."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    if rgba.getchannel("A").getextrema()[0] != 255:
        raise ImageError(
            "is transparent in places, which the codecs cannot keep; flatten it over white first"
        )
    notes.append("fully opaque alpha dropped")
    return rgba.convert("RGB")


def fit_profile(
    rgb: Image.Image, grey: bool, icc: bytes | None, notes: list[str]
) -> tuple[Image.Image, bytes | None]:
    """Apply a profile of greys; keep one of RGB; drop others."""
    space = b"RGB " if icc is None else icc[16:20]
    if icc is None or space == b"RGB ":
        return rgb, icc
    if grey and space == b"GRAY":
        converted = _to_srgb(rgb.getchannel(0), icc)
        if converted is not None:
            notes.append("grey profile converted to sRGB")
            return converted, None
    notes.append(f"ICC profile for {shown(space)} dropped, it does not fit RGB")
    return rgb, None


def _to_srgb(image: Image.Image, icc: bytes) -> Image.Image | None:
    try:
        return ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(icc)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.PERCEPTUAL,
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
