"""Smaller and better files from learned image codecs: per-image latent search, decoder unchanged.

>>> import lof
>>> result = lof.optimize(image, profile="high")  # doctest: +SKIP
>>> result.data, result.rate_change  # doctest: +SKIP
"""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lof.api import decode, encode, optimize, optimize_batch, repack
    from lof.codecs import load_codec
    from lof.errors import LofError
    from lof.pictures.picture import Picture
    from lof.pictures.reading import read_picture
    from lof.profiles import load_profile
    from lof.results import Measured, Result, Target

# compressai 1.2.8 compiles helpers with torch.jit, which newer PyTorch deprecates at import.
for _kind in (FutureWarning, DeprecationWarning):
    warnings.filterwarnings("ignore", r"`torch\.jit\.", _kind)

try:
    __version__ = version("lof")
except PackageNotFoundError:  # imported from a source tree that is not installed
    __version__ = "0+unknown"

# torch and compressai take seconds to import; `lof --help` and `lof.__version__` need neither.
_HOMES = {
    "LofError": "lof.errors",
    "Measured": "lof.results",
    "Picture": "lof.pictures.picture",
    "Result": "lof.results",
    "Target": "lof.results",
    "decode": "lof.api",
    "encode": "lof.api",
    "load_codec": "lof.codecs",
    "load_profile": "lof.profiles",
    "optimize": "lof.api",
    "optimize_batch": "lof.api",
    "read_picture": "lof.pictures.reading",
    "repack": "lof.api",
}

__all__ = [
    "LofError",
    "Measured",
    "Picture",
    "Result",
    "Target",
    "__version__",
    "decode",
    "encode",
    "load_codec",
    "load_profile",
    "optimize",
    "optimize_batch",
    "read_picture",
    "repack",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'lof' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
