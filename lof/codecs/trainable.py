"""What training needs of a codec family, apart from what searching and decoding need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from lof.codecs.base import Codec


class Trainable(Protocol):
    """A codec family in training. Found by :func:`lof.codecs.registry.trainable`, one for each codec's name."""

    @property
    def network(self) -> Any:
        """The network's class, which takes the recipe's sizes; see :mod:`lof.training.loss` for what it must do."""
        ...

    def sizes_in(self, state: Mapping[str, Tensor]) -> tuple[int, ...]:
        """The network's sizes, read from its weights; empty where they are none of this family."""
        ...

    def ship(self, net: nn.Module) -> dict[str, Tensor]:
        """The weights of an updated network as they ship: as small as can be without changing what it decodes."""
        ...

    def compact(
        self, state: Mapping[str, Tensor], metric: str, quality: float
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Shipped weights without what another codec's file holds, and metadata that belong to them."""
        ...

    def read(
        self, folder: Path | None, metric: str, quality: float
    ) -> tuple[dict[str, Tensor], float | None]:
        """Weights in a folder, or those at hand if ``None``: whole again, and λ where the file states one."""
        ...

    def codec(
        self,
        state: Mapping[str, Tensor],
        *,
        sizes: Sequence[int],
        metric: str,
        quality: float,
        lmbda: float,
        origin: str,
    ) -> Codec:
        """The codec of shipped weights, on the CPU in float32; the registry need not have this rate point."""
        ...

    def decoding_cost(self, codec: Codec) -> str:
        """For the model card: what decoding takes, in one sentence; empty where there is nothing to say."""
        ...
