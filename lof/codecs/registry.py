"""Every codec by name. A family registers its codecs beside its loader; a package of somebody else, by an entry point.

Registering needs no torch: a family's ``__init__`` holds data and a loader that imports the rest when it is called.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from multiprocessing import parent_process
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from lof.codecs.rates import Continuous, Key, Points, RatePoint, check_rates
from lof.containers.lof import NAME_PATTERN
from lof.errors import LofError, UnknownCodecError, UsageError, WeightsError, one_line

if TYPE_CHECKING:
    from lof.codecs.base import Codec
    from lof.codecs.training import Trainable

DEFAULT_CODEC = "lapped"
ENTRY_POINTS = "lof.codecs"
"""Group of the entry points that name modules of other packages; importing such a module registers its codecs."""


@dataclass(frozen=True)
class Request:
    """What a loader is asked for: one codec at one rate point.

    Attributes:
        weights: folder to take the weights from, and from nowhere else; wherever they are found if ``None``.
        device: where the search runs: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: of the search's synthesis: ``auto``, ``bf16`` or ``fp32``.
        download: whether missing weights may be fetched from the network.
    """

    spec: CodecSpec
    metric: str
    quality: float
    point: RatePoint
    weights: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    download: bool = True


Loader = Callable[[Request], "Codec"]


@dataclass(frozen=True)
class CodecSpec:
    """A codec as the registry knows it: data, all of it printable without torch.

    Attributes:
        name: 1 to 64 of ``A-Z a-z 0-9 . _ -``; it stands in every file.
        rates: its qualities.
        default_quality: what ``quality=None`` means.
        source: where its weights come from, in a word: ``bundled`` with lof, ``repository`` (lof's), ``zoo``, ``none``.
        summary, paper, licence: for lists and cards.
        portable: as :attr:`lof.codecs.Codec.portable`.
        hidden: not listed; exists for tests and examples.
    """

    name: str
    rates: Points | Continuous
    default_quality: float
    summary: str
    source: str = "none"
    paper: str = ""
    licence: str = ""
    portable: bool = False
    hidden: bool = False

    def rate_point(self, metric: str, quality: float) -> RatePoint:
        """λ and fingerprint at a quality.

        Raises:
            UnknownCodecError: the codec has no such rate point; the message says what it has.
        """
        return self.rates.at(self.name, metric, quality)

    def made_for(self, metric: str) -> str:
        """The metric of the rate points to load where a search wants ``metric``: that, or else the codec's only one."""
        known = {known for known, _ in self.rate_points}
        return metric if metric in known or len(known) > 1 else known.pop()

    @property
    def rate_points(self) -> dict[Key, RatePoint]:
        """Rate points by metric and quality: all of them, or those at whole qualities of a continuous range."""
        return self.rates.listed()

    def load(
        self,
        quality: float | None = None,
        *,
        metric: str = "mse",
        weights: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
        download: bool = True,
        lmbda: float | None = None,
    ) -> Codec:
        """The codec, trained, ready to search with and to decode. Arguments and errors as of :func:`load_codec`.

        Args:
            lmbda: λ of weights whose quality the registry need not know.
        """
        quality = self.default_quality if quality is None else float(quality)
        point = self.rate_point(metric, quality) if lmbda is None else RatePoint(lmbda)
        folder = None if weights is None else Path(weights).resolve()
        request = Request(self, metric, quality, point, folder, device, precision, download)
        import torch

        try:
            with torch.inference_mode(False):  # whatever mode the caller is in, it is searched with later
                codec = _loaders[self.name](request)
        except LofError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {one_line(error)}"
            raise WeightsError(
                f"codec {self.name} quality {quality:.10g}: its loader failed ({what}); "
                "check its weights and its package"
            ) from error
        _check_loaded(codec, request)
        if folder is None and point.fingerprint not in (None, codec.fingerprint.hex()):
            raise WeightsError(
                f"weights of {self.name} quality {quality:.10g}: damaged (their fingerprint is another one "
                "than was registered); install lof again"
            )
        return codec


_specs: dict[str, CodecSpec] = {}
_loaders: dict[str, Loader] = {}
_tiers: dict[str, Mapping[str, str]] = {}
_trainables: dict[str, Callable[[str], Trainable]] = {}
_REGISTERED: tuple[dict[str, Any], ...] = (_specs, _loaders, _tiers, _trainables)

_L = TypeVar("_L", bound=Loader)
_T = TypeVar("_T", bound="Callable[[str], Trainable]")


def register(*specs: CodecSpec) -> Callable[[_L], _L]:
    """Register codecs that the decorated function loads.

    Raises:
        ValueError: a codec of that name is registered already, or no file can state its name or one of its qualities.
    """

    def decorate(loader: _L) -> _L:
        for spec in specs:
            _check_name(spec.name)
            try:
                check_rates(spec.rates)
            except ValueError as error:
                raise ValueError(f"codec {spec.name!r}: {error}") from error
            _specs[spec.name], _loaders[spec.name] = spec, loader
        return loader

    return decorate


def register_tiers(name: str, by_profile: Mapping[str, str]) -> None:
    """Register a name that stands for several codecs, of which the search's profile selects one.

    Args:
        by_profile: codec by profile name, cheapest first; ``medium`` decides for all other profiles.

    Raises:
        ValueError: the name is taken, or none that a codec may have.
    """
    _check_name(name)
    _tiers[name] = MappingProxyType(dict(by_profile))


def register_training(*names: str) -> Callable[[_T], _T]:
    """Register the decorated function as what says, for these codecs, how they are trained.

    Recipes of ``lof train`` are the TOML files in a folder ``recipes`` beside the function's module.
    """

    def decorate(find: _T) -> _T:
        _trainables.update(dict.fromkeys(names, find))
        return find

    return decorate


def codec_specs(*, hidden: bool = False) -> list[CodecSpec]:
    """All registered codecs in the order of registration; ``hidden`` ones on request."""
    _find_families()
    return [spec for spec in _specs.values() if hidden or not spec.hidden]


def codec_spec(name: str) -> CodecSpec:
    """The codec of that name.

    Raises:
        UnknownCodecError: there is none, or several; the message names them, or the nearest.
    """
    _find_families()
    if not isinstance(name, str):
        raise UnknownCodecError(f"codec {name!r}: is a {type(name).__name__}; give the name of one")
    if name in _specs:
        return _specs[name]
    if name in _tiers:
        raise UnknownCodecError(f"codec {name!r}: stands for {', '.join(tiers_of(name))}; name one")
    raise UnknownCodecError(f"codec {name!r}: unknown; {_hint(name)}")


def codec_for(name: str | None, profile: str) -> str:
    """The codec that ``name`` stands for beside a profile of that name.

    Args:
        name: of a codec, of several (``msp``), or ``None`` for the default codec.
        profile: its name; one that is not shipped selects as ``medium`` does.
    """
    if name is None:
        return DEFAULT_CODEC
    _find_families()
    by_profile = _tiers.get(name)
    return name if by_profile is None else by_profile.get(profile, by_profile["medium"])


def tiers_of(name: str | None) -> tuple[str, ...]:
    """Every codec that ``name`` may stand for, cheapest first."""
    _find_families()
    if name is None or name not in _tiers:
        return (name or DEFAULT_CODEC,)
    return tuple(dict.fromkeys(_tiers[name].values()))


def codec_tiers() -> dict[str, tuple[str, ...]]:
    """The names that stand for several codecs, and which these are, cheapest first."""
    _find_families()
    return {name: tiers_of(name) for name in _tiers}


def trainable(name: str) -> Trainable:
    """How the codec of that name is trained.

    Raises:
        UnknownCodecError: there is no such codec, or it cannot be trained here.
    """
    spec = codec_spec(name)
    if name not in _trainables:
        known = ", ".join(known for known in _trainables if not _specs[known].hidden)
        raise UnknownCodecError(f"codec {spec.name}: lof cannot train it; it trains {known}")
    return _trainables[name](name)


def recipes() -> dict[str, Path]:
    """The recipes of all families, by name."""
    _find_families()
    modules = dict.fromkeys(find.__module__ for find in _trainables.values())
    folders = [Path(str(sys.modules[module].__file__)).parent / "recipes" for module in modules]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


@cache
def _find_families() -> None:
    """Import what registers codecs: lof's own families, then those of other packages."""
    here = importlib.import_module("lof.codecs")
    for module in pkgutil.iter_modules(here.__path__, "lof.codecs."):
        if module.ispkg:
            importlib.import_module(module.name)
    for entry in entry_points(group=ENTRY_POINTS):
        before = [known.copy() for known in _REGISTERED]
        try:
            with _torch_left_alone():
                entry.load()
        except (Exception, SystemExit) as error:
            # A broken package of somebody else must not take lof with it.
            for known, earlier in zip(_REGISTERED, before, strict=True):
                known.clear()
                known.update(earlier)
            if parent_process() is not None:
                continue  # what started this worker has said it
            package = entry.dist.name if entry.dist else entry.value
            what = f"{type(error).__name__}: {one_line(error)}"
            warnings.warn(
                f"the codecs of {package} cannot be used ({what}); update or remove it", stacklevel=2
            )


@contextmanager
def _torch_left_alone() -> Iterator[None]:
    """Undo what the import of a package changes for every codec; torch itself is not imported for that."""
    torch = sys.modules.get("torch")
    gradients, dtype = (torch.is_grad_enabled(), torch.get_default_dtype()) if torch else (True, None)
    try:
        yield
    finally:
        if torch := sys.modules.get("torch"):
            torch.set_grad_enabled(gradients)
            torch.set_default_dtype(dtype or torch.float32)


def _check_loaded(codec: object, request: Request) -> None:
    """Refuse what a file of the codec that was asked for could not be read with."""
    from lof.codecs.base import Codec

    whose = f"codec {request.spec.name}: its loader gives"
    if not isinstance(codec, Codec):
        raise UsageError(f"{whose} {type(codec).__name__} instead of a lof.codecs.Codec; correct the loader")
    asked = {"name": request.spec.name, "quality": request.quality, "metric": request.metric}
    for field, wanted in asked.items():
        found = getattr(codec, field, None)
        if found != wanted:
            raise UsageError(
                f"{whose} a codec of {field} {found!r} instead of {wanted!r}; correct the loader"
            )


def _check_name(name: str) -> None:
    if not NAME_PATTERN.fullmatch(name):
        raise ValueError(f"codec {name!r}: no file can state the name; take 1 to 64 of A-Z a-z 0-9 . _ -")
    if name in _specs or name in _tiers:
        raise ValueError(f"codec {name!r} is registered already; choose another name")


def _hint(name: str) -> str:
    near = difflib.get_close_matches(name, _specs, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(s.name for s in codec_specs())}"
