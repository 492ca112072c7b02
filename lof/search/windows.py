"""A search in bounded memory: overlapping windows of one image, one after the other, for one stream of the whole.

The *cores* of the windows divide the image, and every element of every latent tensor, those of side information too,
lies in one of them. A window sees a margin around its core. The inner half moves with it, so that the core meets
neighbours as they will about be; the outer half stands still and keeps the window's cut edge away. Where a window ends
the next one begins: it finds the margin as the first one left it, and moves it again. Cores that are done stand still
from then on, where their pixels and bits count as ever: a window pays for what it does to its neighbours.

A window is searched by :func:`lof.search.engine.search`, with every stage as it is. To it a window is a codec whose
walk puts in the values of what stands still, and whose image is what moves.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lof.codecs import Begun, Codec, Coded, Latents, Quantize
from lof.codecs.checks import require_finite
from lof.errors import LowMemoryError
from lof.machine.memory import give_back
from lof.pictures.picture import Picture
from lof.profiles import Profile
from lof.results import Pixels, TracePoint
from lof.search.engine import Found, StopSearch, search
from lof.search.state import Progress

BASE = 750_000_000
"""Bytes of a process with a codec, before its first picture."""
HELD = 12
"""Bytes held for each pixel of a picture throughout: its own, those of the plain encoding, and latents or symbols."""
HELD_FOR_TARGET = 27
"""The same where a target is to be met: its own, latents of three searches, and those that one starts from."""
_KEPT = 0.25
"""Of a quantisation step, which latents of a core may be away from whole symbols, lest neighbours change these."""

Span = tuple[int, int]
"""Rows or columns of the padded image, the first and one past the last."""


@dataclass(frozen=True)
class Box:
    """A rectangle of the padded image."""

    rows: Span
    columns: Span

    def both(self, other: Box) -> Box:
        """What lies in both; empty where a span ends before it begins."""
        return Box(*(_both(a, b) for a, b in ((self.rows, other.rows), (self.columns, other.columns))))

    @property
    def area(self) -> int:
        """Pixels."""
        return math.prod(max(0, end - start) for start, end in (self.rows, self.columns))


@dataclass(frozen=True)
class Window:
    """What is kept of a window, what moves and is seen, and what is computed."""

    core: Box
    moves: Box
    whole: Box


def windows_for(codec: Codec, height: int, width: int, memory: int, held: int = HELD) -> list[Window]:
    """The windows in which an image is searched; none where the search of the whole fits.

    They follow from the arguments alone, so that the same memory gives the same files.

    Args:
        height, width: of the image, in pixels.
        memory: bytes that the process may take.
        held: bytes for each pixel of the picture, beside what the search of a window takes.

    Raises:
        LowMemoryError: no window is small enough; the message says how much memory is.
    """
    size = codec.padded_size(height, width)
    kept, decoding = BASE + held * math.prod(size), codec.decoding_memory(height, width)
    needed = kept + max(codec.memory_needed(height, width), decoding)
    if needed <= memory:
        return []
    sides = [] if codec.locality is None else [_divisions(s, *_grid_and_margin(codec)) for s in size]
    pairs = [(down, across) for down in sides[0] for across in sides[1]] if sides else []
    needs = [kept + max(down[0] * across[0] * codec.bytes_per_pixel, decoding) for down, across in pairs]
    fit = [pair for pair, need in zip(pairs, needs, strict=True) if need <= memory]
    if not fit:
        least, why = min([needed, *needs]), "" if pairs else " cannot be searched in windows and"
        raise LowMemoryError(
            f"memory of {memory / 1e9:.2f} GB: {codec.name}{why} needs {math.ceil(least / 1e7) / 100:.2f} GB or more "
            f"for a {width}×{height} image; allow that much, or cut the image into parts"
        )
    down, across = min(fit, key=lambda pair: pair[0][1] * pair[1][1])
    grid, margin = _grid_and_margin(codec)
    parts = [
        _parts(side, count, grid, margin) for side, (*_, count) in zip(size, (down, across), strict=True)
    ]
    return [Window(*map(Box, high, wide)) for high in parts[0] for wide in parts[1]]


def _grid_and_margin(codec: Codec) -> tuple[int, int]:
    assert codec.locality is not None
    grid = math.lcm(codec.locality.grid, codec.stride)  # analyse takes multiples of the stride alone
    return grid, -(-codec.locality.reach // grid) * grid


def _divisions(length: int, grid: int, margin: int) -> list[tuple[int, int, int]]:
    """A side in 1, 2, … parts: pixels of the longest one, of all together, and how many there are."""
    found = []
    for count in range(1, -(-length // grid) + 1):
        lengths = [end - start for *_, (start, end) in _parts(length, count, grid, margin)]
        found.append((max(lengths), sum(lengths), count))
    return found


def _parts(length: int, count: int, grid: int, margin: int) -> list[tuple[Span, Span, Span]]:
    """A side in parts: of each its core, what moves, and the whole."""
    cells = -(-length // grid)
    edges = [min(i * cells // count * grid, length) for i in range(count + 1)]
    return [
        tuple((max(start - by, 0), min(end + by, length)) for by in (0, margin // 2, margin))  # type: ignore[misc]
        for start, end in pairwise(edges)
    ]


def _both(a: Span, b: Span) -> Span:
    return max(a[0], b[0]), min(a[1], b[1])


class Frame:
    """One picture as a codec pads it, to be cut.

    Args:
        pixels: (H, W, 3) uint8.
    """

    def __init__(self, codec: Codec, pixels: Pixels) -> None:
        self.pixels = pixels
        self.size = codec.padded_size(*pixels.shape[:2])
        top, _, left, _ = codec.margins(*pixels.shape[:2])
        self.corner = top, left
        self.inside = Box((top, top + pixels.shape[0]), (left, left + pixels.shape[1]))
        self.grid = _grid_and_margin(codec)[0]

    def cut(self, box: Box) -> Tensor:
        """(1, 3, h, w) float32 in [0, 1]; edge pixels are repeated, as by :meth:`Codec.pad`."""
        rows, columns = (
            (np.arange(*span) - first).clip(0, length - 1)
            for span, first, length in zip(
                (box.rows, box.columns), self.corner, self.pixels.shape[:2], strict=True
            )
        )
        part = torch.from_numpy(self.pixels[np.ix_(rows, columns)])
        return part.permute(2, 0, 1)[None].float() / 255

    def of(self, array: NDArray[Any], box: Box) -> NDArray[Any]:
        """A box without padding of a map of the picture, (H, W)."""
        (top, bottom), (left, right) = box.rows, box.columns
        return array[
            top - self.corner[0] : bottom - self.corner[0], left - self.corner[1] : right - self.corner[1]
        ]

    def stride(self, places: Sequence[int], sides: Sequence[int]) -> int:
        """Pixels of a latent's place, a side, where there are so many rows and columns of them for such sides."""
        strides = (s for s in range(1, self.grid + 1) if self.grid % s == 0)
        pairs = list(zip(places, sides, strict=True))
        return next(s for s in strides if all(-(-side // s) == count for count, side in pairs))


def analyse_in_windows(codec: Codec, pixels: Pixels, windows: Sequence[Window]) -> Latents:
    """:meth:`Codec.analyse` of a picture, window by window; on the CPU, (1, C, h, w) float32 by name."""
    frame, latents = Frame(codec, pixels), Latents()
    for window in windows:
        for name, part in codec.analyse(frame.cut(window.whole)).items():
            sides = [end - start for start, end in (window.whole.rows, window.whole.columns)]
            stride = frame.stride(part.shape[2:], sides)
            if name not in latents:
                shape = (-(-side // stride) for side in frame.size)
                latents[name] = torch.empty(1, part.shape[1], *shape)
            core = latents[name][:, :, *_places(window.core, stride)]
            core.copy_(part[:, :, *_places(window.core, stride, window.whole)])
    return latents


def begin(codec: Codec, picture: Picture, windows: Sequence[Window]) -> Begun:
    """:meth:`Codec.begin`, window by window where there are some.

    Raises:
        SearchError: latents are not finite.
    """
    if windows:
        guess = analyse_in_windows(codec, picture.pixels, windows)
        begun = Begun(guess, guess)
    else:
        begun = codec.begin(picture)
    for latents in (begun.plain, begun.start):
        require_finite(codec, latents)
    return begun


def _places(box: Box, stride: int, within: Box | None = None, *, entire: bool = False) -> tuple[slice, slice]:
    """Places of latents in a box, counted from the first in another; with ``entire``, those that lie in it whole."""
    found = []
    others = (None, None) if within is None else (within.rows, within.columns)
    for (start, end), other in zip((box.rows, box.columns), others, strict=True):
        first, last = other or (0, end)
        cut = end % stride if entire and end < last else 0
        found.append(slice(-(-(start - first) // stride), -(-(end - cut - first) // stride)))
    return found[0], found[1]


def search_in_windows(
    codec: Codec,
    pixels: Pixels,
    profile: Profile,
    windows: Sequence[Window],
    *,
    latents: Latents,
    lmbda: float,
    metric: str,
    seed: int = 0,
    region: NDArray[np.float32] | None = None,
    offset: float = 0.0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Found:
    """:func:`lof.search.search` for one picture, window by window.

    Args:
        pixels: (H, W, 3) uint8.
        windows: as from :func:`windows_for`.
        latents: (1, C, h, w) float32 on the CPU, to start from; overwritten with what is found.
        region: (H, W) float32, as from :func:`lof.measure.region_of`.
        lmbda, metric, seed, offset, on_progress: as there. Evaluations count over all windows.

    Raises:
        SearchError: the objective does not fit the windows.
    """
    frame = Frame(codec, pixels)
    strides = {name: frame.stride(tensor.shape[2:], frame.size) for name, tensor in latents.items()}
    tally = _Tally(profile.evaluations, len(windows), on_progress)
    for number, window in enumerate(windows):
        if tally.stopped:
            break
        done = [other.core for other in windows[:number]]
        view = _View(codec, frame, window, done, latents, strides)
        found = search(
            view.codec,
            frame.cut(view.seen),
            profile,
            initial=view.start,
            lmbda=lmbda,
            metric=metric,
            seed=seed,
            region=None
            if region is None
            else torch.from_numpy(frame.of(region, view.seen).copy())[None, None],
            offset=offset,
            thrifty=True,
            on_progress=tally.progressed,
        )[0]
        tally.add(found, window.core.both(frame.inside).area)
        view.keep(found.latents)
    give_back()
    return Found(latents, latents, tally.evaluations, tally.trace())


class _View:
    """A window as :func:`search` sees it.

    Attributes:
        codec: the codec, for the window alone.
        seen: what counts of the picture.
        part: latents of the window, (1, C, h, w) by name, a view of those of the whole.
        start: the same on the codec's device, a copy.
        moves: which of them move, (1, 1, h, w) bool.
    """

    def __init__(
        self,
        codec: Codec,
        frame: Frame,
        window: Window,
        done: Sequence[Box],
        latents: Latents,
        strides: Mapping[str, int],
    ) -> None:
        self.seen = window.moves.both(frame.inside)
        top, left = self.seen.rows[0] - window.whole.rows[0], self.seen.columns[0] - window.whole.columns[0]
        self.part = {n: tensor[:, :, *_places(window.whole, strides[n])] for n, tensor in latents.items()}
        self.start = {name: tensor.to(codec.device, copy=True) for name, tensor in self.part.items()}
        self.moves: Latents = {}
        moves = self.moves
        for name, tensor in self.start.items():
            moves[name] = torch.zeros_like(tensor[:, :1], dtype=torch.bool)
            moves[name][:, :, *_places(window.moves, strides[name], window.whole, entire=True)] = True
            for inside in (other.both(window.whole) for other in done):
                if inside.area:
                    moves[name][:, :, *_places(inside, strides[name], window.whole)] = False
        with torch.no_grad():
            still = {name: part.value for name, part in codec.code(self.start, codec.rounded).items()}

        def code(
            latents: Mapping[str, Tensor], quantize: Quantize, *, exact: bool = False
        ) -> dict[str, Coded]:
            mixed = {n: torch.where(moves[n], latents[n].to(still[n]), still[n]) for n in codec.latents}
            return codec.code(mixed, quantize, exact=exact)

        def crop(images: Tensor, height: int, width: int) -> Tensor:
            return images[..., top : top + height, left : left + width]

        self.codec = copy.copy(codec)
        self.codec.code, self.codec.crop = code, crop  # type: ignore[method-assign]

    def keep(self, found: Latents) -> None:
        """Put what was found in its place, so near to its symbols that they stay the same as neighbours change."""
        with torch.no_grad():
            coded = self.codec.code(found, self.codec.rounded)
        for name, part in coded.items():
            near = part.value + (found[name] - part.value).clamp(-_KEPT, _KEPT)
            self.part[name].copy_(torch.where(self.moves[name], near, self.start[name]))


class _Tally:
    """What the windows of a search come to together."""

    def __init__(self, budget: int, windows: int, on_progress: Callable[[Progress], None] | None) -> None:
        self.budget, self.windows, self.on_progress = budget, windows, on_progress
        self.evaluations, self.done, self.stopped = 0, 0, False
        self.ends: list[tuple[int, TracePoint, TracePoint]] = []

    def add(self, found: Found, pixels: int) -> None:
        """A window is done."""
        self.done += 1
        self.evaluations = max(self.evaluations, found.evaluations)
        self.ends.append((pixels, found.trace[0], found.trace[-1]))

    def trace(self) -> list[TracePoint]:
        """Start and end of the windows that were searched, as means over their pixels."""
        whole = sum(pixels for pixels, *_ in self.ends)
        means = [
            [sum(pixels * getattr(ends[at], of) for pixels, *ends in self.ends) / whole for of in _MEASURES]
            for at in (0, 1)
        ]
        _, first, last = self.ends[-1]
        return [
            TracePoint(0, first.stage, *means[0]),
            TracePoint(self.evaluations, last.stage, *means[1]),
        ]

    def progressed(self, progress: Progress) -> None:
        """Pass a window's progress on, as that of the whole."""
        if self.on_progress is None:
            return
        try:
            self.on_progress(
                replace(
                    progress,
                    evaluations=self.done * self.budget + min(progress.evaluations, self.budget),
                    budget=self.windows * self.budget,
                    window=self.done + 1,
                    windows=self.windows,
                )
            )
        except StopSearch:
            self.stopped = True
            raise


_MEASURES = ("cost", "bpp", "distortion")
