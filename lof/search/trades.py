"""From one file to a slightly smaller or better one: changes of single symbols by ±1, the best bargains first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lof.codecs import Codec, Coded, Latents
from lof.search.objective import Objective
from lof.search.relaxations import NoiseSource
from lof.search.sensitivity import probed, smoothed

_LEAST = 0.05
"""Bits of a change that is worth the name. What costs next to nothing, as a step of a table, moves far more than is
foreseen."""
_SQUARE = 2
"""Side of the squares of places of which each changes once, at most."""
_TINY = 2.0**-60  # keeps the numbers of elements exact, and harmless to a network
_DIGIT_BITS = 24  # of such a number, all that float32 holds exactly


@dataclass(frozen=True)
class Trades:
    """A path from the symbols of one image, one change of ±1 after the other; all other symbols stay.

    Attributes:
        bits: (n,) float64, sums over the path of the bits that the changes are foreseen to bring.
        distortion: (n,) float64, the same of the objective's distortion, as a share of that at the start.
    """

    bits: Tensor
    distortion: Tensor
    _start: dict[str, Tensor]
    _steps: dict[str, Tensor]
    _rank: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.bits)

    def symbols(self, count: int) -> dict[str, Tensor]:
        """What :meth:`lof.codecs.Codec.compress` takes, (1, C, h, w) int32, after the first ``count`` changes."""
        moved = {name: step * (self._rank[name] < count) for name, step in self._steps.items()}
        return {
            name: symbols + moved[name] if name in moved else symbols for name, symbols in self._start.items()
        }


def trades(
    objective: Objective, symbols: Mapping[str, Tensor], *, cheaper: bool, apart: bool = True, seed: int = 0
) -> Trades:
    """The path that saves most bits for the distortion that it adds, or gains most for the bits that it takes.

    Takes one gradient evaluation, in which the symbols are the variables: what a symbol tells of those coded after it,
    in bits and in their values, counts. What changes do to one another does not, so the path is good for a few per
    cent of the bits.

    Args:
        objective: of one image; its λ weighs nothing here.
        symbols: as :meth:`lof.codecs.Codec.compress` takes them.
        cheaper: whether bits are to be saved, or the distortion to fall.
        apart: whether only one symbol of each few places is changed. Others mend the same error, and spoil it together.
    """
    codec = objective.codec
    latents = {name: symbol.to(codec.device, torch.float32) for name, symbol in symbols.items()}
    # Changes are judged on the picture that the decoder shows: a search's own predictions differ a little.
    read = codec.decompress(codec.compress(symbols), objective.height, objective.width).values
    places = _places(codec, latents)
    asked = {}
    for name, numbers in places.items():  # what is not asked for goes to the front, and is cut off
        flat = torch.zeros(int(numbers.max()) + 1, device=codec.device)
        asked[name] = flat.index_put((numbers.flatten(),), latents[name].flatten())[1:]
    leaves: dict[str, list[Tensor]] = {name: [] for name in codec.latents}

    def take(name: str, residual: Tensor) -> Tensor:
        part, asked[name] = asked[name][: residual.numel()], asked[name][residual.numel() :]
        leaves[name].append(part.reshape(residual.shape).clone().requires_grad_())
        return leaves[name][-1] + (residual - leaves[name][-1]).detach()

    coded = codec.code({name: value.to(codec.device) for name, value in read.items()}, take)
    image = codec.synthesise({name: part.value for name, part in coded.items()})
    visible = codec.crop(image, objective.height, objective.width)
    bits = torch.stack([part.bits.sum() for part in coded.values()]).sum()
    distortion = objective.lmbda * objective.distortion(visible)[0]
    probe = probed(visible, objective, NoiseSource([seed], codec.device))
    slopes, variables = [], [leaf for parts in leaves.values() for leaf in parts]
    for of in (bits, distortion, probe):
        found = torch.autograd.grad(of, variables, retain_graph=True, materialize_grads=True)
        slopes.append(_by_name(found, leaves))
    prices, gains, losses = [list[Tensor]() for _ in range(3)]
    steps = {}
    names = [name for name in codec.latents if name in codec.synthesised]
    least = _LEAST / (objective.height * objective.width if cheaper else 1)  # λ·D is in bits per pixel
    for name in names:
        of_bits, of_distortion, of_probe = (_arranged(each[name], places[name]) for each in slopes)
        curvature, sides = smoothed(of_probe.square()), []
        # What tells nothing is no part of the file, such as blocks of halved colour planes in JPEGs.
        told = (places[name] > 0) & ((of_bits != 0) | (of_distortion != 0))
        for sign, change in zip((1, -1), _changes(coded[name], of_bits), strict=True):
            error = sign * of_distortion + 0.5 * curvature
            written = codec.rounded(name, latents[name] + sign) - latents[name] == sign
            worth = told & written & (change.abs() > _LEAST)
            gain, loss = (-change, error) if cheaper else (-error, change)
            # What seems to cost nothing is no bargain for that: a search has passed it over, and mostly it was right.
            price = loss.clamp_min(least) / gain
            sides.append((torch.where(worth & (gain > 0), price, torch.inf), gain, loss))
        up = sides[0][0] <= sides[1][0]
        steps[name] = torch.where(up, 1, -1).to("cpu", torch.int32)
        chosen = (torch.where(up, first, other) for first, other in zip(*sides, strict=True))
        best, *amounts = (each.detach().cpu() for each in chosen)
        prices.append((_apart(best) if apart else best).flatten())
        for column, amount in zip((gains, losses), amounts, strict=True):
            column.append(amount.flatten())
    price = torch.cat(prices)
    order = torch.argsort(price, stable=True)[: int(price.isfinite().sum())]
    rank = torch.full(price.shape, len(price))
    rank[order] = torch.arange(len(order))
    gain, loss = (torch.cat(each)[order].double().cumsum(0) for each in (gains, losses))
    ranks = dict(zip(names, rank.split([steps[name].numel() for name in names]), strict=True))
    start = {name: symbol.to("cpu", torch.int32) for name, symbol in symbols.items()}
    by_bits, by_distortion = (-gain, loss) if cheaper else (loss, -gain)
    return Trades(
        by_bits,
        by_distortion / max(float(distortion.detach()), 1e-12),
        start,
        steps,
        {name: part.reshape(steps[name].shape) for name, part in ranks.items()},
    )


def _apart(price: Tensor) -> Tensor:
    """The lowest price of each square of places, infinity for the others: changes side by side mend the same error."""
    channels, rows, columns = price.shape[1:]
    spare = (0, -columns % _SQUARE, 0, -rows % _SQUARE)
    cells = F.pad(price, spare, value=torch.inf).unfold(2, _SQUARE, _SQUARE).unfold(3, _SQUARE, _SQUARE)
    cells = cells.permute(0, 2, 3, 1, 4, 5)
    flat = cells.reshape(*cells.shape[:3], -1)
    lowest = F.one_hot(flat.argmin(-1), flat.shape[-1]).bool()
    kept = torch.where(lowest, flat, torch.inf).reshape(cells.shape).permute(0, 3, 1, 4, 2, 5)
    return kept.reshape(1, channels, rows + spare[3], columns + spare[1])[..., :rows, :columns]


def _changes(coded: Coded, slope: Tensor) -> list[Tensor]:
    """Bits that a step of each element up and down brings: its own exactly, those of others by the slope."""
    residual = coded.residual.detach()
    with torch.enable_grad():
        own = residual.clone().requires_grad_()
        (own_slope,) = torch.autograd.grad(coded.bits_of(own).sum(), own)
    others = slope - own_slope
    with torch.no_grad():
        now = coded.bits_of(residual)
        return [coded.bits_of(residual + sign) - now + sign * others for sign in (1, -1)]


def _places(codec: Codec, latents: Latents) -> dict[str, Tensor]:
    """For each element its number, from 1, in the order in which ``code`` asks; 0 where it is not asked for."""
    digits = 1 + (max(tensor.numel() for tensor in latents.values()).bit_length() - 1) // _DIGIT_BITS
    found = {name: torch.zeros_like(tensor, dtype=torch.int64) for name, tensor in latents.items()}
    for digit in range(digits):
        asked = dict.fromkeys(codec.latents, 0)

        def count(name: str, residual: Tensor) -> Tensor:
            first, asked[name] = asked[name] + 1, asked[name] + residual.numel()  # noqa: B023
            numbers = torch.arange(first, asked[name] + 1, device=residual.device)  # noqa: B023
            part: Tensor = ((numbers >> _DIGIT_BITS * digit) % 2**_DIGIT_BITS).float() * _TINY  # noqa: B023
            return part.reshape(residual.shape)

        with torch.no_grad():
            coded = codec.code(latents, count)
        for name, part in coded.items():
            found[name] += torch.round(part.residual / _TINY).long() << _DIGIT_BITS * digit
    return found


def _by_name(gradients: tuple[Tensor, ...], leaves: Mapping[str, list[Tensor]]) -> Latents:
    """Flat, in the order of asking."""
    found, rest = {}, list(gradients)
    for name, parts in leaves.items():
        found[name] = torch.cat([gradient.flatten() for gradient in rest[: len(parts)]])
        rest = rest[len(parts) :]
    return found


def _arranged(flat: Tensor, places: Tensor) -> Tensor:
    return flat[(places - 1).clamp_min(0)]
