"""What symbols cost under the coder's tables, as a function with gradients."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, cast

import torch
from torch import Tensor

from lof.codecs.lapped.prior import PLACE_OF_ONE, PLACES, PLACES_PER_OCTAVE
from lof.codecs.lapped.tables import GAUSSIAN, PRECISION, REACH, Form

FARTHEST = 511
"""The tables of bits end here, a little beyond the reach of the widest table."""
_ROWS: Final = 16
"""Rows of the tables for a place: with 2, a line between rows is up to 1.5 bits off where escapes begin."""


def bits_of(residual: Tensor, place: Tensor, form: Form = GAUSSIAN) -> Tensor:
    """Cost in bits of each residual, by its place in the table of scales and the form of the tables; differentiable."""
    sigma = torch.exp2((place - PLACE_OF_ONE) / PLACES_PER_OCTAVE)
    size, factor = residual.abs(), -(2**-0.5) / sigma
    # A form in training is not looked at, or a GPU would be waited for.
    gaussian = not isinstance(form.share, Tensor) and form == GAUSSIAN
    p = _mass(size, factor if gaussian else factor / form.narrow)
    if not gaussian:
        p = torch.lerp(p, _mass(size, factor / form.wide), form.share)
    # Each symbol of a table has one unit of frequency of its own.
    unit = 2**-PRECISION
    inside = torch.log2(p * (1 - unit * (2 * REACH * sigma + 3)) + unit)
    # What is escaped takes fours of bits, one of which says how many.
    excess = (size - REACH * sigma - 0.5).clamp_min(0)
    return torch.log2(1 + excess) + 7 * excess.clamp_max(1) - inside


def _mass(size: Tensor, factor: Tensor) -> Tensor:
    return 0.5 * (torch.erfc((0.5 - size) * factor) - torch.erfc((-0.5 - size) * factor))


def bits_of_whole(residual: Tensor, place: Tensor, form: Form = GAUSSIAN) -> Tensor:
    """:func:`bits_of` for residuals that are whole: exact for whole places, nearly so between them, and much faster.

    Differentiable by the place alone.
    """
    if bool((residual.abs() > FARTHEST).any()):
        return bits_of(residual, place, form)
    return _from_table(residual, place, form)


def bits_between(residual: Tensor, place: Tensor, form: Form = GAUSSIAN) -> Tensor:
    """What any residuals cost, on straight lines between those of whole ones; differentiable.

    That is what a residual costs on average that is rounded at random, the likelier the nearer. :func:`bits_of` is flat
    around 0 and steep at 0.5 where tables are narrow: its gradients mislead a search. The last line goes on beyond
    :data:`FARTHEST`, so that no values are looked at and nothing waits for a GPU.
    """
    below = residual.detach().floor().clamp(-FARTHEST, FARTHEST - 1)
    here, next_ = (_from_table(one, place, form) for one in (below, below + 1))
    return here.lerp(next_, residual - below)


def rises_of_whole(residual: Tensor, place: Tensor, form: Form = GAUSSIAN) -> tuple[Tensor, Tensor]:
    """How :func:`bits_of` rises to whole residuals from those below, and from them to those above; no gradients."""
    low, high = residual.aminmax()
    if low <= -FARTHEST or high >= FARTHEST:
        below, here, above = (bits_of_whole(residual + step, place, form) for step in (-1, 0, 1))
        return here - below, above - here
    table, width = _rises(form, place.device), 2 * FARTHEST
    row = _ROWS * place
    whole_row = row.floor()
    between = row.sub_(whole_row)
    index = torch.add(residual, whole_row, alpha=width).add_(FARTHEST).long()
    # One row on, one residual back, and the row before: each index is made of the last, in place.
    near, far = table.take(index), table.take(index.add_(width))
    onwards = near.lerp_(far, between)
    far, near = table.take(index.sub_(1)), table.take(index.sub_(width))
    return near.lerp_(far, between), onwards


def _places() -> Tensor:
    """Those of the tables' rows, (rows, 1); the last stands twice."""
    return (torch.arange(_ROWS * (PLACES - 1) + 2) / _ROWS).clamp_max(PLACES - 1)[:, None]


@lru_cache(maxsize=4)
def _table(form: Form, device: torch.device) -> Tensor:
    """Bits of residuals 0 to :data:`FARTHEST` at each place and between, flat."""
    return bits_of(torch.arange(FARTHEST + 1.0), _places(), form).flatten().to(device)


@lru_cache(maxsize=4)
def _rises(form: Form, device: torch.device) -> Tensor:
    """How bits rise from each residual to the next, the first from -:data:`FARTHEST`, likewise."""
    return bits_of(torch.arange(-FARTHEST, FARTHEST + 1.0), _places(), form).diff(dim=1).flatten().to(device)


def _from_table(residual: Tensor, place: Tensor, form: Form) -> Tensor:
    return cast(Tensor, _FromTable.apply(residual, place.expand_as(residual), _table(form, place.device)))


class _FromTable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, residual: Tensor, place: Tensor, table: Tensor) -> Tensor:
        row = _ROWS * place
        below = row.floor()
        index = residual.abs().add_(below, alpha=FARTHEST + 1).long()
        bits = table.take(index)
        slope = table.take(index.add_(FARTHEST + 1)).sub_(bits)
        ctx.save_for_backward(slope)
        return torch.addcmul(bits, slope, row - below)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        (slope,) = ctx.saved_tensors
        return None, grads[0] * slope * _ROWS, None
