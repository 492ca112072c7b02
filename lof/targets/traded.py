"""The last step to a target: single symbols changed, until the real file just meets it."""

from __future__ import annotations

from dataclasses import dataclass

from lof.containers import unpack
from lof.encoding import Symbols, Writer
from lof.search import Objective, Trades, trades
from lof.targets.ladder import Aim
from lof.targets.trial import gap_of

CLOSE = 2.5e-3
"""Gap below the target that is as good as none: a quarter of a per cent of a size, 0.01 dB of a quality."""
PROBES = 5
_PATHS = 4


@dataclass(frozen=True, eq=False)
class _Spot:
    """Symbols, and what their file would be: its gap and its size."""

    symbols: Symbols
    gap: float
    size: int


def traded(
    objective: Objective, aim: Aim, writer: Writer, data: bytes, gap: float, seed: int
) -> tuple[Symbols | None, int]:
    """Symbols whose file just meets the target, ``None`` if they are not found or the file's own; and the gradient
    evaluations that it took.

    Args:
        objective: of the one image.
        data: the file to begin with.
        gap: how far that is from the target.
    """
    size, evaluations = aim.target.is_size, 0
    symbols = writer.codec.decompress(unpack(data).strings, *aim.original.shape[:2]).symbols
    now = start = _Spot(symbols, gap, len(data))
    met = now if now.gap <= 0 else None
    apart = True
    for number in range(_PATHS):
        if met is not None and met.gap >= -CLOSE:
            break
        apart = apart and number + 1 < _PATHS
        path = trades(objective, now.symbols, cheaper=(now.gap > 0) == size, apart=apart, seed=seed)
        evaluations += 1
        found = _along(path, now, aim, writer)
        met = max(
            [spot for spot in (met, *found) if spot is not None and spot.gap <= 0], key=gap_of, default=None
        )
        nearest = min([now, *found], key=lambda spot: abs(spot.gap + CLOSE / 2))
        if nearest is now and not apart:
            break
        apart, now = apart and nearest is not now, nearest
    return (None if met is None or met is start else met.symbols), evaluations


def _along(path: Trades, start: _Spot, aim: Aim, writer: Writer) -> list[_Spot]:
    """Files along a path, where the gap closes if it does."""
    size, found = aim.target.is_size, [start]
    if not len(path):
        return []
    foreseen = path.bits / (8 * start.size) if size else path.distortion
    aimed = -CLOSE / 2
    low, high = (0, start.gap), (len(path) + 1, start.gap + 2 * float(foreseen[-1]))
    count = int((foreseen.abs() < abs(start.gap - aimed)).sum()) + 1
    for _ in range(PROBES):
        count = min(max(count, low[0] + 1), high[0] - 1)
        symbols = path.symbols(count)
        data = writer.pack(symbols)
        gap = aim.gap(data, lambda: writer.read(data))  # noqa: B023
        found.append(_Spot(symbols, gap, len(data)))
        if -CLOSE <= gap <= 0:
            break
        if (gap > aimed) == (start.gap > aimed):
            low = count, gap
        else:
            high = count, gap
        if high[0] - low[0] <= 1:
            break
        share = (aimed - low[1]) / (high[1] - low[1]) if high[1] != low[1] else 0.5
        count = round(low[0] + min(max(share, 0.05), 0.95) * (high[0] - low[0]))
    return found[1:]
