"""Where a codec's weights come from: an explicit folder, the package, ``LOF_WEIGHTS_DIR``, CompressAI's zoo.

The repository's ``lof/codecs/data`` has more files than the package that is built from it; see ``pyproject.toml``.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import threading
import urllib.error
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from lof.codecs.registry import Request, codec_spec
from lof.errors import WeightsError
from lof.files.checksums import is_spoilt
from lof.files.storage import open_read

Network = TypeVar("Network", bound=nn.Module)

StateDict = dict[str, Tensor]
SUFFIXES = (".safetensors", ".pth.tar", ".pth", ".pt")
TRANSFORMS = ("g_a.", "g_s.")
_NOT_INSTALLED = (
    "{}: is not installed here; take it from {} of lof's repository "
    "and name its folder with --weights or LOF_WEIGHTS_DIR"
)


@dataclass(frozen=True)
class Place:
    """Whose weights are wanted, and where they may be.

    Attributes:
        zoo: CompressAI's, from its server; otherwise they are lof's own.
        transforms: codec whose ``g_a`` and ``g_s`` these weights were made for, and need not repeat.
    """

    codec: str
    metric: str
    quality: float
    zoo: bool = False
    transforms: str | None = None

    @property
    def stem(self) -> str:
        """The beginning of the file's name: codec, metric unless it is mse, and quality."""
        infix = "" if self.metric == "mse" else f"{self.metric}-"
        return f"{self.codec}-{infix}{self.quality:.10g}"

    @property
    def bundled(self) -> Path:
        """The safetensors file in lof's repository, and perhaps in the package."""
        return Path(str(files("lof.codecs") / "data" / f"{self.stem}.safetensors"))

    @property
    def donor(self) -> Place | None:
        """Where the transforms are that these weights need not repeat, if they were made for another codec's."""
        if self.transforms is None:
            return None
        return Place(self.transforms, self.metric, self.quality)

    @property
    def url(self) -> str:
        """Address of the zoo's file."""
        from compressai.zoo.image import model_urls

        return str(model_urls[self.codec][self.metric][int(self.quality)])


def weights_name(codec: str, metric: str, quality: float) -> str:
    """Name of the safetensors file that a codec's weights have in a folder; one serves all of a range of qualities."""
    if codec_spec(codec).rates.one_network:
        return f"{codec}.safetensors"
    return f"{Place(codec, metric, quality).stem}.safetensors"


def load_weights(
    place: Place, folder: Path | None = None, *, download: bool = True
) -> tuple[StateDict, float | None]:
    """Find and read the weights of one rate point.

    Order: ``folder`` where the caller names one; lof's own folder; the folder that
    ``LOF_WEIGHTS_DIR`` names; CompressAI's zoo, by download. Transforms that a file leaves to another codec
    are taken from there.

    Args:
        download: whether the zoo may be asked; never where ``LOF_OFFLINE`` is set.

    Returns:
        The state dict (floating-point tensors in float32), and λ where the file states one.

    Raises:
        WeightsError: nowhere to be had, unreadable, or not what its file name's hash says.
    """
    path = _local(place, folder)
    if path is None:
        return _download(place, allowed=download), None
    state, metadata = _read(path)
    if place.donor and not transforms_of(state):
        lent = _lent(place.donor, beside=path)
        if not lent:
            raise WeightsError(
                f"{path}: needs transforms of {place.donor.bundled.name}; put that file beside it"
            )
        if metadata.get("transforms") != _digest(lent):
            raise WeightsError(
                f"{path}: made for other transforms than those of {place.transforms}; export it again"
            )
        state |= lent
    return state, float(metadata["lambda"]) if "lambda" in metadata else None


def transforms_of(state: StateDict) -> StateDict:
    """The part of a state dict that belongs to analysis and synthesis."""
    return {key: value for key, value in state.items() if key.startswith(TRANSFORMS)}


def without_lent_transforms(place: Place, state: StateDict) -> tuple[StateDict, dict[str, str]]:
    """A state dict as it ships, and metadata that belong to it: transforms that another codec ships stay there."""
    own, lent = transforms_of(state), _lent(place.donor) if place.donor else {}
    digest = _digest(lent)
    if not lent or _digest(own) != digest:
        return state, {}
    return {key: value for key, value in state.items() if key not in own}, {"transforms": digest}


def _lent(donor: Place, beside: Path | None = None) -> StateDict:
    """The transforms of a codec's weights, from another file's folder or from where its own are; none if nowhere."""
    name = donor.bundled.name
    path = beside.with_name(name) if beside and beside.with_name(name).is_file() else _at_hand(donor)
    state = _read(path)[0] if path else {}
    return {key: value.half().float() for key, value in transforms_of(state).items()}


def _digest(state: StateDict) -> str:
    """SHA-256 of names and values."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode() + state[key].float().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def no_larger_than(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let no network be built here that has more numbers than its weights, whatever sizes they state.

    Raises:
        ValueError: it has; raised before its memory is touched.
    """
    # Twice as many: a layer may replace a tensor that it has registered.
    left, here = 2 * sum(value.numel() for value in weights.values()), threading.get_ident()
    tensors = 2 * len(weights)

    def count(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        nonlocal left, tensors
        if parameter is not None and threading.get_ident() == here:
            left, tensors = left - parameter.numel(), tensors - 1
            if left < 0 or tensors < 0:
                raise ValueError("they state sizes that ask for more numbers than they hold")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def file_of(request: Request, data: Path) -> Path:
    """The file of a codec with one network for all qualities.

    Args:
        data: the family's own folder, where no other is asked for.

    Raises:
        WeightsError: it is not installed, and in no folder that is named.
    """
    name = weights_name(request.spec.name, request.metric, request.quality)
    path = (request.weights or data) / name
    if request.weights is not None or path.is_file():
        return path
    environment = os.environ.get("LOF_WEIGHTS_DIR")
    if environment and (Path(environment) / name).is_file():
        return Path(environment) / name
    where = data.relative_to(Path(__file__).parents[2]).as_posix()
    raise WeightsError(_NOT_INSTALLED.format(name, where))


def read_network(path: Path | str, whose: str, build: Callable[[StateDict], Network]) -> Network:
    """A network that serves every quality, from a safetensors file.

    Args:
        whose: what has such weights, with an article; for the error.
        build: makes the network of the file's tensors, and may raise as Python does where they are something else.

    Raises:
        WeightsError: there is no such file, or it holds something else.
    """
    try:
        with open_read(Path(path)), safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        broken = next((k for k, v in state.items() if not bool(v.float().isfinite().all())), None)
        if broken:
            raise ValueError(f"{broken} holds numbers that are not finite")
        with no_larger_than(state):
            return build(state)
    except (
        ArithmeticError,
        OSError,
        SafetensorError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise WeightsError(f"{path}: cannot be read as weights of {whose} ({reason(error)})") from error


def _local(place: Place, folder: Path | None) -> Path | None:
    if folder is not None:
        return _find(place, folder, required=True)
    path = _at_hand(place)
    if path is None and not place.zoo:
        raise WeightsError(_NOT_INSTALLED.format(place.bundled.name, "lof/codecs/data"))
    return path


def _at_hand(place: Place) -> Path | None:
    if not place.zoo and place.bundled.is_file():
        return place.bundled
    environment = os.environ.get("LOF_WEIGHTS_DIR")
    return _find(place, Path(environment), required=False) if environment else None


def _find(place: Place, folder: Path, *, required: bool) -> Path | None:
    names = list(_file_names(place))
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if required:
        raise WeightsError(
            f"{folder}: no weights of {place.codec} quality {place.quality:.10g}; put {' or '.join(names[:2])} there"
        )
    return None


def _file_names(place: Place) -> Iterator[str]:
    if place.zoo:
        yield place.url.rsplit("/", 1)[1]
    for suffix in SUFFIXES:
        yield place.stem + suffix


def _read(path: Path) -> tuple[StateDict, dict[str, str]]:
    """Weights, floating-point tensors in float32, and what the file says about them."""
    metadata: dict[str, str] = {}
    try:
        _check_hash(path)
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                metadata = file.metadata() or {}
            if not math.isfinite(float(metadata.get("lambda", 0))):
                raise ValueError("its lambda is no number")
        else:
            weights = _unpickled(path)
        _check_tensors(weights, path.stat().st_size)
    except (OSError, SafetensorError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as weights ({reason(error)})") from error
    return {_current_key(k): v.float() if v.is_floating_point() else v for k, v in weights.items()}, metadata


def _unpickled(path: Path) -> StateDict:
    try:
        with path.open("rb") as file:
            spoilt = is_spoilt(file)
        if not spoilt:
            # Mapped, a tensor cannot reach beyond the file, whatever length it states.
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError("damaged, or something else than tensors") from error
    if spoilt:
        raise ValueError("damaged: a checksum does not match; copy it again")
    return _unwrap(loaded)


def _check_tensors(weights: StateDict, size: int) -> None:
    """Refuse tensors that are not plain arrays, or that claim more bytes together than the file has."""
    for key, value in weights.items():
        if not isinstance(key, str) or value.layout != torch.strided or value.is_quantized or value.is_nested:
            raise ValueError(f"{key} is no plain array")
        if value.device.type != "cpu" or value.is_complex():
            raise ValueError(f"{key} is no plain array")
    if sum(value.numel() * value.element_size() for value in weights.values()) > size:
        raise ValueError("its tensors claim more bytes than it has")


def _unwrap(loaded: Any) -> StateDict:
    for key in ("state_dict", "sd"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ValueError("it holds no state_dict")
    return loaded


def _current_key(key: str) -> str:
    """Names as CompressAI 1.2.8 has them; older checkpoints spell the bottleneck's parameters otherwise."""
    key = key.removeprefix("module.")
    old = re.fullmatch(r"(entropy_bottleneck)\._(matri|bias|factor)(?:x|ces|es|s)?\.?(\d)", key)
    if old:
        plural = {"matri": "matrices", "bias": "biases", "factor": "factors"}[old[2]]
        return f"{old[1]}.{plural}.{old[3]}"
    return key


def _check_hash(path: Path) -> None:
    """The zoo writes the first 8 digits of the file's SHA-256 into its name."""
    stated = re.search(r"-([0-9a-f]{8})\.pth\.tar$", path.name)
    if stated and not hashlib.sha256(path.read_bytes()).hexdigest().startswith(stated[1]):
        raise ValueError("its SHA-256 is not the one in its name; download it again")


def _download(place: Place, *, allowed: bool) -> StateDict:
    name = place.url.rsplit("/", 1)[1]
    if not allowed or os.environ.get("LOF_OFFLINE", "0") not in ("", "0"):
        raise WeightsError(
            f"{name}: not on this machine, and lof downloads nothing here without being asked; give --download, "
            f"or put the file into a folder and name it with --weights or LOF_WEIGHTS_DIR"
        )
    try:
        loaded = torch.hub.load_state_dict_from_url(
            place.url, map_location="cpu", check_hash=True, weights_only=True, progress=False
        )
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"{name}: CompressAI's server cannot be reached ({reason(error)}); "
            f"put the file into a folder and name it with --weights or LOF_WEIGHTS_DIR"
        ) from error
    return {_current_key(k): v for k, v in _unwrap(loaded).items()}


def reason(error: Exception) -> str:
    """Why, in a few words: those of lof, of the system or of the server, but not those of torch."""
    if isinstance(error, OSError):
        return error.strerror or str(getattr(error, "reason", error))
    return str(error) if type(error) is ValueError else "damaged, or of another kind"
