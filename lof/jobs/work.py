"""One image of a job, from the source file to the stream on disk. Runs in the process that does the work."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lof.errors import ImageError, LofError
from lof.files import sha256, write_atomically
from lof.images import Picture, read_picture
from lof.inputs import Source, output_path
from lof.jobs.crops import crop_path, write_crop
from lof.jobs.events import Failed, Finished, Record
from lof.jobs.leftovers import remove_leftovers
from lof.jobs.settings import JobSettings
from lof.pools import Work

if TYPE_CHECKING:
    from lof.codecs import Codec
    from lof.search import Progress

_PAUSE = 0.2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Optimise(Work[Source, "Codec", Record]):
    """A job's work, as the pools take it: a source's outcome is its record."""

    out: Path
    settings: JobSettings

    def open(self) -> Codec:
        """The codec, on the job's device."""
        return self.settings.load()

    def do(self, tool: Codec, item: Source, report: Callable[[Progress], None]) -> Record:
        """See :func:`optimise_file`."""
        return optimise_file(item, self.out, self.settings, tool, report)

    def lost(self, item: Source, reason: str) -> Record:
        """The record of an image that is set aside."""
        remedy = "if memory is short, scale the image down or use fewer --jobs"
        return failed_record(item, f"{item.path}: {reason}; {remedy}")

    def clean_up(self, item: Source) -> None:
        """Remove the temporary files of its stream and its crop."""
        remove_leftovers(written_for(item, self.out, self.settings))

    def label(self, item: Source) -> str:
        """``optimize`` and the name of the image."""
        return f"optimize {item.relative}"


def written_for(source: Source, out: Path, settings: JobSettings) -> list[Path]:
    """The files that :func:`optimise_file` writes."""
    return [output_path(source, out, settings.suffix), crop_path(out, source.relative)]


def outcome(source: Source, record: Record) -> Finished | Failed:
    """The event that a record stands for."""
    return Finished(source, record) if record["state"] == "done" else Failed(source, record)


def failed_record(source: Source, error: str) -> Record:
    """The record of an image that is set aside; ``error`` becomes one line."""
    return {"source": source.relative.as_posix(), "state": "failed", "error": " ".join(error.split())}


def optimise_file(
    source: Source, out: Path, settings: JobSettings, codec: Codec, on_progress: Callable[[Progress], None]
) -> Record:
    """Read, search, write; the record says how it went. What is wrong with one image is no exception here.

    Args:
        on_progress: called a few times per second at most.
    """
    try:
        return _optimise(source, out, settings, codec, _throttled(on_progress))
    except ConnectionError:  # nobody is left to tell
        raise
    except LofError as error:
        return failed_record(source, str(error))
    except MemoryError:
        return failed_record(source, f"{source.path}: not enough memory; scale it down or use fewer --jobs")
    except Exception as error:
        _log.debug("unexpected failure", exc_info=True)
        what = f"unexpected {type(error).__name__} ({_first_line(error)})"
        return failed_record(source, f"{source.path}: {what}; leave it out or report this")


def _optimise(
    source: Source, out: Path, settings: JobSettings, codec: Codec, on_progress: Callable[[Progress], None]
) -> Record:
    from lof.api import optimize

    picture, identity = _read(source.path)
    picture, notes = _without_metadata(picture, settings)
    try:
        result = optimize(
            picture,
            codec=codec,
            profile=settings.profile,
            lmbda=settings.lmbda,
            seed=settings.seed,
            format=settings.format,
            on_progress=on_progress,
        )
    except LofError as error:  # the search does not know the file's name
        raise type(error)(f"{source.path}: {error}") from error
    output = output_path(source, out, settings.suffix)
    write_crop(crop_path(out, source.relative), picture.pixels, result.baseline_pixels, result.pixels)
    write_atomically(output, result.data)
    return (
        result.record()
        | identity
        | {
            "source": source.relative.as_posix(),
            "output": output.relative_to(out).as_posix(),
            "output_sha256": hashlib.sha256(result.data).hexdigest(),
            "notes": notes,
            "state": "done",
        }
    )


def _read(path: Path) -> tuple[Picture, Record]:
    before = size_and_time(path)
    picture = read_picture(path)
    digest = sha256(path)
    if before is None or before != size_and_time(path):
        raise ImageError(f"{path}: changed while it was read; run the same command again")
    return picture, {"source_size": before[0], "source_sha256": digest}


def size_and_time(path: Path) -> tuple[int, int] | None:
    """Length in bytes and time of the last change in nanoseconds; ``None`` where there is no such file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _without_metadata(picture: Picture, settings: JobSettings) -> tuple[Picture, list[str]]:
    notes = list(picture.notes)
    held = [name for name, data in (("ICC profile", picture.icc), ("EXIF", picture.exif)) if data]
    if held and settings.strip:
        notes.append(f"{' and '.join(held)} stripped")
    elif held and settings.format != "lof":
        notes.append(f"{' and '.join(held)} dropped, which --format {settings.format} cannot hold")
    else:
        return picture, notes
    return replace(picture, icc=None, exif=None), notes


def _throttled(on_progress: Callable[[Progress], None]) -> Callable[[Progress], None]:
    last = -_PAUSE

    def pass_on(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PAUSE:
            last = now
            on_progress(progress)

    return pass_on


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no details"
