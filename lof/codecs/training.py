"""What training needs of a codec family, apart from what searching and decoding need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from lof.codecs.base import Codec
from lof.codecs.registry import trainable
from lof.codecs.weights import no_larger_than, reason
from lof.errors import TrainingError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
State = Mapping[str, Tensor]
"""A network's ``state_dict``."""
Losses = tuple[Tensor, Tensor, Tensor, Tensor]
"""Scalars of a batch: what is minimised; and, without gradients, the loss to report, bits per pixel, and D."""


@dataclass(frozen=True)
class Aim:
    """What a rung of a recipe asks for.

    Attributes:
        metric: D is ``255²·MSE`` for ``mse``, ``1 - MS-SSIM`` for ``ms-ssim``.
        quality, lmbda: of the one rate that is trained; ``None`` where one network serves all rates.
        precision: of the transforms.
        frozen: codec whose transforms are taken and left as they are.
        part: the part of the network that is trained, in the family's words; all of it if ``None``.
    """

    metric: str
    quality: float | None
    lmbda: float | None
    precision: torch.dtype
    frozen: str | None = None
    part: str | None = None


class Source(Protocol):
    """What a network is trained on: pictures, or what was kept of them."""

    def batch(self, size: int, seed: int) -> Tensor:
        """Random crops, (size, C, h, w) float32; equal seeds give equal crops. Pictures are in [0, 1]."""
        ...

    def spread(self) -> Tensor:
        """Standard deviation of each channel, (C,) float32."""
        ...


@dataclass(frozen=True)
class Kept:
    """What is kept of each picture instead of its pixels, where the first part of a network does not change.

    Attributes:
        analyse: takes (1, 3, H, W) float32 in [0, 1], both sides multiples of ``stride``; gives
            (1, C, H / stride, W / stride).
    """

    analyse: nn.Module
    stride: int


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with a learning rate of their own.

    Attributes:
        factor: times the recipe's learning rate.
        fixed: this learning rate in every step, and no clipping, since their gradient is of another loss.
    """

    parameters: Sequence[nn.Parameter]
    factor: float = 1.0
    fixed: float | None = None


@dataclass(frozen=True)
class Task:
    """A network, and how one rung trains it.

    Attributes:
        loss: takes a batch of the source and gives :data:`Losses`; compiled or made data-parallel as a whole.
        groups: what is trained; other parameters stay as they are.
        kept: what the source holds; pictures if ``None``.
        start: called once, before the first step of a network that has learned nothing.
        stride: crops are multiples of this many pixels a side.
    """

    network: nn.Module
    loss: nn.Module
    groups: Sequence[ParameterGroup]
    kept: Kept | None = None
    start: Callable[[Source], None] | None = None
    stride: int = 1


@dataclass(frozen=True)
class Shipped:
    """Weights as they ship: the file's name, its tensors, and what it says about them."""

    name: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def with_sizes(config: Config, network: Mapping[str, Any]) -> Config:
    """The sizes of a codec, some of them as a recipe's ``network`` has them.

    Raises:
        TrainingError: they are none of its sizes; the message begins with ``network``.
        ValueError: together they make no codec.
    """
    check_sizes(network, {field.name: getattr(config, field.name) for field in fields(config)})
    return replace(config, **network)


def check_sizes(network: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Check that a recipe's ``network`` holds sizes of the same names and kinds as a codec's own.

    Raises:
        TrainingError: it does not; the message begins with ``network``.
    """
    for key, value in network.items():
        if key not in own:
            raise TrainingError(f"network: {key}: unknown; the sizes are {', '.join(own)}")
        if isinstance(value, tuple | list) != isinstance(own[key], tuple):
            kind = "a list of whole numbers" if isinstance(own[key], tuple) else "one whole number"
            raise TrainingError(f"network: {key}: must be {kind}")


class Trainable(Protocol):
    """A codec family in training. Found by :func:`lof.codecs.registry.trainable`, one for each codec's name."""

    def build(self, network: Mapping[str, Any]) -> nn.Module:
        """A network that has learned nothing, from torch's random numbers.

        Args:
            network: sizes by name, in the family's words, where they are not the codec's own.

        Raises:
            TrainingError: there is no such network; the message begins with ``network``.
        """
        ...

    def load(self, net: nn.Module, state: State, origin: str) -> None:
        """Put trained weights into a network.

        Raises:
            TrainingError: they are not of this network; the message begins with ``origin``.
        """
        ...

    def task(self, net: nn.Module, aim: Aim) -> Task:
        """How a network, on the device where it is trained, is trained for ``aim``. May change its layers' ``forward``.

        Raises:
            TrainingError: the family has no such part, or the transforms to take do not fit.
        """
        ...

    def ship(self, state: State, metric: str, quality: float | None, origin: str) -> Shipped:
        """Trained weights as they ship: small, and with all that decoding needs.

        The codec's loader finds them by that name in a folder, whatever rates the registry knows.

        Args:
            quality: ``None`` where one network serves all rates.

        Raises:
            TrainingError: the weights are not of this family; the message begins with ``origin``. It may raise as
                Python does where they are damaged.
        """
        ...

    def card(self, codec: Codec) -> str:
        """For the model card: architecture, how its weights are stored, what decoding takes. Markdown sentences."""
        ...


def shipped(codec: str, state: State, metric: str, quality: float | None, origin: str) -> Shipped:
    """Trained weights of a codec as they ship, by :meth:`Trainable.ship`, where they are sound.

    Raises:
        TrainingError: the weights are not of this codec's family, or damaged; the message begins with ``origin``.
    """
    try:
        _check_finite(state)
        with no_larger_than(state):
            found = trainable(codec).ship(state, metric, quality, origin)
        _check_finite(found.tensors)  # float16 has no large numbers
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{origin}: cannot ship as weights of {codec} ({reason(error)}); name another checkpoint"
        ) from error
    return found


def _check_finite(tensors: State) -> None:
    broken = next((key for key, value in tensors.items() if not bool(value.isfinite().all())), None)
    if broken:
        raise ValueError(f"{broken} holds numbers that are not finite")
