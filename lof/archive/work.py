"""What workers do to one image of an archive: search better latents, or check and decode a stream.

Workers get bytes and give bytes back; the process that runs the job alone reads sources and writes the archive.
So workers need no disk in common with it, and one that is killed leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lof.archive.schema import Row
from lof.containers import container, unpack
from lof.errors import ImageError, LofError, LowMemoryError, SearchError, UsageError, one_line
from lof.jobs import JobSettings
from lof.jobs.work import throttled
from lof.pictures.picture import Picture
from lof.pictures.reading import read_picture
from lof.pictures.region import levels_of
from lof.pictures.writing import image_bytes
from lof.pools import Work
from lof.profiles import Profile
from lof.results import Pixels, Result

if TYPE_CHECKING:
    from lof.codecs import Codec
    from lof.search import Progress
    from lof.targets import Ladder

NOT_SMALLER, BELOW_FLOOR = "stream not smaller", "below the quality floor"
FOR_TARGET, FOR_REGION = "made for a target of ", "made for a region"
"""Begin the notes of streams that `lof archive improve` leaves as they are: it knows λ, but no target and no region."""
FOR_METRIC = "made for the metric "
"""Begins the note of a stream whose cost has another metric than its codec was trained for."""
NO_IMAGE, REFUSED, TOO_LARGE, LOST = "no image", "image not taken", "file too large", "search failed"

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"BM": "BMP"} | dict.fromkeys(_TIFF, "TIFF")
_OPTIONS: dict[str, dict[str, Any]] = {
    "BMP": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "TIFF": {"compression": "tiff_deflate"},
    "WEBP": {"lossless": True},
}
FORMATS = frozenset(_OPTIONS)
"""Formats of images that streams are made of, and that are restored; all lossless but for JPEG."""
_OTHER_SYMBOLS = (
    "this machine reads other symbols in it than were written; restore it on one like that which wrote it "
    "(why: lof/codecs/hyperprior/README.md)"
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Floors:
    """The least quality of a decoded image; what misses it is stored as it is.

    Attributes:
        psnr: in dB.
        ms_ssim: 0…1. Images too small for MS-SSIM miss it.

    Raises:
        UsageError: one of them is no finite number.
    """

    psnr: float | None = None
    ms_ssim: float | None = None

    def __post_init__(self) -> None:
        for name, floor in (("psnr", self.psnr), ("ms-ssim", self.ms_ssim)):
            if floor is not None and not math.isfinite(floor):
                raise UsageError(f"--min-{name} {floor}: is no finite number; give one")

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
    """One image. ``stream`` is the one in the archive that is to be improved, with its true cost and its settings.

    ``map`` is the file that says how much each pixel counts, where the settings name such files and there is one.
    """

    path: str
    data: bytes
    stream: bytes | None = None
    cost: float = math.inf
    settings: JobSettings | None = None
    map: bytes | None = None


@dataclass(frozen=True)
class Search(Work[SearchItem, "Ladder | None", Streamed | Kept]):
    """Search latents for an image; with the settings of the item, if it has some."""

    settings: JobSettings
    floors: Floors = Floors()

    def open(self) -> Ladder | None:
        """Load the codec, which stays loaded; its qualities are what is needed, where a target is asked for."""
        self.settings.load()
        return None if self.settings.target is None else self.settings.ladder()

    def do(
        self, tool: Ladder | None, item: SearchItem, report: Callable[[Progress], None]
    ) -> Streamed | Kept:
        """Search; what is wrong with the image becomes the outcome, and the job goes on."""
        started = time.perf_counter()

        def failed(error: str) -> Kept:
            return Kept(LOST, error=error, seconds=time.perf_counter() - started)

        try:
            return self._search(item, tool, throttled(report), started)
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
            return failed(f"unexpected {type(error).__name__} ({one_line(error)}); report this")

    def lost(self, item: SearchItem, reason: str) -> Kept:
        """An image that kills its workers."""
        return Kept(LOST, error=f"{reason}; if memory is short, use fewer --jobs")

    def label(self, item: SearchItem) -> str:
        """``archive`` and the name of the image."""
        return f"archive {item.path}"

    def _search(
        self, item: SearchItem, ladder: Ladder | None, report: Callable[[Progress], None], started: float
    ) -> Streamed | Kept:
        from lof.api import optimize, optimize_to

        picture = read_picture(item.path, item.data)
        settings = item.settings or self.settings
        codec = settings.load()
        weights, notes = _weights(item, settings, *picture.pixels.shape[:2])
        if settings.total:
            raise SearchError(
                f"{item.path}: its plain encodings failed, so it has no share of the total; run the command again"
            )
        if settings.target is not None:
            assert ladder is not None
            result = optimize_to(
                picture,
                settings.target,
                ladder,
                settings.profile,
                metric=settings.metric,
                seed=settings.seed,
                region=weights,
                portable=settings.portable,
                memory=settings.memory,
                on_progress=report,
            )
            codec = settings.load(quality=result.quality)
            notes.append(f"{FOR_TARGET}{settings.target}")
        else:
            result = optimize(
                picture,
                codec=codec,
                profile=settings.profile,
                metric=settings.metric,
                lmbda=settings.lmbda,
                seed=settings.seed,
                region=weights,
                warm_start=item.stream,
                portable=settings.portable,
                memory=settings.memory,
                on_progress=report,
            )
        if settings.metric != codec.metric:
            notes.append(f"{FOR_METRIC}{settings.metric}")
        picture = replace(picture, notes=(*picture.notes, *notes))
        seconds = time.perf_counter() - started
        if len(result.data) >= len(item.data):
            return Kept(
                NOT_SMALLER, f"{len(result.data)} bytes at {result.optimised.psnr:.2f} dB", "", seconds
            )
        missed = self.floors.missed_by(result.optimised.psnr, result.optimised.ms_ssim)
        if missed is not None:
            return Kept(BELOW_FLOOR, missed, "", seconds)
        if result.optimised.cost >= item.cost:
            return Kept("no better stream found", "", "", seconds)
        return Streamed(result.data, _columns(result, codec, settings.profile, picture, item.data, seconds))


def _weights(
    item: SearchItem, settings: JobSettings, height: int, width: int
) -> tuple[NDArray[Any] | None, list[str]]:
    """How much each pixel counts, and what is to be noted about that."""
    regions = settings.regions
    try:
        if regions is None:
            return None, []
        if regions.maps is None:
            return regions.inside(height, width), [FOR_REGION]
        if item.map is not None:
            return levels_of(regions.maps, height, width, item.map), [FOR_REGION]
    except ImageError as error:
        raise SearchError(f"{item.path}: {error}") from error
    return None, [f"no map of it in {regions.maps}: all pixels count the same"]


def _columns(
    result: Result, codec: Codec, profile: Profile, picture: Picture, source: bytes, seconds: float
) -> dict[str, Any]:
    measured = result.optimised
    height, width = result.pixels.shape[:2]
    parsed = unpack(result.data)
    symbols = codec.for_size(height, width).decompress(parsed.strings, height, width).symbols
    return {
        "container": parsed.container,
        "suffix": container(parsed.container).suffix,
        "codec": codec.name,
        "quality_64": round(64 * codec.quality),
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
        "pixels_sha256": pixels_sha256_of(result.pixels),
        "symbols_sha256": symbols_sha256_of(symbols),
        "seconds": seconds,
        "notes": "\n".join([*picture.notes, *filter(None, [result.note])]),
    }


@dataclass(frozen=True)
class DecodeItem:
    """A stream, and the digests of what it decoded to when it was written.

    Attributes:
        weights: folder with those of its codec, where they are not those that lof ships.
        format: of the image file that is wanted; ``None`` for a check alone.
    """

    path: str
    stream: bytes
    pixels_sha256: str
    symbols_sha256: str
    weights: Path | None
    format: str | None = None

    @classmethod
    def of(cls, row: Row, stream: bytes, weights: Path | None, format: str | None = None) -> DecodeItem:
        """The item of a streamed row."""
        digests = row.pixels_sha256 or "", row.symbols_sha256 or ""
        return cls(row.path, stream, *digests, weights, format)


@dataclass(frozen=True)
class Decoded:
    """An image file made of a stream, empty if only a check was asked for; or what is wrong.

    Attributes:
        checked: false where the weights are not at hand that tell whether the stream is whole.
        rounded: whether single pixels are others than when it was written, as CPUs round differently; its
            symbols are the same.
    """

    data: bytes = b""
    error: str = ""
    checked: bool = True
    rounded: bool = False


class Decode(Work[DecodeItem, None, Decoded]):
    """Decode a stream, compare with the manifest, and encode the image if the item names a format."""

    def open(self) -> None:
        """Nothing: each stream names its codec, and codecs stay loaded."""

    def do(self, tool: None, item: DecodeItem, report: Callable[[Any], None]) -> Decoded:
        """Decode; what is wrong with the stream becomes the outcome, and the job goes on."""
        from lof.api import decode_stream
        from lof.encoding import codec_of

        checked = True
        try:
            parsed = unpack(item.stream, item.path)
            checked = False
            codec_of(parsed, name=item.path, weights=item.weights)
            checked = True
            picture, symbols = decode_stream(parsed, name=item.path, weights=item.weights)
            rounded = pixels_sha256_of(picture.pixels) != item.pixels_sha256
            if rounded and symbols_sha256_of(symbols) != item.symbols_sha256:
                return Decoded(error=_OTHER_SYMBOLS)
            data = b"" if item.format is None else image_bytes(picture, item.format, **_OPTIONS[item.format])
            return Decoded(data, rounded=rounded)
        except LowMemoryError as error:  # says nothing about the stream
            return Decoded(error=str(error).removeprefix(f"{item.path}: "), checked=False)
        except LofError as error:
            return Decoded(error=str(error).removeprefix(f"{item.path}: "), checked=checked)
        except MemoryError:
            return Decoded(error="not enough memory; use fewer --jobs", checked=False)
        except Exception as error:  # writers of images raise anything, such as struct.error
            _log.debug("unexpected failure", exc_info=True)
            remedy = "try the other --format" if item.format else "report this"
            what = f"encoded as {item.format}" if item.format else "decoded"
            return Decoded(error=f"cannot be {what} ({one_line(error)}); {remedy}")

    def lost(self, item: DecodeItem, reason: str) -> Decoded:
        """A stream that kills its workers."""
        return Decoded(error=reason)

    def label(self, item: DecodeItem) -> str:
        """``decode`` and the name of the image."""
        return f"decode {item.path}"


def format_of(head: bytes) -> str | None:
    """The format that a file's first 12 bytes announce, ``None`` if it is none that lof reads."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def format_named(path: str) -> str | None:
    """The format that a file's name announces, ``None`` if it is none that lof reads."""
    from PIL import Image

    known = Image.registered_extensions().get(Path(path).suffix.lower())
    return known if known in FORMATS else None


def pixels_sha256_of(pixels: Pixels) -> str:
    """SHA-256 over the size and the bytes of an image, (H, W, 3) uint8."""
    digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]} ".encode())
    digest.update(pixels.tobytes())
    return digest.hexdigest()


def symbols_sha256_of(symbols: Mapping[str, ArrayLike]) -> str:
    """SHA-256 over the names, the shapes and the values, as little-endian int64, of a stream's symbols."""
    digest = hashlib.sha256()
    for name, given in sorted(symbols.items()):
        array = np.asarray(given, "<i8")
        digest.update(f"{name} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
