"""How networks with CompressAI's interface are trained: ``forward`` gives ``x_hat`` and ``likelihoods``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from compressai.models import CompressionModel
from torch import Tensor, nn

from lof.codecs.base import Codec
from lof.codecs.entropy.training import auxiliary, quantiles, take_over
from lof.codecs.network import NetworkCodec, places
from lof.codecs.network_weights import check_quantiles, is_table
from lof.codecs.registry import codec_spec
from lof.codecs.training import Aim, Kept, Losses, ParameterGroup, Shipped, State, Task, check_sizes
from lof.codecs.weights import weights_name
from lof.errors import TrainingError

TRANSFORMS = ("g_a", "g_s")
QUANTILES_LEARNING_RATE = 1e-3


class NetworkTraining:
    """:class:`lof.codecs.training.Trainable` for the codecs of a :class:`NetworkCodec`.

    Args:
        sizes: N and M; a recipe must name those that are not given here.
    """

    def __init__(self, name: str, codec: type[NetworkCodec], sizes: Mapping[str, int] | None = None) -> None:
        self.name, self.codec_class, self.sizes = name, codec, sizes or {}

    def build(self, network: Mapping[str, Any]) -> CompressionModel:
        """See :class:`Trainable`; ``network`` holds N and M."""
        check_sizes(network, {"N": 1, "M": 1})
        sizes = {**self.sizes, **network}
        if sizes.keys() != {"N", "M"}:
            raise TrainingError(f"network: {self.name} has the sizes N and M; give these two")
        return self.codec_class.network(**sizes)

    def load(self, net: nn.Module, state: State, origin: str) -> None:
        """See :class:`Trainable`: every tensor but the entropy coder's tables, which training does not use."""
        own = net.state_dict()
        kept = {key: value for key, value in state.items() if not is_table(key)}
        missing = sorted(key for key in own.keys() - kept.keys() if not is_table(key))
        unknown = sorted(kept.keys() - own.keys())
        other_shape = sorted(key for key in kept.keys() & own.keys() if kept[key].shape != own[key].shape)
        for keys, wrong in (
            (missing, "is missing"),
            (unknown, "is unknown"),
            (other_shape, "has another shape"),
        ):
            if keys:
                raise _other_architecture(origin, f"{keys[0]} {wrong}")
        # CompressAI's networks insist on tables in what they load; their own empty ones will do.
        net.load_state_dict({key: value for key, value in own.items() if is_table(key)} | kept)

    def task(self, net: nn.Module, aim: Aim) -> Task:
        """See :class:`Trainable`. With ``frozen`` the rate alone is trained, on the latents of all pictures."""
        if aim.part is not None:
            raise TrainingError(
                f"part: {self.name} is trained as a whole, or with frozen transforms; leave it out"
            )
        kept, stride = None, self.codec_class.stride
        if aim.frozen is not None:
            _take_transforms(net, aim)
            analysis = copy.deepcopy(cast(nn.Module, net.g_a)).eval()
            kept = Kept(analysis, stride // places(analysis, stride))
        loss = LatentRate(net, aim.precision, kept.stride) if kept else RateDistortion(net, aim)
        apart = list(quantiles(net))
        ids = {id(parameter) for parameter in apart}
        weights = [p for p in net.parameters() if id(p) not in ids and p.requires_grad]
        groups = [ParameterGroup(weights), ParameterGroup(apart, fixed=QUANTILES_LEARNING_RATE)]
        return Task(net, loss, groups, kept, stride=stride)

    def ship(self, state: State, metric: str, quality: float | None, origin: str) -> Shipped:
        """See :class:`Trainable`: parameters in float16, and the entropy coder's tables computed from those."""
        assert quality is not None
        try:
            net = self.codec_class.network(*self.codec_class.sizes_in(state))
        except (TypeError, ValueError):
            raise _other_architecture(origin, "its sizes are none of this codec's") from None
        parameters = dict(net.named_parameters())
        self.load(net, {k: v.half().float() if k in parameters else v for k, v in state.items()}, origin)
        net.eval()
        check_quantiles(net)
        net.update(force=True)
        tensors, metadata = self.compact(net, metric, quality)
        metadata["architecture"] = self._architecture(net)
        return Shipped(weights_name(self.name, metric, quality), tensors, metadata)

    def compact(
        self, net: nn.Module, metric: str, quality: float
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The weights of an updated network, as small as can be without changing what it decodes; and metadata."""
        parameters = dict(net.named_parameters())
        state = net.state_dict()
        return {key: (v.half() if key in parameters else v).contiguous() for key, v in state.items()}, {}

    def card(self, codec: Codec) -> str:
        """See :class:`Trainable`."""
        architecture = self._architecture(cast(NetworkCodec, codec).net)
        return f"Architecture: `{architecture}`. Weights are in float16, with the entropy coder's tables."

    def _architecture(self, net: nn.Module) -> str:
        sizes: tuple[object, ...] = self.codec_class.sizes_in(net.state_dict())
        if len(sizes) == 2:
            sizes = tuple(f"{name}={size}" for name, size in zip("NM", sizes, strict=True))
        return f"{type(net).__name__}({', '.join(map(str, sizes))})"


class _Priced(nn.Module):
    def __init__(self, net: nn.Module, precision: torch.dtype, pricing: Literal["noisy", "rounded"]) -> None:
        super().__init__()
        self.net, self.precision = net, precision
        take_over(net, pricing)

    def _run(self, net: nn.Module, batch: Tensor) -> tuple[Any, Tensor]:
        """What the network gives for a batch, and all bits."""
        with torch.autocast(batch.device.type, self.precision, enabled=self.precision != torch.float32):
            out = net(batch)
        return out, -cast(Tensor, sum(likelihood.log2().sum() for likelihood in out["likelihoods"].values()))


class RateDistortion(_Priced):
    """A network with the loss ``bpp + λ·D``, as one module.

    Args:
        net: its entropy models are taken over, so save ``net.state_dict()`` and never the module itself.
    """

    def __init__(self, net: nn.Module, aim: Aim) -> None:
        super().__init__(net, aim.precision, "noisy")
        assert aim.lmbda is not None
        self.lmbda, self.metric = aim.lmbda, aim.metric

    def forward(self, images: Tensor) -> Losses:
        """Price images, (B, 3, H, W) float32 in [0, 1].

        What is minimised has the bottlenecks' own loss in it, whose gradient reaches their quantiles only.
        """
        out, bits = self._run(self.net, images)
        bpp = bits / (images.shape[0] * images.shape[2] * images.shape[3])
        distortion = self._distortion(out["x_hat"].float(), images)
        loss = bpp + self.lmbda * distortion
        return loss + auxiliary(self.net), loss.detach(), bpp.detach(), distortion.detach()

    def _distortion(self, decoded: Tensor, images: Tensor) -> Tensor:
        if self.metric == "mse":
            return 255**2 * F.mse_loss(decoded, images)
        import pytorch_msssim

        return cast(Tensor, 1 - pytorch_msssim.ms_ssim(decoded, images, data_range=1.0))


class LatentRate(_Priced):
    """A network's rate on given latents, as one module: the transforms are done already.

    Args:
        net: has ``g_a`` and ``g_s``; its entropy models are taken over.
        place: pixels for each place of y, a side.
    """

    def __init__(self, net: nn.Module, precision: torch.dtype, place: int) -> None:
        super().__init__(net, precision, "rounded")
        self.place = place
        # Shares everything with the network but the transforms.
        view = copy.copy(net)
        view._modules = net._modules | {name: nn.Identity() for name in TRANSFORMS}
        self._view: list[nn.Module] = [view]

    def forward(self, y: Tensor) -> Losses:
        """Price latents, (B, M, h, w) float32; the distortion is 0."""
        _, bits = self._run(self._view[0].train(self.training), y)
        rate = bits / (y.shape[0] * y.shape[2] * y.shape[3] * self.place**2)
        nothing = torch.zeros_like(rate.detach())
        return rate + auxiliary(self.net), rate.detach(), rate.detach(), nothing


def _take_transforms(net: nn.Module, aim: Aim) -> None:
    """Take the transforms of a registered codec at the aim's quality, and freeze them."""
    assert aim.frozen is not None
    donor = codec_spec(aim.frozen).load(aim.quality, metric=aim.metric, device="cpu", precision="fp32")
    state = donor.net.state_dict() if isinstance(donor, NetworkCodec) else {}
    for name in TRANSFORMS:
        own: nn.Module = getattr(net, name)
        part = {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")}
        try:
            own.load_state_dict(part)
        except RuntimeError:
            raise TrainingError(
                f"{aim.frozen} quality {aim.quality:.10g}: its {name} does not fit; check the sizes in `network`"
            ) from None
        own.requires_grad_(False)


def _other_architecture(origin: str, why: str) -> TrainingError:
    return TrainingError(f"{origin}: not weights of this architecture ({why}); check `codec` and `network`")
