"""Weights of a lapped codec as a file: one for all qualities."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from lof.codecs.lapped.network import LappedNetwork
from lof.codecs.weights import read_network

Network = TypeVar("Network", bound=LappedNetwork)


def read_weights(path: Path | str, kind: type[Network] = LappedNetwork) -> Network:  # type: ignore[assignment]
    """The network, of a kind, whose :meth:`LappedNetwork.shippable_state` a file holds.

    Raises:
        WeightsError: there is no such file, or it holds something else.
    """
    return read_network(path, f"a {kind.family} codec", partial(_checked, kind))


def _checked(kind: type[Network], state: Mapping[str, Tensor]) -> Network:
    net = kind.from_state(state)
    net.tables.tables().check()
    return net
