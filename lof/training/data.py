"""Photographs in memory: decoded once, uint8, on the training device; crops and flips are cut there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lof.errors import ImageError, LowMemoryError, TrainingError, UsageError
from lof.files.inputs import find
from lof.metrics import MS_SSIM_MIN_SIDE
from lof.pictures.picture import Picture
from lof.pictures.reading import read_picture
from lof.training.variation import UNCHANGED, draw_variations


@dataclass(frozen=True)
class Skipped:
    """A file that is not trained on. ``reason`` names the file."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Pool:
    """What is trained on: a :class:`lof.codecs.training.Source`.

    Attributes:
        images: each (H, W, C) on the training device: pictures, uint8, or what was kept of them, float16.
        crop: of pixels a side; no picture is smaller.
        skipped: files of the folders that are no such pictures.
        stride: pixels for each place of what was kept, a side.
    """

    images: list[Tensor]
    crop: int
    skipped: list[Skipped]
    stride: int = 1

    @property
    def pixels(self) -> int:
        """Number of pixels of all pictures together."""
        return sum(image.shape[0] * image.shape[1] for image in self.images) * self.stride**2

    def batch(self, size: int, seed: int, crop: int | None = None, varied: float = 0.0) -> Tensor:
        """Random crops; equal seeds give equal crops. Half of the pictures' are flipped left to right.

        Pictures are drawn in proportion to their pixels.

        Args:
            crop: of pixels a side, in place of the pool's.
            varied: share of the crops that :mod:`lof.training.variation` changes; of pictures alone.

        Returns:
            (size, C, h, w) float32, channels-last; pictures in [0, 1].
        """
        side, first = (crop or self.crop) // self.stride, self.images[0]
        generator = torch.Generator().manual_seed(seed)
        areas = torch.tensor([float(image.shape[0] * image.shape[1]) for image in self.images])
        chosen = torch.multinomial(areas, size, replacement=True, generator=generator).tolist()
        places = torch.rand(size, 3, generator=generator, dtype=torch.float64).tolist()
        variations = draw_variations(size, varied, generator)
        out = torch.empty(size, side, side, first.shape[2], dtype=first.dtype, device=first.device)
        pictures = first.dtype == torch.uint8
        drawn = zip(chosen, places, variations, strict=True)
        for slot, (index, (down, right, flip), variation) in enumerate(drawn):
            image = self.images[index]
            reach = variation.reach(side, min(image.shape[:2]))
            top = int(down * (image.shape[0] - reach + 1))
            left = int(right * (image.shape[1] - reach + 1))
            cut = image[top : top + reach, left : left + reach]
            if variation != UNCHANGED:
                cut = variation.apply(cut, side)
            out[slot] = cut.flip(1) if pictures and flip < 0.5 else cut
        batch = out.permute(0, 3, 1, 2).float()
        return batch.div_(255) if pictures else batch

    def spread(self) -> Tensor:
        """Standard deviation of each channel, (C,) float32, on the CPU."""
        some = [image.flatten(0, 1) for image in self.images[:: max(1, len(self.images) // 64)]]
        return torch.cat(some).float().std(0).cpu()


def load_pool(
    folders: Sequence[str],
    crop: int,
    device: torch.device,
    on_read: Callable[[int, int], None] | None = None,
) -> Pool:
    """Decode every picture below ``folders`` that can be trained on; the others are listed, not fatal.

    Skipped are files that cannot be read, CMYK (its colours are a matter of interpretation), and pictures
    smaller than a crop.

    Args:
        on_read: called before each file with the number of those read and of all.

    Raises:
        TrainingError: a folder is missing, or nothing is left to train on.
    """
    if not folders:
        raise TrainingError("no training pictures; name folders with --data or in the recipe's [data] train")
    images: list[Tensor] = []
    skipped: list[Skipped] = []
    paths = _pictures(folders)
    for done, path in enumerate(paths):
        if on_read:
            on_read(done, len(paths))
        try:
            pixels = _rgb(path).pixels
            if min(pixels.shape[:2]) < crop:
                raise ImageError(
                    f"{path}: {pixels.shape[1]}×{pixels.shape[0]}, smaller than a crop of {crop}"
                )
        except (ImageError, LowMemoryError) as error:
            skipped.append(Skipped(path, str(error)))
        else:
            images.append(torch.from_numpy(pixels).to(device))
    if not images:
        why = f" (first: {skipped[0].reason})" if skipped else ""
        raise TrainingError(f"{', '.join(folders)}: nothing to train on{why}; name other folders with --data")
    return Pool(images, crop, skipped)


def load_validation(
    folders: Sequence[str], metric: str, at_most: int | None = None
) -> tuple[list[Picture], list[Skipped]]:
    """Pictures to measure on, evenly spread over the readable files of ``folders``.

    Those too small for ``metric`` are skipped.

    Raises:
        TrainingError: a folder is missing, or holds no readable picture.
    """
    if not folders:
        return [], []
    pictures: list[Picture] = []
    skipped: list[Skipped] = []
    paths = _pictures(folders)
    count = len(paths) if at_most is None else min(at_most, len(paths))
    for index in range(count):
        path = paths[index * len(paths) // count]
        try:
            picture = _rgb(path)
            if metric == "ms-ssim" and min(picture.pixels.shape[:2]) < MS_SSIM_MIN_SIDE:
                raise ImageError(f"{path}: too small for MS-SSIM")
            pictures.append(picture)
        except (ImageError, LowMemoryError) as error:
            skipped.append(Skipped(path, str(error)))
    if not pictures:
        raise TrainingError(f"{', '.join(folders)}: no readable picture to measure on ({skipped[0].reason})")
    return pictures, skipped


def _pictures(folders: Sequence[str]) -> list[Path]:
    try:
        paths = [source.path for source in find(folders).sources]
    except UsageError as error:
        raise TrainingError(str(error)) from error
    local = [path for path in paths if isinstance(path, Path)]
    if len(local) < len(paths):
        raise TrainingError(f"{', '.join(folders)}: training reads folders, not URLs; copy the pictures here")
    return local


def _rgb(path: Path) -> Picture:
    picture = read_picture(path)
    if any(note.startswith("CMYK") for note in picture.notes):
        raise ImageError(f"{path}: CMYK; convert it to RGB to train on it")
    return picture
