"""A JointIQ codec with descriptors: side information that steers the network behind the synthesis.

It joins two papers: Lee, Cho, Kim 2019 and Ma, Liu, Wu 2020. Descriptors travel in a string of their own. A decoder
that is not given it shows the picture that the network makes without them; whoever takes it out of a file of lof's
states the digest of the symbols that are left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lof.codecs.base import Coded, Latents, Quantize
from lof.codecs.descriptors.choice import chosen_for
from lof.codecs.descriptors.classes import CLASSES, NAME, SHORT, SIDE, one_hot
from lof.codecs.descriptors.strings import Coder
from lof.codecs.lapped.codec import CODED, first, last
from lof.codecs.lapped.jointiq.codec import JointCodec
from lof.codecs.lapped.jointiq.decoder import JointDecoder
from lof.codecs.lapped.jointiq.enhancement import Described, level_of
from lof.codecs.lapped.jointiq.network import JointNetwork
from lof.profiles import OwnStage, Profile

_PASSES: Final = 2
"""Over all places, in a search of descriptors."""


class DescribedCodec(JointCodec):
    """A JointIQ codec with one latent tensor more, ``descriptors``, (B, 1, h, w), a place for one of y: 0 to 15.

    The plain encoding has none but 0. A stage of the codec's own chooses others.
    """

    latents = (*CODED, NAME)
    held = (NAME,)

    def __init__(self, net: JointNetwork, **about: Any) -> None:
        super().__init__(net, **about)
        self.coder = Coder(cast(Described, net.enhancement).context)

    def analyse(self, images: Tensor) -> Latents:
        """See :meth:`Codec.analyse`."""
        found = super().analyse(images)
        return found | {NAME: torch.zeros_like(found["y"][:, :1])}

    def rounded(self, name: str, residual: Tensor) -> Tensor:
        """See :meth:`Codec.rounded`."""
        whole = super().rounded(name, residual)
        return whole.clamp(0, CLASSES - 1) if name == NAME else whole

    def code(
        self, latents: Mapping[str, Tensor], quantize: Quantize, *, exact: bool = False
    ) -> dict[str, Coded]:
        """See :meth:`LappedCodec.code`."""
        own = latents[NAME].to("cpu" if exact else self.device)
        asked = quantize(NAME, own)
        asked = asked.detach() + 0 * asked  # whatever it is multiplied by, its gradient is 0
        chosen = self.rounded(NAME, asked.detach()) + 0 * asked
        net = self.net if exact else self.fast
        with torch.no_grad():
            context = cast(Described, net.enhancement).context
            level = self._level().to(own.device).expand(len(own))
            bits = context.bits(one_hot(chosen), level)[:, None]
            for number, string in SHORT.items():
                alike = (chosen == number).flatten(1).all(1).reshape(-1, 1, 1, 1)
                bits = torch.where(alike, 8 * len(string) / bits[0].numel(), bits)
        return super().code(latents, quantize, exact=exact) | {
            NAME: Coded(asked, chosen, partial(_bits_of, bits=bits))
        }

    def synthesise(self, values: Mapping[str, Tensor], *, exact: bool = False) -> Tensor:
        """See :meth:`Codec.synthesise`."""
        device = torch.device("cpu") if exact else self.device
        y, hot = last(values["y"].to(device)), one_hot(values[NAME].detach().to(device))
        if exact:
            decoder = cast(JointDecoder, self.decoder)
            pairs = zip(y.split(1), hot.split(1), strict=True)
            return first(torch.cat([decoder.described(one, self.number, its) for one, its in pairs]))
        reduced = self.precision != torch.float32
        with torch.autocast(self.device.type, dtype=self.precision, enabled=reduced):
            image, seen = self.seen(y)
            enhancement = cast(Described, self.fast.enhancement)
            return first(enhancement.shown(image, seen, descriptors=hot).float())

    def seen(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """For the search: the picture that is to be repaired, (B, H, W, 3), and its features."""
        image, t = self.fast.transforms.synthesis(y, self._t(self.device)), self._t(self.device)
        return image, cast(Described, self.fast.enhancement).features(image, t)

    def symbols(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :meth:`Codec.symbols`."""
        chosen = self.rounded(NAME, latents[NAME].detach().cpu())
        return super().symbols(latents) | {NAME: chosen.to(torch.int32)}

    def compress(self, symbols: Mapping[str, Tensor]) -> list[bytes]:
        """See :meth:`Codec.compress`: a string of z and then y, and one of descriptors."""
        chosen = symbols[NAME][0, 0].cpu().long().numpy()
        return [*super().compress(symbols), self.coder.encode(chosen, float(self._level()))]

    def string_names(self) -> tuple[str, ...]:
        """See :meth:`Codec.string_names`."""
        return *super().string_names(), NAME

    def plan(self, profile: Profile) -> Profile:
        """See :meth:`Codec.plan`: descriptors are chosen behind the first stage, and at the end."""
        if any(isinstance(stage, OwnStage) for stage in profile.stage):
            return profile
        own = OwnStage(kind="own", evaluations=1)
        begun, *others = profile.stage
        stages = (begun, own, *others, own) if others else (begun, own)
        return profile.model_copy(update={"stage": stages})

    def refine(self, search: Any, evaluations: int) -> None:
        """See :meth:`Codec.refine`: better descriptors for the best latents so far, as far as they move in a window.

        It needs no gradients, and takes about as long as five gradient evaluations.
        """
        objective, best, codec = search.objective, search.best, search.codec
        with torch.no_grad():
            coded = codec.code(best, codec.rounded)
            y, start = last(coded["y"].value), coded[NAME].value
            others = best | {NAME: (start + 1) % CLASSES}
            moves = codec.code(others, codec.rounded)[NAME].value != start
            found = [
                chosen_for(
                    _picture(search, y[index : index + 1], index), start[index].long(), _PASSES, moves[index]
                )
                for index in range(objective.batch)
            ]
        latents = best | {NAME: torch.stack(found).to(best[NAME])}
        search.offer(latents, search.hard(latents))

    def _told(self, strings: Sequence[bytes], rows: int, columns: int) -> dict[str, Tensor]:
        """Descriptors; all are 0 where there is no string of theirs."""
        if not strings:
            return {NAME: torch.zeros(1, 1, rows, columns, dtype=torch.int64)}
        found = self.coder.decode(strings[0], rows, columns, float(self._level()))
        return {NAME: torch.from_numpy(found.copy())[None, None]}

    def _shown(self, values: Tensor, told: Mapping[str, Tensor]) -> Tensor:
        return cast(JointDecoder, self.decoder).described(values, self.number, one_hot(told[NAME]))

    def _level(self) -> Tensor:
        return level_of(torch.tensor([self.number]))


@dataclass(frozen=True)
class _Picture:
    """One picture of a search, as far as descriptors change it. See :class:`lof.codecs.descriptors.choice.Steered`.

    Attributes:
        image, seen: as :meth:`DescribedCodec.seen` has them.
        target: (1, 3, H, W), padded.
        weights: (1, 3, H, W), bits for a squared error of a sample; 0 outside of the picture.
        level: as :class:`Context` takes it.
    """

    codec: DescribedCodec
    image: Tensor
    seen: Tensor
    target: Tensor
    weights: Tensor
    level: Tensor

    def errors(self, chosen: Tensor) -> Tensor:
        """See :meth:`Steered.errors`."""
        enhancement = cast(Described, self.codec.fast.enhancement)
        shown = enhancement.shown(self.image, self.seen, descriptors=one_hot(chosen[:, None].float()))
        wrong = (first(shown).clamp(0, 1) - self.target).square() * self.weights
        return SIDE**2 * F.avg_pool2d(wrong.sum(1, keepdim=True), SIDE)[:, 0]

    def prices(self, chosen: Tensor) -> Tensor:
        """See :meth:`Steered.prices`."""
        context = cast(Described, self.codec.fast.enhancement).context
        return context.prices(one_hot(chosen[:, None].float()), self.level)


def _picture(search: Any, y: Tensor, index: int) -> _Picture:
    codec, objective = search.codec, search.objective
    image, seen = codec.seen(y)
    shown = codec.crop(first(codec.fast.enhancement.shown(image, seen)), objective.height, objective.width)
    curvature = objective.error_curvature(shown.expand(objective.batch, -1, -1, -1))[index : index + 1]
    target, weights = (torch.zeros_like(first(image)) for _ in range(2))
    for whole, part in (
        (target, objective.target[index : index + 1]),
        (weights, 0.5 * objective.pixels * curvature),
    ):
        codec.crop(whole, objective.height, objective.width).copy_(part)
    return _Picture(codec, image, seen, target, weights, codec._level().to(y.device))


def _bits_of(chosen: Tensor, bits: Tensor) -> Tensor:
    """Those of the descriptors that are there; what is beyond 0 to 15 costs more."""
    return bits + (chosen - chosen.clamp(0, CLASSES - 1)).abs()
