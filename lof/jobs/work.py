"""Images of a job, from the source files to the streams. Runs in the process that does the work."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lof.containers import container
from lof.errors import ImageError, LofError, one_line
from lof.files.atomic import remove_leftovers, write_atomically
from lof.files.inputs import Source, output_name, output_path
from lof.files.storage import Location, is_remote, read_bytes, sha256, size_and_version
from lof.jobs.batches import Batch
from lof.jobs.crops import crop_path, write_crop
from lof.jobs.events import Record
from lof.jobs.settings import JobSettings
from lof.pictures.formats import FORMATS, bytes_at, require_formats
from lof.pictures.picture import Picture
from lof.pictures.reading import read_picture
from lof.pools import Work
from lof.results import Target

if TYPE_CHECKING:
    from lof.codecs import Codec
    from lof.results import Result
    from lof.search import Progress
    from lof.targets import Ladder

OnProgress = Callable[[tuple[tuple[int, ...], "Progress"]], None]

_PAUSE = 0.2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Opened:
    source: Source
    picture: Picture
    notes: list[str]
    identity: Record
    weights: NDArray[Any] | None = None


@dataclass(frozen=True)
class Tools:
    """What a worker has for all of its images: the codec, and its qualities where a target is asked for."""

    codec: Codec
    ladder: Ladder | None = None


@dataclass(frozen=True)
class Optimise(Work[Batch, Tools, list[Record]]):
    """A job's work, as the pools take it: a batch's outcome is a record for each of its images.

    What it reports: which images of the batch (their places in it), and their search's progress, a few times per second
    at most.

    Attributes:
        until: as for :func:`lof.jobs.run_job`.
        known: records of images that are done, by source; only what they lack of other formats is found.
        shares: the most bytes for each image, by source, where the target is for all of them together.
    """

    out: Location
    settings: JobSettings
    until: float | None = None
    known: Mapping[str, Record] = field(default_factory=dict)
    shares: Mapping[str, int] = field(default_factory=dict)

    def open(self) -> Tools:
        """The codec, on the job's device; this process may be on a machine that cannot write the other formats."""
        require_formats(self.settings.against, "--against")
        codec = self.settings.load()
        return Tools(codec, None if self.settings.target is None else self.settings.ladder())

    def do(self, tool: Tools, item: Batch, report: OnProgress) -> list[Record]:
        """Read, search together, write; the records say how it went, in the order of the batch.

        A bad image costs that image alone: those that turn out to be of other sizes, or whose batch fails, are searched
        without the others.
        """
        records: dict[int, Record] = {}
        sizes: dict[tuple[int, ...], dict[int, _Opened]] = {}
        for place, source in enumerate(item):
            if known := self.known.get(source.relative.as_posix()):
                records[place] = self._completed(source, known)
                continue
            with _failures_recorded(source, records, place):
                opened = _open(source, self.settings)
                sizes.setdefault(opened.picture.pixels.shape, {})[place] = opened
        for group in sizes.values():
            if len(group) > 1 and self.settings.target is None and self.settings.memory is None:
                try:
                    records |= self._search(group, tool, report)
                    continue
                except ConnectionError:
                    raise
                except Exception:
                    _log.debug("a batch failed; its images are done one by one", exc_info=True)
            for place, opened in group.items():
                with _failures_recorded(opened.source, records, place):
                    records |= self._search({place: opened}, tool, report)
        return [records[place] for place in range(len(item))]

    def lost(self, item: Batch, reason: str) -> list[Record]:
        """The record of an image that is set aside."""
        remedy = "if memory is short, scale the image down or use fewer --jobs"
        failed = [failed_record(source, f"{source.path}: {reason}; {remedy}") for source in item]
        return [self._kept(record) for record in failed]

    def clean_up(self, item: Batch) -> None:
        """Remove the temporary files of the streams and the crops."""
        remove_leftovers(path for source in item for path in self._written_for(source))

    def split(self, item: Batch) -> list[Batch]:
        """Image by image."""
        return [(source,) for source in item]

    def label(self, item: Batch) -> str:
        """``optimize`` and the name of the first image."""
        more = f" and {len(item) - 1} more" if len(item) > 1 else ""
        return f"optimize {item[0].relative}{more}"

    def _written_for(self, source: Source) -> tuple[Location, Location]:
        """Stream and crop."""
        stream = output_path(source, self.out, self.settings.suffix)
        return stream, crop_path(self.out, source.relative)

    def _search(self, group: dict[int, _Opened], tool: Tools, on_progress: OnProgress) -> dict[int, Record]:
        """Images of one size at once; records by their places in the batch."""
        from lof.api import optimize_batch
        from lof.search import StopSearch

        places, images = tuple(group), list(group.values())
        report = throttled(lambda progress: on_progress((places, progress)))
        cut = False

        def progressed(progress: Progress) -> None:
            nonlocal cut
            report(progress)
            if (
                self.until is not None
                and time.time() >= self.until
                and progress.evaluations < progress.budget
            ):
                cut = True
                raise StopSearch

        try:
            results = self._to_target(images, tool.ladder, progressed) or optimize_batch(
                [opened.picture for opened in images],
                tool.codec,
                self.settings.profile,
                metric=self.settings.metric,
                lmbda=self.settings.lmbda,
                seed=self.settings.seed,
                format=self.settings.format,
                portable=self.settings.portable,
                never_bigger=self.settings.never_bigger,
                memory=self.settings.memory,
                regions=_regions(images),
                on_progress=progressed,
            )
        except LofError as error:  # the search does not know the file's name
            raise type(error)(f"{images[0].source.path}: {error}") from error
        late = ["search cut short by the deadline"] if cut else []
        return {
            place: self._write(opened, result, late)
            for place, opened, result in zip(places, images, results, strict=True)
        }

    def _completed(self, source: Source, record: Record) -> Record:
        """The record of an image that is done, with the formats that it lacks."""
        failed: dict[int, Record] = {}
        with _failures_recorded(source, failed, 0):
            picture, _ = read_source(source.path)
            return record | self._against(picture, record["optimised"]["psnr"], record.get("against", {}))
        return self._kept(failed[0])

    def _kept(self, failed: Record) -> Record:
        """A failure's record; that of an image that is done stays, with a note."""
        known = self.known.get(failed["source"])
        if known is None:
            return failed
        return known | {"notes": [*known["notes"], f"not compared with other formats ({failed['error']})"]}

    def _against(self, picture: Picture, psnr: float, known: Mapping[str, int | None]) -> Record:
        missing = [name for name in self.settings.against if name not in known]
        if not missing:
            return {}
        found = {name: bytes_at(picture.pixels, psnr, FORMATS[name]) for name in missing}
        return {"against": {**known, **found}}

    def _to_target(
        self, images: list[_Opened], ladder: Ladder | None, on_progress: Callable[[Progress], None]
    ) -> list[Result]:
        """Files of the size or the quality that is asked for; none where nothing is."""
        from lof.api import optimize_to

        settings = self.settings
        if settings.target is None:
            return []
        assert ladder is not None
        return [
            optimize_to(
                opened.picture,
                self._share(opened.source) if settings.total else settings.target,
                ladder,
                settings.profile,
                metric=settings.metric,
                seed=settings.seed,
                format=settings.format,
                region=opened.weights,
                portable=settings.portable,
                memory=settings.memory,
                on_progress=on_progress,
            )
            for opened in images
        ]

    def _share(self, source: Source) -> Target:
        size = self.shares.get(source.relative.as_posix())
        if size is None:
            raise ImageError(
                f"{source.path}: its plain encodings failed, so it has no share of the total; run the command again"
            )
        return Target(size=size)

    def _write(self, opened: _Opened, result: Result, late: list[str]) -> Record:
        source = opened.source
        stream, crop = self._written_for(source)
        digest = hashlib.sha256(result.data).hexdigest()
        write_crop(
            crop,
            opened.picture.pixels,
            result.baseline_pixels,
            result.pixels,
            opened.weights,
            stream_sha256=digest,
        )
        write_atomically(stream, result.data)
        return (
            result.record()
            | opened.identity
            | self._against(opened.picture, result.optimised.psnr, {})
            | {
                "source": source.relative.as_posix(),
                "output": output_name(source, self.settings.suffix),
                "output_sha256": digest,
                **(
                    {"total": self.settings.target.size}
                    if self.settings.total and self.settings.target
                    else {}
                ),
                "notes": [*opened.notes, *filter(None, [result.note]), *late],
                "state": "done",
            }
        )


@contextmanager
def _failures_recorded(source: Source, records: dict[int, Record], place: int) -> Iterator[None]:
    try:
        yield
        return
    except ConnectionError:  # nobody is left to tell
        raise
    except LofError as error:
        text = str(error)
    except MemoryError:
        text = f"{source.path}: not enough memory; scale it down or use fewer --jobs"
    except Exception as error:
        _log.debug("unexpected failure", exc_info=True)
        what = f"unexpected {type(error).__name__} ({one_line(error)})"
        text = f"{source.path}: {what}; leave it out or report this"
    records[place] = failed_record(source, text)


def failed_record(source: Source, error: str) -> Record:
    """The record of an image that is set aside; ``error`` becomes one line."""
    return {"source": source.relative.as_posix(), "state": "failed", "error": " ".join(error.split())}


def _open(source: Source, settings: JobSettings) -> _Opened:
    picture, identity = read_source(source.path)
    picture, notes = without_metadata(picture, settings)
    weights = None
    if settings.regions is not None:
        try:
            # Before the map itself is read: were it replaced in between, the image would be done again.
            if known := settings.regions.map_sha256(source.relative):
                identity |= {"map_sha256": known}
            weights = settings.regions.weights(source.relative, *picture.pixels.shape[:2])
        except ImageError as error:
            raise ImageError(f"{source.path}: {error}") from error
        notes += (
            []
            if weights is not None
            else [f"no map of it in {settings.regions.maps}: all pixels count the same"]
        )
    return _Opened(source, picture, notes, identity, weights)


def _regions(images: Sequence[_Opened]) -> list[NDArray[Any]] | None:
    if all(opened.weights is None for opened in images):
        return None
    return [
        np.ones(opened.picture.pixels.shape[:2]) if opened.weights is None else opened.weights
        for opened in images
    ]


def read_source(path: Location) -> tuple[Picture, Record]:
    """A picture, and the size and the SHA-256 of its file, which has not changed meanwhile."""
    before = size_and_version(path)
    if is_remote(path):
        try:
            content = read_bytes(path)
        except OSError as error:
            raise ImageError(f"{path}: cannot be read ({error.strerror}); check the network") from error
        picture, digest = read_picture(path, content), hashlib.sha256(content).hexdigest()
    else:
        picture, digest = read_picture(path), sha256(path)
    if before is None or before != size_and_version(path):
        raise ImageError(f"{path}: changed while it was read; run the same command again")
    return picture, {"source_size": before[0], "source_sha256": digest}


def without_metadata(picture: Picture, settings: JobSettings) -> tuple[Picture, list[str]]:
    """The picture as it is written, and notes about what is left out."""
    kind = container(settings.format)
    lost = {box: data for box, data in picture.boxes.items() if settings.strip or not kind.keeps(box, data)}
    if not lost:
        return picture, list(picture.notes)
    why = "stripped" if settings.strip else f"dropped, which --format {settings.format} cannot hold"
    kept = {box: data for box, data in picture.boxes.items() if box not in lost}
    return replace(picture, boxes=kept), [*picture.notes, f"{replace(picture, boxes=lost).held} {why}"]


def throttled(on_progress: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """``on_progress``, called a few times per second at most."""
    last = -_PAUSE

    def pass_on(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PAUSE:
            last = now
            on_progress(progress)

    return pass_on
