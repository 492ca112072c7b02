"""Networks of CompressAI's kind, built from weights that are checked first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from torch import Tensor, nn

from lof.codecs.entropy.tables import Tables
from lof.codecs.weights import StateDict, no_larger_than, reason
from lof.errors import WeightsError

WIDEST = 2**13
"""No quantile of a factorised prior is farther from 0: a longer table has no room for its symbols' frequencies."""


def build_network(network: Any, sizes: Sequence[int], weights: StateDict, origin: str) -> Any:
    """A network of this class with these weights and its entropy coder's tables.

    Tables stored in the weights are used as they are, since recomputing them elsewhere could give other bytes.

    Args:
        network: a class with CompressAI's ``from_state_dict`` and ``update``.
        sizes: arguments of its constructor.

    Raises:
        WeightsError: the weights are not of this class.
    """
    # A network of the right class but without one tensor would decode noise; strict loading is not optional.
    try:
        with no_larger_than(weights):
            empty = network(*sizes).state_dict()
        for key in sorted(empty.keys() | weights.keys()):
            if not is_table(key):
                _compare(key, empty.get(key), weights.get(key))
        tables = {key: value for key, value in empty.items() if is_table(key)}
        net = network.from_state_dict(tables | weights)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{origin}: not weights of {network.__name__} ({reason(error)})") from error
    try:
        broken = sorted(k for k, v in net.state_dict().items() if not bool(v.isfinite().all()))
        if broken:
            raise ValueError(f"{broken[0]} holds numbers that are not finite")
        check_quantiles(net)
        net.eval()
        net.update()  # computes only the tables that the weights did not bring
        check_tables(net)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"{origin}: damaged ({reason(error)})") from error
    return net


def _compare(key: str, wanted: Tensor | None, given: Tensor | None) -> None:
    if given is None:
        raise ValueError(f"{key} is missing")
    if wanted is None:
        raise ValueError(f"{key} is unknown to it")
    if wanted.shape != given.shape:
        raise ValueError(f"{key} has the shape {tuple(given.shape)} instead of {tuple(wanted.shape)}")


def is_table(key: str) -> bool:
    """Whether a tensor of this name is one of the entropy coder's tables, which are computed from the weights."""
    return key.endswith(("_offset", "_quantized_cdf", "_cdf_length", "scale_table"))


def check_quantiles(net: nn.Module) -> None:
    """Whether tables can be computed for the factorised priors of a network.

    Raises:
        ValueError: one would be absurdly long.
    """
    for model in net.modules():
        if isinstance(model, EntropyBottleneck) and not bool((model.quantiles.abs() <= WIDEST).all()):
            raise ValueError("a factorised prior is wider than any latent")


def check_tables(net: nn.Module) -> None:
    """:meth:`Tables.check` for all of CompressAI's entropy models in an updated network.

    Raises:
        ValueError: the coder cannot work with one.
    """
    for model in net.modules():
        if isinstance(model, EntropyBottleneck | GaussianConditional):
            wanted = model.channels if isinstance(model, EntropyBottleneck) else model.scale_table.numel()
            dimensions = model._quantized_cdf.ndim, model._cdf_length.ndim, model._offset.ndim
            if dimensions != (2, 1, 1) or not (
                wanted == len(model._quantized_cdf) == model._cdf_length.numel() == model._offset.numel()
            ):
                raise ValueError("it has not one table of frequencies for each distribution")
            Tables.of(model).check()
