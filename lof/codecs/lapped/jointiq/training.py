"""How JointIQ codecs are trained: as lapped, from lapped's weights or from a codec with fewer parts."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lof.codecs.descriptors.classes import CLASSES, SIDE
from lof.codecs.lapped.jointiq.config import CONFIGS
from lof.codecs.lapped.jointiq.enhancement import Described, level_of
from lof.codecs.lapped.jointiq.network import JointNetwork
from lof.codecs.lapped.network import LappedNetwork
from lof.codecs.lapped.tables import Form, form_of
from lof.codecs.lapped.training import AllRates, LappedTraining
from lof.codecs.training import Aim, State
from lof.errors import TrainingError

_WITHOUT = 0.25
"""The share of pictures that are shown without descriptors, where there are some."""
_SETTLED = 2
"""How often descriptors are chosen anew, as their neighbours stand."""


class JointTraining(LappedTraining):
    """See :class:`lof.codecs.training.Trainable`. Parts:

    ``prior`` leaves the transforms and what is behind them as they are; ``enhancement`` trains that alone, on decoded
    pictures, without descriptors; ``steering`` trains what descriptors steer, and their probabilities, with the best
    ones at their price. Without a part all are trained together, on the rate and the distortion of what is shown.
    """

    network = JointNetwork
    configs = CONFIGS
    parts = ("prior", "enhancement", "steering")
    optional = (
        *LappedTraining.optional,
        *("enhancement.", "mixture.", "first_more.", "second_more.", "refinement.", "recalled."),
    )

    def load(self, net: nn.Module, state: State, origin: str) -> None:
        """See :meth:`LappedTraining.load`."""
        super().load(net, state, origin)
        net = cast(JointNetwork, net)
        if "tails" in state and net.tails is None:
            _widen(net, form_of(state["tails"].float()))

    def freeze(self, net: LappedNetwork, part: str | None) -> None:
        """See :meth:`LappedTraining.freeze`.

        Raises:
            TrainingError: there is no such part in this network.
        """
        enhancement = cast(JointNetwork, net).enhancement
        if part == "steering":
            if not isinstance(enhancement, Described):
                raise TrainingError("network: has no descriptors; give it an enhancement that they steer")
            net.requires_grad_(False)
            for steered in (enhancement.last, enhancement.leave, enhancement.context):
                steered.requires_grad_(True)
            enhancement.steer.requires_grad_(True)
            return
        if part == "enhancement":
            if enhancement is None:
                raise TrainingError(
                    "network: has no enhancement to train; give it one, or leave out the part"
                )
            net.requires_grad_(False)
            enhancement.requires_grad_(True)
            if isinstance(enhancement, Described):
                enhancement.context.requires_grad_(False)
                enhancement.steer.requires_grad_(False)
            return
        super().freeze(net, part)
        if enhancement is not None:
            enhancement.requires_grad_(part is None)

    def loss(self, net: LappedNetwork, aim: Aim) -> nn.Module:
        """See :meth:`LappedTraining.loss`."""
        described = cast(JointNetwork, net).joint.described and aim.part != "enhancement"
        return (_Described if described else AllRates)(net, aim, self.lambdas)


@torch.no_grad()
def _widen(net: JointNetwork, form: Form) -> None:
    """Let scales that are told for tables of a form be told for Gaussians, which are as wide as their σ says."""
    share, narrow, wide = map(torch.as_tensor, form)
    octaves = 0.5 * torch.log2((1 - share) * narrow**2 + share * wide**2)
    net.side_scale[0] += octaves
    for name, bias in net.prior.slices.named_parameters():
        if name.endswith((".first.bias", ".second.bias")):
            bias[len(bias) // 2 :] += octaves


class _Described(AllRates):
    """Pictures that descriptors steer: the best ones at their price, as a search finds them."""

    def decoded(self, y: Tensor, t: Tensor, rate: Tensor, x: Tensor, lmbda: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`AllRates.decoded`."""
        net = self.net
        enhancement, level = cast(Described, cast(JointNetwork, net).enhancement), level_of(rate)
        image = net.transforms.synthesis(y, t)
        seen = enhancement.features(image, t)
        with torch.no_grad():
            best = _best(enhancement, image, seen, x, lmbda, level)
        # The picture must remain good without any.
        with_them = (torch.rand(len(x), device=x.device) >= _WITHOUT).long()
        hot = F.one_hot(best * with_them[:, None, None], CLASSES).float()
        with torch.autocast(x.device.type, enabled=False):
            bits = enhancement.context.bits(hot, level).sum((1, 2)) * with_them
        return enhancement.shown(image, seen, descriptors=hot), bits / (x.shape[1] * x.shape[2])


def _best(
    enhancement: Described, image: Tensor, seen: Tensor, x: Tensor, lmbda: Tensor, level: Tensor
) -> Tensor:
    """The class that costs the least at each place, (B, h, w), if all of a picture had it."""
    shape = (len(x), x.shape[1] // SIDE, x.shape[2] // SIDE)
    errors = []
    for number in range(CLASSES):
        hot = F.one_hot(torch.full(shape, number, device=x.device), CLASSES).float()
        wrong = (enhancement.shown(image, seen, descriptors=hot).float() - x).square().mean(-1)
        errors.append(F.avg_pool2d(wrong, SIDE))
    costs = SIDE**2 * 255**2 * lmbda.reshape(-1, 1, 1, 1) * torch.stack(errors, 1)
    best = costs.argmin(1)
    for _ in range(_SETTLED):
        with torch.autocast(x.device.type, enabled=False):
            prices = enhancement.context.prices(F.one_hot(best, CLASSES).float(), level)
        best = (costs + prices).argmin(1)
    return best
