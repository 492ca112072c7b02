"""Weights of a lapped codec as a file: one for all qualities."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from lof.codecs.lapped.network import LappedNetwork
from lof.codecs.weights import read_network


def read_weights(path: Path) -> LappedNetwork:
    """The network whose :meth:`LappedNetwork.shippable_state` a file holds.

    Raises:
        WeightsError: there is no such file, or it holds something else.
    """
    return read_network(path, "a lapped codec", _checked)


def _checked(state: Mapping[str, Tensor]) -> LappedNetwork:
    net = LappedNetwork.from_state(state)
    net.tables.tables().check()
    return net
