"""An MSP codec as one module with CompressAI's interface, to train, to ship and to decode with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, cast

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.models import CompressionModel
from torch import Tensor

from lof.codecs.entropy.fixed import FixedConv
from lof.codecs.entropy.mixture import MEAN_UNIT, MixtureConditional, scale_of
from lof.codecs.msp import layout
from lof.codecs.msp.config import MSPConfig
from lof.codecs.msp.layout import Part
from lof.codecs.msp.prior import Prior
from lof.codecs.msp.transforms import analysis, synthesis


class MSPNetwork(CompressionModel):
    """Transforms, probability model and entropy models.

    Args:
        sizes: as :attr:`MSPConfig.sizes`.
    """

    order: Tensor
    sizes: Tensor

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.config = MSPConfig.from_sizes(sizes)
        self.N, self.M = self.config.transform_width, self.config.latent_channels
        self.g_a = analysis(self.N, self.M)
        self.g_s = synthesis(self.N, self.M)
        self.prior = Prior(self.config)
        self.entropy_bottleneck = EntropyBottleneck(self.M)
        if self.config.components == 1:
            self.gaussian_conditional = GaussianConditional(None)
        else:
            self.mixture = MixtureConditional()
        # The channel of y that is coded first, second, …
        self.register_buffer("order", torch.arange(self.M))
        self.register_buffer("sizes", torch.tensor(sizes, dtype=torch.int32))

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Images (B, 3, H, W), H and W multiples of 16, to ``x_hat`` and ``likelihoods``, as CompressAI has it."""
        y_hat, likelihoods = self._price(self.g_a(x))
        return {"x_hat": self.g_s(y_hat), "likelihoods": likelihoods}

    def _price(self, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        height, width = y.shape[-2:]
        padded = layout.pad(y.index_select(1, self.order), self.config)
        inside = layout.pad(torch.ones_like(y), self.config)
        coarsest = self.entropy_bottleneck(layout.coarsest(self.config).cut(padded))
        centres, forms = [torch.zeros_like(coarsest[0])], [self.no_form(coarsest[0])]

        def take(part: Part, centre: Tensor | None, form: Tensor | None) -> Tensor:
            if centre is None or form is None:
                return cast(Tensor, coarsest[0]).detach()
            centres.append(centre)
            forms.append(form)
            centre = centre.detach()
            return (torch.round(part.cut(padded) - centre) + centre) * part.cut(inside)

        layout.walk(self.prior, take)
        size = padded.shape[-2:]
        centre = layout.assemble(centres, self.config, *size)[..., :height, :width]
        form = self.assemble_forms(forms, *size)[..., :height, :width]
        distribution, inside_y = self.distribution(form), padded[..., :height, :width]
        if self.config.components == 1:
            y_hat, likelihood = self.gaussian_conditional(inside_y, *distribution, centre)
        else:
            y_hat, likelihood = self.mixture(inside_y, centre, *distribution)
        stride = 2**self.config.levels
        known = torch.zeros_like(likelihood, dtype=torch.bool)
        known[..., ::stride, ::stride] = True
        y_hat = cast(Tensor, y_hat).clone()
        y_hat[..., ::stride, ::stride] = coarsest[0]
        return y_hat.index_select(1, self.order.argsort()), {
            "coarsest": coarsest[1],
            "y": torch.where(known, 1.0, likelihood),
        }

    def calibrate(self, spread: Tensor) -> None:
        """Start from the latents' standard deviations, (M,): the channels that say most come first."""
        self.order.copy_(spread.argsort(descending=True))
        self.prior.calibrate(spread[self.order])

    def medians(self) -> Tensor:
        """Centres of the coarsest sub-grid's elements, (1, M, 1, 1), in coding order."""
        return cast(Tensor, self.entropy_bottleneck._get_medians().detach().reshape(1, -1, 1, 1))

    def no_form(self, like: Tensor) -> Tensor:
        """Stands where an element is not of the steps: any form will do that has a finite likelihood."""
        return torch.ones_like(like).repeat(1, self.config.form, 1, 1)

    def assemble_forms(self, forms: list[Tensor], height: int, width: int) -> Tensor:
        """Forms of the parts of all steps to those of a padded y: (B, numbers of a form, M, h, w), in coding order."""
        count = self.config.form
        # A form's numbers stand where images do in a batch.
        pieces = [form.unflatten(1, (count, -1)).flatten(0, 1) for form in forms]
        whole = layout.assemble(pieces, self.config, height, width)
        return whole.reshape(-1, count, *whole.shape[1:])

    def distribution(self, form: Tensor) -> tuple[Tensor, ...]:
        """What a form says: σ, (B, M, h, w); or the mixture's offsets, σ and weights, each (B, J, M, h, w)."""
        if self.config.components == 1:
            return (scale_of(form[:, 0]),)
        offset, index, weight = form.chunk(3, 1)
        return offset, scale_of(index), weight

    def _likelihood(self, residual: Tensor, *distribution: Tensor) -> Tensor:
        if self.config.components > 1:
            found: Tensor = self.mixture.likelihood(residual, *distribution)
            return found
        gaussian = self.gaussian_conditional
        return cast(Tensor, gaussian.likelihood_lower_bound(gaussian._likelihood(residual, *distribution)))

    def bits(self, residual: Tensor, *distribution: Tensor) -> Tensor:
        """Cost in bits of each rounded residual (B, M, h, w) under its :meth:`distribution`; differentiable.

        Channels are in the order that y has.
        """
        bottleneck = self.entropy_bottleneck
        with torch.autocast(residual.device.type, enabled=False):
            likelihood = self._likelihood(residual, *distribution)
            stride = 2**self.config.levels
            coarsest = residual[..., ::stride, ::stride].index_select(1, self.order) + self.medians()
            flat = coarsest.transpose(0, 1).reshape(self.M, 1, -1)
            known = bottleneck.likelihood_lower_bound(bottleneck._likelihood(flat)[0])
            known = known.reshape(coarsest.transpose(0, 1).shape).transpose(0, 1)
            likelihood = likelihood.clone()
            likelihood[..., ::stride, ::stride] = known.index_select(1, self.order.argsort())
            bits: Tensor = -likelihood.log2()
            return bits

    @torch.no_grad()
    def update(self, *args: Any, **kwargs: Any) -> bool:
        """Make ready for coding: weights and medians on their grids, tables computed, exact arithmetic from now on."""
        self.prior.to_grid()
        self.prior.exact = True
        quantiles = self.entropy_bottleneck.quantiles
        quantiles[:, 0, 1] = torch.round(quantiles[:, 0, 1] * MEAN_UNIT) / MEAN_UNIT
        return bool(super().update(*args, **kwargs))

    def shippable_state(self) -> dict[str, Tensor]:
        """The ``state_dict`` after :meth:`update`, as small as it can be without loss: integers where there are.

        Weights become int8 counts of their grid's unit, biases int32; the transforms are float16 already.
        """
        small: dict[str, Tensor] = {}
        layers = {name: m for name, m in self.named_modules() if isinstance(m, FixedConv)}
        for key, value in self.state_dict().items():
            owner, _, leaf = key.rpartition(".")
            if owner in layers and leaf in ("weight", "bias"):
                small[key] = layers[owner].counts()[leaf]
            elif key.startswith(("g_a.", "g_s.")):
                small[key] = value.half().contiguous()
            else:
                small[key] = value.contiguous()
        return small

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> Any:
        """As CompressAI's; integer weights are taken as counts of their grid's unit."""
        state = dict(state_dict)
        for name, module in self.named_modules():
            if (
                isinstance(module, FixedConv)
                and state.get(f"{name}.weight", module.weight).dtype == torch.int8
            ):
                state |= {
                    f"{name}.{leaf}": value
                    for leaf, value in FixedConv.from_counts(
                        state[f"{name}.weight"], state[f"{name}.bias"], state[f"{name}.shift"]
                    ).items()
                }
        return super().load_state_dict(state, strict=strict)

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> Self:
        """The network that a ``state_dict`` is of.

        Raises:
            KeyError, ValueError, RuntimeError: it is of none.
        """
        net = cls(*state_dict["sizes"].tolist())
        net.load_state_dict(state_dict)
        if net.order.sort().values.tolist() != list(range(net.M)):
            raise ValueError("its order of channels does not name each once")
        if net.config.components > 1:
            net.mixture.check()
        return net
