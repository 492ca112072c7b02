"""Methods side by side on the same images, resumed row by row: what ``pipelines.benchmark`` runs."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lof
from lof.errors import OutputError, UsageError
from lof.files.atomic import write_atomically
from lof.pictures.batches import Image
from lof.profiles import Profile, parse_profile
from lof.report.records import Record, to_json
from pipelines.benchmark_report import PLAIN
from pipelines.command import profiles_of

if TYPE_CHECKING:
    from lof.codecs import Codec

SGA_STEPS = 2000
ROOMS = ("codecs", "containers", "encoding", "pictures", "search", "api.py", "measure.py", "metrics.py")
"""Packages and modules of lof that decide what a row says."""


def sga(steps: int) -> Profile:
    """Stochastic Gumbel annealing as its authors set it (Yang et al. 2020), checked once, at its end.

    Adam at a constant 0.005, temperature ``min(0.5, exp(-0.001 (t - 700)))`` for t = 0…1999. With other than
    2000 steps the schedule keeps its shape, so that the search still ends nearly cold.
    """
    last = SGA_STEPS - 1
    stage = {
        "kind": "relax",
        "relaxation": "sga",
        "evaluations": steps,
        "learning_rate": 0.005,
        "decay": {"start": 1.0, "end": 1.0, "shape": "linear"},
        "temperature": {
            "start": 0.5,
            "end": math.exp(-0.001 * (last - 700)),
            "shape": "exponential",
            "hold": (700 - 1000 * math.log(0.5)) / last,
        },
        "check_every": steps,
    }
    return parse_profile({"name": f"SGA-{steps}", "summary": "Yang et al. 2020", "stage": [stage]})


def methods_of(profiles: str, sga_steps: int) -> list[Profile]:
    """SGA, if it has steps, and profiles from ``fast,mine.toml``.

    Raises:
        UsageError: there are none, or two of one name.
    """
    methods = [sga(sga_steps)] if sga_steps else []
    methods += profiles_of(profiles)
    names = [PLAIN, *(method.name for method in methods)]
    if len(names) == 1:
        raise UsageError("--profiles: names none, and --sga-steps is 0; nothing to compare")
    if len(set(names)) < len(names):
        raise UsageError(f"--profiles: two methods of one name among {', '.join(names)}; rename one")
    return methods


class Journal:
    """The finished rows, one JSON object a line, synced one by one.

    A line that a crash tore is dropped when the journal is opened, before anything is appended to it.

    Raises:
        OutputError: the file cannot be read or written, or a whole line of it is no row.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, dict[str, Record]()
        try:
            content = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be read ({error.strerror}); choose another place with -o"
            ) from error
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content or not path.exists():
            write_atomically(path, whole)
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                self.rows[row["key"]] = row
            except (ValueError, TypeError, KeyError) as error:
                raise OutputError(f"{path}: line {number} is no result; remove that line") from error

    def append(self, row: Record) -> None:
        """Add a row; when this returns, it survives a power cut."""
        try:
            with self.path.open("ab") as file:
                file.write(to_json(row).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); free its disk") from error
        self.rows[row["key"]] = json.loads(to_json(row))


class Runner:
    """Measures what the journal lacks: image by image, rate point by rate point, all methods side by side.

    ``rows`` are those of this run's settings, measured now or before.
    """

    def __init__(
        self, journal: Journal, codecs: Sequence[Codec], methods: Sequence[Profile], settings: Record
    ) -> None:
        self.journal, self.codecs, self.methods, self.settings = journal, codecs, methods, settings
        self.rows: list[Record] = []
        self._warm: set[tuple[Any, ...]] = set()

    def run(self, images: list[Image]) -> Iterator[str]:
        """Measure images of one size; yields what was done after every method at every rate point."""
        for codec in self.codecs:
            for method in self.methods:
                self._search(codec, method, images)
                yield f"{images[0].name}  q{codec.quality:.10g}  {method.name}"
            for image in images:
                self._plain(codec, image)

    def _search(self, codec: Codec, method: Profile, images: list[Image]) -> None:
        keys = {image.name: self._key(codec, method.digest, image) for image in images}
        missing = [image for image in images if keys[image.name] not in self.journal.rows]
        if missing:
            self._warm_up(codec, missing)
            # Widening is the same work after every method, and a small image pays for it most.
            found = lof.optimize_batch(
                [i.picture for i in missing], codec, method, seed=self.settings["seed"], portable=False
            )
            for image, result in zip(missing, found, strict=True):
                self._append(keys[image.name], image, method.name, codec, result.record())
        self.rows += [self._named(keys[image.name], method.name) for image in images]

    def _plain(self, codec: Codec, image: Image) -> None:
        """Every search measures the plain encoding; here it is timed alone and gets a row of its own."""
        key = self._key(codec, PLAIN, image)
        if key not in self.journal.rows:
            started = time.perf_counter()
            lof.encode(image.picture, codec=codec)
            seconds = time.perf_counter() - started
            measured = self._searched(image, codec)
            figures = {
                "profile": PLAIN,
                "kept": "plain",
                "optimised": measured["baseline"],
                "rate_change": 0.0,
                "evaluations": 0,
                "seconds": seconds,
            }
            self._append(key, image, PLAIN, codec, measured | figures)
        self.rows.append(self.journal.rows[key])

    def _searched(self, image: Image, codec: Codec) -> Record:
        return next(
            r for r in reversed(self.rows) if (r["image"], r["quality"]) == (image.name, codec.quality)
        )

    def _warm_up(self, codec: Codec, images: list[Image]) -> None:
        """Two steps on an image of this size, so that no row pays for first-call costs."""
        shape = (codec.quality, len(images), *images[0].picture.pixels.shape)
        if shape not in self._warm:
            lof.optimize_batch([image.picture for image in images], codec, sga(2), portable=False)
            self._warm.add(shape)

    def _key(self, codec: Codec, digest: str, image: Image) -> str:
        parts = [
            image.name,
            image.digest,
            codec.name,
            codec.quality,
            codec.fingerprint.hex(),
            codec.lmbda,
            digest,
        ]
        content = json.dumps([*parts, self.settings], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def _named(self, key: str, method: str) -> Record:
        # A profile may have been renamed since: its digest, not its name, decides what it found.
        return self.journal.rows[key] | {"method": method}

    def _append(self, key: str, image: Image, method: str, codec: Codec, record: Record) -> None:
        about = {"key": key, "image": image.name, "method": method, "code": code_digest()}
        weights = {"fingerprint": codec.fingerprint.hex()[:16]}
        figures = {name: value for name, value in record.items() if name != "trace"}
        self.journal.append(figures | about | weights | {"settings": self.settings})


def code_digest() -> str:
    """8 hexadecimal digits over the source of :data:`ROOMS`: tells versions apart."""
    package = Path(lof.__file__).parent
    digest = hashlib.sha256()
    for path in (package / room for room in ROOMS):
        for module in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(module.read_bytes())
    return digest.hexdigest()[:8]
