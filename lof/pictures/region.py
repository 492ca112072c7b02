"""How much each pixel counts, as a command gets it: rectangles, or a grey picture for each image."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lof.errors import ImageError, UsageError
from lof.files.storage import sha256
from lof.pictures.reading import read_picture

_RECTANGLE = re.compile(r"(\d+),(\d+),(\d+),(\d+)=(\d+\.?\d*)")


@dataclass(frozen=True)
class Regions:
    """The maps of a job's images.

    Attributes:
        rectangles: x, y, width, height in pixels, and the weight of the pixels inside; those outside have 1. Of two
            that overlap, the later one counts.
        maps: a grey picture, or a folder of them, whose levels are the weights; ``None`` for rectangles.
    """

    rectangles: tuple[tuple[int, int, int, int, float], ...] = ()
    maps: Path | None = None

    @classmethod
    def parse(cls, texts: tuple[str, ...]) -> Regions | None:
        """What ``--region`` was given; ``None`` for nothing.

        Raises:
            UsageError: a text is neither a rectangle nor a path, or there is more than one path.
        """
        found = [_RECTANGLE.fullmatch(text) for text in texts]
        if not texts:
            return None
        if all(found):
            return cls(tuple((*map(int, m.groups()[:4]), float(m[5])) for m in found if m))  # type: ignore[misc]
        if len(texts) > 1 or "=" in texts[0] or not texts[0]:
            raise UsageError(
                f"--region {' '.join(texts)}: give x,y,width,height=weight, as 40,20,200,100=4, once or more, "
                "or one grey picture or folder of them"
            )
        path = Path(texts[0])
        if not (path.is_file() or path.is_dir()):
            raise UsageError(f"--region {path}: is no file and no folder; check the name")
        return cls(maps=path)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits over all that decides the maps.

        Raises:
            UsageError: a file cannot be read.
        """
        digest = hashlib.sha256(repr(self.rectangles).encode())
        if self.maps is not None:
            files = (
                [self.maps] if self.maps.is_file() else sorted(p for p in self.maps.rglob("*") if p.is_file())
            )
            for path in files:
                digest.update(f"{path.relative_to(self.maps)}\0".encode("utf-8", "surrogateescape"))
                try:
                    digest.update(hashlib.sha256(path.read_bytes()).digest())
                except OSError as error:
                    raise UsageError(
                        f"--region {path}: cannot be read ({error.strerror}); check its permissions"
                    ) from error
        return digest.hexdigest()[:16]

    @property
    def common(self) -> str:
        """:attr:`digest` without the files of a folder, which are of one image each."""
        return "a folder of maps" if self.maps is not None and self.maps.is_dir() else self.digest

    def map_sha256(self, source: PurePosixPath) -> str | None:
        """SHA-256 of the map that a folder has of an image, ``None`` without; arguments as for :meth:`weights`.

        Raises:
            ImageError: it cannot be read.
        """
        place = self.map_of(source) if self.maps is not None and self.maps.is_dir() else None
        try:
            return None if place is None else sha256(place)
        except OSError as error:
            raise ImageError(
                f"its map {place} cannot be read ({error.strerror}); check its permissions"
            ) from error

    def weights(self, source: PurePosixPath, height: int, width: int) -> NDArray[Any] | None:
        """Weights of an image's pixels, (height, width), at least 0; ``None`` where a folder has no map of it.

        Args:
            source: the image, relative to the job's input. Its map in the folder has the same path, or that with
                ``.png`` in place of its suffix or behind it.

        Raises:
            ImageError: the map cannot be read or has another size, or no pixel of the image lies in a rectangle.
        """
        if self.maps is not None:
            place = self.map_of(source)
            return None if place is None else levels_of(place, height, width)
        return self.inside(height, width)

    def inside(self, height: int, width: int) -> NDArray[np.float32]:
        """:meth:`weights` of rectangles.

        Raises:
            ImageError: no pixel of the image lies in one of them.
        """
        found = np.ones((height, width), np.float32)
        for x, y, wide, high, weight in self.rectangles:
            if x >= width or y >= height or not wide or not high:
                raise ImageError(f"is {width}×{height} and has no pixel in --region {x},{y},{wide},{high}")
            found[y : y + high, x : x + wide] = weight
        return found

    def map_of(self, source: PurePosixPath) -> Path | None:
        """The picture that is an image's map, if there is one; arguments as for :meth:`weights`."""
        assert self.maps is not None
        names = (source, source.with_suffix(".png"), source.with_name(f"{source.name}.png"))
        places = [self.maps] if self.maps.is_file() else [self.maps / name for name in names]
        return next((place for place in places if place.is_file()), None)


def levels_of(place: Path, height: int, width: int, content: bytes | None = None) -> NDArray[np.float32]:
    """Grey levels of a map, (height, width).

    Args:
        content: of its file, where it has been read already.

    Raises:
        ImageError: it cannot be read or has another size.
    """
    pixels = read_picture(place, content).pixels
    if pixels.shape[:2] != (height, width):
        size = f"{pixels.shape[1]}×{pixels.shape[0]}"
        raise ImageError(f"is {width}×{height}, but its map {place} {size}; give a map of its size")
    levels: NDArray[np.float32] = pixels.mean(2, dtype=np.float32)
    return levels
