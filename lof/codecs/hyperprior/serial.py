"""``mbt2018``: a hyperprior and a serial context together (Minnen et al., NeurIPS 2018), as CompressAI implements it.

Mean and scale of an element depend on the hyperprior and on all channels of the twelve places that come before
it in a 5×5 window. The standard decoder visits one place after the other, and what is written does too. A search
visits waves of places that do not see each other: about ``w + 3h`` steps instead of ``w·h``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from compressai.entropy_models import GaussianConditional
from compressai.models import JointAutoregressiveHierarchicalPriors
from torch import Tensor

from lof.codecs.base import Coded, Latents, Quantize
from lof.codecs.checks import strings_read
from lof.codecs.entropy.rans import ans
from lof.codecs.exact import exact_arithmetic
from lof.codecs.hyperprior.codec import BottleneckCodec, margin

_SIDE, _REACH = 5, 2
"""Size of the window of context, in places of y: its side, and the distance from its centre."""


class _Take(Protocol):
    def __call__(self, rows: Tensor, columns: Tensor, means: Tensor, scales: Tensor, /) -> Tensor:
        """Values (B, M, places) of some places of y, given their means and scales of the same shape."""
        ...


class JointAutoregressiveCodec(BottleneckCodec):
    """``mbt2018``: Gaussians whose means and scales hyperprior and context predict (Minnen et al. 2018)."""

    latents = ("z", "y")
    stride = 64
    network = JointAutoregressiveHierarchicalPriors

    def code(
        self, latents: Mapping[str, Tensor], quantize: Quantize, *, exact: bool = False
    ) -> dict[str, Coded]:
        """See :meth:`Codec.code`. ``quantize`` is called on the places of one wave after the other, (B, M, places)."""
        net, z = self._network(exact, latents["z"])
        network = cast(JointAutoregressiveHierarchicalPriors, net)
        coded_z = self._code_factorised(net, "z", z, quantize)
        y = latents["y"].to(z.device)
        if not exact:
            with self._arithmetic(exact):
                coded_y = _code(network, y, network.h_s(coded_z.value), quantize, alone=False)
            return {"z": coded_z, "y": coded_y}
        with self._arithmetic(exact):
            each = [
                _code(network, y[i : i + 1], network.h_s(coded_z.value[i : i + 1]), quantize, alone=True)
                for i in range(len(y))
            ]
        residual, value = (torch.cat([getattr(one, name) for one in each]) for name in ("residual", "value"))

        def bits_of(residual: Tensor) -> Tensor:
            return torch.cat([one.bits_of(residual[i : i + 1]) for i, one in enumerate(each)])

        return {"z": coded_z, "y": Coded(residual, value, bits_of)}

    def compress(self, symbols: Mapping[str, Tensor]) -> list[bytes]:
        """See :meth:`Codec.compress`."""
        bottleneck, conditional = self.net.entropy_bottleneck, self.net.gaussian_conditional
        y = symbols["y"].to("cpu", torch.float32)
        written: list[int] = []
        indexes: list[int] = []

        def take(rows: Tensor, columns: Tensor, means: Tensor, scales: Tensor) -> Tensor:
            piece = y[..., rows, columns]
            written.extend(piece.int().flatten().tolist())
            indexes.extend(conditional.build_indexes(scales).flatten().tolist())
            return piece + means

        with torch.no_grad(), exact_arithmetic():
            z_string = bottleneck.compress(symbols["z"].to("cpu", torch.float32) + self._median())[0]
            self._walk(z_string, symbols["z"].shape[-2:], take)
        encoder = ans.BufferedRansEncoder()
        encoder.encode_with_indexes(written, indexes, *_tables(conditional))
        return [encoder.flush(), z_string]

    def scale_margin(self, strings: Sequence[bytes], height: int, width: int) -> float | None:
        """See :meth:`Codec.scale_margin`."""
        self._check_strings(strings)
        shape = self._string_shape(height, width)
        with strings_read(self.name), torch.no_grad(), exact_arithmetic():
            *_, scales = self._decode([s + self._slack(s, shape) for s in strings], shape)
        return margin(self.net.gaussian_conditional, scales)

    def _analyse_side(self, y: Tensor) -> Latents:
        return {"z": self.net.h_a(y)}

    def _read(self, strings: Sequence[bytes], shape: tuple[int, int]) -> tuple[Latents, Latents]:
        z_hat, y_hat, y, _ = self._decode(strings, shape)
        return {"z": torch.round(z_hat - self._median()), "y": y}, {"z": z_hat, "y": y_hat}

    def _decode(
        self, strings: Sequence[bytes], shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z, y, the symbols of y, and every σ."""
        conditional = self.net.gaussian_conditional
        tables = _tables(conditional)
        decoder = ans.RansDecoder()
        decoder.set_stream(strings[0])
        symbols: list[Tensor] = []
        seen: list[Tensor] = []

        def take(rows: Tensor, columns: Tensor, means: Tensor, scales: Tensor) -> Tensor:
            seen.append(scales)
            indexes = conditional.build_indexes(scales).flatten().tolist()
            found = torch.tensor(decoder.decode_stream(indexes, *tables), dtype=torch.float32)
            symbols.append(found.reshape(means.shape))
            return symbols[-1] + means

        z_hat, y_hat = self._walk(strings[1], shape, take)
        return z_hat, y_hat, torch.cat(symbols, -1).reshape(y_hat.shape), torch.cat(seen)

    def _walk(self, z_string: bytes, shape: Sequence[int], take: _Take) -> tuple[Tensor, Tensor]:
        # σ and μ must come from the very tensor that the decoder will have, read back from the string.
        net = cast(JointAutoregressiveHierarchicalPriors, self.net)
        z_hat = net.entropy_bottleneck.decompress([z_string], shape)
        return z_hat, _walk(net, net.h_s(z_hat), take, alone=True)


def _code(
    net: JointAutoregressiveHierarchicalPriors, y: Tensor, params: Tensor, quantize: Quantize, *, alone: bool
) -> Coded:
    pieces: dict[str, list[Tensor]] = {"residual": [], "means": [], "scales": []}
    places: list[Tensor] = []

    def take(rows: Tensor, columns: Tensor, means: Tensor, scales: Tensor) -> Tensor:
        residual = quantize("y", y[..., rows, columns] - means)
        for name, piece in (("residual", residual), ("means", means), ("scales", scales)):
            pieces[name].append(piece)
        places.append(rows * y.shape[-1] + columns)
        return residual + means

    _walk(net, params, take, alone=alone)
    order = torch.cat(places).argsort()
    residual, means, scales = (torch.cat(part, -1)[..., order].reshape(y.shape) for part in pieces.values())
    conditional: GaussianConditional = net.gaussian_conditional

    def bits_of(residual: Tensor) -> Tensor:
        likelihood = conditional.likelihood_lower_bound(conditional._likelihood(residual, scales))
        return cast(Tensor, -likelihood.log2())

    return Coded(residual, residual + means, bits_of)


def _walk(net: JointAutoregressiveHierarchicalPriors, params: Tensor, take: _Take, *, alone: bool) -> Tensor:
    """Visit all places of y in coding order; y_hat, (B, M, h, w).

    Args:
        params: what the hyperprior says, (B, 2·M, h, w).
        alone: one place at a time and one image, in the standard decoder's very operations.
    """
    batch, _, height, width = params.shape
    y_hat = params.new_zeros(batch, net.M, height + 2 * _REACH, width + 2 * _REACH, dtype=torch.float32)
    offsets = torch.arange(_SIDE)
    # What is not yet coded is 0 in y_hat, so the weights need no mask.
    weight, bias = net.context_prediction.weight, net.context_prediction.bias
    for rows, columns in _places(height, width) if alone else _waves(height, width):
        if alone:
            row, column = int(rows), int(columns)
            window = y_hat[:, :, row : row + _SIDE, column : column + _SIDE]
            known = params[:, :, row : row + 1, column : column + 1]
        else:
            inside = (rows[:, None, None] + offsets[:, None], columns[:, None, None] + offsets)
            window = y_hat[:, :, *inside].transpose(1, 2).flatten(0, 1)
            known = params[:, :, rows, columns].transpose(1, 2).flatten(0, 1)[..., None, None]
        context = F.conv2d(window, weight, bias)
        gaussian = net.entropy_parameters(torch.cat((known, context), dim=1))
        scales, means = gaussian.float().reshape(batch, len(rows), -1).transpose(1, 2).chunk(2, 1)
        values = take(rows, columns, means, scales)
        if torch.is_grad_enabled():
            y_hat = y_hat.clone()
        y_hat[:, :, rows + _REACH, columns + _REACH] = values
    return y_hat[..., _REACH:-_REACH, _REACH:-_REACH]


def _places(height: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    for row in range(height):
        for column in range(width):
            yield torch.tensor([row]), torch.tensor([column])


def _waves(height: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and columns of places whose windows hold earlier waves only."""
    slope = _REACH + 1  # the window reaches this much further right in the row above
    for number in range(width + slope * (height - 1)):
        rows = torch.arange(max(0, -(-(number - width + 1) // slope)), min(height, number // slope + 1))
        if len(rows):
            yield rows, number - slope * rows


def _tables(conditional: GaussianConditional) -> tuple[list[list[int]], list[int], list[int]]:
    return (
        conditional.quantized_cdf.tolist(),
        conditional.cdf_length.tolist(),
        conditional.offset.tolist(),
    )
