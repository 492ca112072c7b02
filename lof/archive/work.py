"""What workers do to one image of an archive: search better latents, or check and decode a stream.

Workers get bytes and give bytes back; the process that runs the job alone reads sources and writes the archive.
So workers need no disk in common with it, and one that is killed leaves nothing behind.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from lof.archive.digests import pixels_digest, symbols_digest
from lof.archive.weights import kept_weights
from lof.containers import unpack
from lof.errors import ImageError, LofError
from lof.jobs import JobSettings
from lof.jobs.work import throttled
from lof.metrics import bpp, ms_ssim, mse
from lof.pictures.picture import Picture
from lof.pictures.reading import read_picture
from lof.pools import Work
from lof.profiles import Profile
from lof.results import Pixels, Result

if TYPE_CHECKING:
    from lof.codecs import Codec
    from lof.search import Progress

NOT_SMALLER, BELOW_FLOOR = "stream not smaller", "below the quality floor"
NO_IMAGE, REFUSED, TOO_LARGE, LOST = "no image", "image not taken", "file too large", "search failed"

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"BM": "BMP"} | dict.fromkeys(_TIFF, "TIFF")
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_deflate"},
}
_OTHER_SYMBOLS = (
    "this machine reads other symbols in it than were written; restore it on one like that which wrote it "
    "(see Limits in the README)"
)
_OTHER_PIXELS = (
    "decodes to other pixels than when an older lof wrote it, which noted nothing that tells damage from another "
    "rounding; try other --jobs or the machine that wrote it"
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Floors:
    """The least quality of a decoded image; what misses it is stored as it is.

    Attributes:
        psnr: in dB.
        ms_ssim: 0…1. Images too small for MS-SSIM miss it.
    """

    psnr: float | None = None
    ms_ssim: float | None = None

    def missed_by(self, psnr: float, ms_ssim: float | None) -> str | None:
        """What misses which floor, in words."""
        if self.psnr is not None and psnr < self.psnr:
            return f"PSNR {psnr:.2f} dB is below {self.psnr:g} dB"
        if self.ms_ssim is not None and ms_ssim is None:
            return "too small for MS-SSIM"
        if self.ms_ssim is not None and ms_ssim is not None and ms_ssim < self.ms_ssim:
            return f"MS-SSIM {ms_ssim:.4f} is below {self.ms_ssim:g}"
        return None


@dataclass(frozen=True)
class Streamed:
    """A stream, and the columns of its row that tell about it."""

    data: bytes
    columns: dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """The image stays as it is in the archive or comes there as it is: why, and what went wrong if anything did."""

    why: str
    detail: str = ""
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class SearchItem:
    """One image. ``stream`` is the one in the archive that is to be improved, with what it was made with."""

    path: str
    data: bytes
    stream: bytes | None = None
    settings: JobSettings | None = None


@dataclass(frozen=True)
class Search(Work[SearchItem, None, Streamed | Kept]):
    """Search latents for an image; with the settings of the item, if it has some."""

    settings: JobSettings
    floors: Floors = Floors()

    def open(self) -> None:
        """Load the codec; codecs stay loaded."""
        self.settings.load()

    def do(self, tool: None, item: SearchItem, report: Callable[[Progress], None]) -> Streamed | Kept:
        """What is wrong with one image is no exception."""
        started = time.perf_counter()

        def failed(error: str) -> Kept:
            return Kept(LOST, error=error, seconds=time.perf_counter() - started)

        try:
            return self._search(item, throttled(report), started)
        except ConnectionError:  # nobody is left to tell
            raise
        except ImageError as error:
            return Kept(REFUSED, detail=str(error).removeprefix(f"{item.path}: "))
        except LofError as error:
            return failed(str(error))
        except MemoryError:
            return failed("not enough memory; use fewer --jobs")
        except Exception as error:
            _log.debug("unexpected failure", exc_info=True)
            return failed(
                f"unexpected {type(error).__name__} ({' '.join(str(error).split())[:200]}); report this"
            )

    def lost(self, item: SearchItem, reason: str) -> Kept:
        """An image that kills its workers."""
        return Kept(LOST, error=f"{reason}; if memory is short, use fewer --jobs")

    def label(self, item: SearchItem) -> str:
        """``archive`` and the name of the image."""
        return f"archive {item.path}"

    def _search(
        self, item: SearchItem, report: Callable[[Progress], None], started: float
    ) -> Streamed | Kept:
        from lof.api import optimize

        picture = read_picture(item.path, item.data)
        settings = item.settings or self.settings
        codec = settings.load()
        result = optimize(
            picture,
            codec=codec,
            profile=settings.profile,
            lmbda=settings.lmbda,
            seed=settings.seed,
            warm_start=item.stream,
            portable=True,
            on_progress=report,
        )
        seconds = time.perf_counter() - started
        if len(result.data) >= len(item.data):
            return Kept(
                NOT_SMALLER, f"{len(result.data)} bytes at {result.optimised.psnr:.2f} dB", "", seconds
            )
        missed = self.floors.missed_by(result.optimised.psnr, result.optimised.ms_ssim)
        if missed is not None:
            return Kept(BELOW_FLOOR, missed, "", seconds)
        if item.stream is not None and not _is_better(result, item.stream, picture.pixels, settings):
            return Kept("no better stream found", "", "", seconds)
        return Streamed(result.data, _columns(result, codec, settings.profile, picture, item.data, seconds))


def _is_better(result: Result, stream: bytes, original: Pixels, settings: JobSettings) -> bool:
    """Whether the true cost of a result is lower than that of the stream it would replace."""
    from lof.api import decode

    decoded = decode(stream, weights=settings.weights).pixels
    distortion = mse(original, decoded)
    if settings.metric == "ms-ssim":
        distortion = 1 - (ms_ssim(original, decoded) or 0.0)
    return result.optimised.cost < bpp(len(stream), *original.shape[:2]) + result.lmbda * distortion


def _columns(
    result: Result, codec: Codec, profile: Profile, picture: Picture, source: bytes, seconds: float
) -> dict[str, Any]:
    measured = result.optimised
    height, width = result.pixels.shape[:2]
    symbols = codec.decompress(unpack(result.data).strings, height, width).symbols
    return {
        "codec": codec.name,
        "quality": codec.quality,
        "metric": codec.metric,
        "fingerprint": codec.fingerprint.hex(),
        "profile": result.profile,
        "profile_digest": profile.digest,
        "lmbda": result.lmbda,
        "seed": result.seed,
        "format": format_of(source[:12]),
        "height": height,
        "width": width,
        "bpp": measured.bpp,
        "psnr": measured.psnr,
        "ms_ssim": measured.ms_ssim,
        "cost": measured.cost,
        "pixels_sha256": pixels_digest(result.pixels),
        "symbols_sha256": symbols_digest(symbols),
        "seconds": seconds,
        "detail": "; ".join(picture.notes),
    }


@dataclass(frozen=True)
class DecodeItem:
    """A stream, and the digests of what it decoded to when it was written."""

    path: str
    stream: bytes
    pixels_sha256: str
    symbols_sha256: str | None
    format: str | None = None


@dataclass(frozen=True)
class Decoded:
    """An image file made of a stream, empty if only a check was asked for; or what is wrong.

    Attributes:
        checked: false where it cannot be told whether the stream is whole: the weights it needs are not at
            hand, or an older lof noted no symbols.
        rounded: whether single pixels are others than when it was written, as CPUs round differently; its
            symbols are the same.
    """

    data: bytes = b""
    error: str = ""
    checked: bool = True
    rounded: bool = False


@dataclass(frozen=True)
class Decode(Work[DecodeItem, None, Decoded]):
    """Decode a stream, compare with the manifest, and encode the image if the item names a format.

    Attributes:
        weights: a folder that the user named; else those of ``archive``, where lof no longer ships them.
    """

    weights: Path | None = None
    archive: Path | None = None

    def open(self) -> None:
        """Nothing: each stream names its codec, and codecs stay loaded."""

    def do(self, tool: None, item: DecodeItem, report: Callable[[Any], None]) -> Decoded:
        """What is wrong with one stream is no exception."""
        from lof.api import codec_of, decode_stream

        checked = True
        try:
            parsed = unpack(item.stream, item.path)
            weights = self.weights or kept_weights(
                self.archive, parsed.codec, parsed.quality, parsed.metric, parsed.fingerprint.hex()
            )
            checked = False
            codec = codec_of(parsed, name=item.path, weights=weights)
            checked = True
            picture = decode_stream(parsed, name=item.path, weights=weights)
            rounded = pixels_digest(picture.pixels) != item.pixels_sha256
            if rounded:
                symbols = codec.decompress(parsed.strings, parsed.height, parsed.width).symbols
                if symbols_digest(symbols) != item.symbols_sha256:
                    told = item.symbols_sha256 is not None
                    return Decoded(error=_OTHER_SYMBOLS if told else _OTHER_PIXELS, checked=told)
            data = b"" if item.format is None else encoded(picture, item.format)
            return Decoded(data, rounded=rounded)
        except LofError as error:
            return Decoded(error=str(error).removeprefix(f"{item.path}: "), checked=checked)
        except (OSError, ValueError, MemoryError) as error:
            return Decoded(error=f"cannot be encoded as {item.format} ({error})")

    def lost(self, item: DecodeItem, reason: str) -> Decoded:
        """A stream that kills its workers."""
        return Decoded(error=reason)

    def label(self, item: DecodeItem) -> str:
        """``decode`` and the name of the image."""
        return f"decode {item.path}"


def encoded(picture: Picture, format: str) -> bytes:
    """A picture as an image file with its ICC profile and EXIF: lossless, but for ``JPEG`` (quality 95, 4:4:4)."""
    options = dict(_OPTIONS.get(format, {}))
    if picture.icc:
        options["icc_profile"] = picture.icc
    if picture.exif and format != "BMP":
        options["exif"] = b"Exif\0\0" + picture.exif if format == "JPEG" else picture.exif
    buffer = io.BytesIO()
    Image.fromarray(picture.pixels).save(buffer, format, **options)
    return buffer.getvalue()


def format_of(head: bytes) -> str | None:
    """The format that a file's first 12 bytes announce, ``None`` if it is none that lof reads."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
