"""Weights of a network of descriptors as a file: one for all qualities."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from lof.codecs.jpeg.descriptors.network import DescriptorNetwork
from lof.codecs.weights import no_larger_than, reason
from lof.errors import WeightsError


def read_weights(path: Path) -> DescriptorNetwork:
    """The network whose :meth:`DescriptorNetwork.shippable_state` a file holds.

    Raises:
        WeightsError: there is no such file, or it holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        broken = next((k for k, v in state.items() if not bool(v.float().isfinite().all())), None)
        if broken:
            raise ValueError(f"{broken} holds numbers that are not finite")
        with no_larger_than(state):
            return DescriptorNetwork.from_state(state)
    except (
        ArithmeticError,
        OSError,
        SafetensorError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        what = f"{path}: cannot be read as weights of a filter with descriptors"
        raise WeightsError(f"{what} ({reason(error)})") from error
