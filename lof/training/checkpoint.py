"""One file that holds a whole run: weights, their average, optimiser, position, recipe.

The state of the random numbers needs no place of its own: every step seeds them anew from the recipe's seed,
the rung, the step and the worker, all of which are in the file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lof.errors import OutputError, TrainingError, one_line
from lof.files.atomic import cannot_write, make_folders, write_atomically
from lof.files.checksums import is_spoilt
from lof.files.lock import lock
from lof.files.storage import open_read

FORMAT = "lof-training-2"
LOCK = ".lock"
_KINDS = {
    "recipe": dict,
    "rung": int,
    "step": int,
    "sd": dict,
    "ema": dict,
    "opt": dict,
    "pending": list,
    "lowest": float,
    "seconds": float,
    "pixels": int,
    "about": dict,
}
_NO_FIELDS = {"format", "digest"}
"""Of what a file holds; earlier versions of lof wrote a digest of the recipe as well."""
_ABOUT = {"hardware": str, "pictures": int, "pixels": int, "precision": str}


@dataclass
class Checkpoint:
    """A run between two steps.

    Attributes:
        recipe: as :meth:`Recipe.model_dump` gives it in JSON mode.
        rung: index in the recipe.
        step: steps done in this rung.
        sd: the network's ``state_dict``.
        ema: averages of its parameters, by name.
        opt: the optimiser's ``state_dict``.
        pending: sums since the last log line: loss, bpp, distortion, gradient norm, steps.
        lowest: lowest mean loss of a log line in this rung.
        seconds: time spent in this run, validation included.
        pixels: of all crops that this run has seen.
        about: where and on what it was trained: hardware, pictures, pixels.
    """

    recipe: dict[str, Any]
    rung: int
    step: int
    sd: dict[str, Tensor]
    ema: dict[str, Tensor]
    opt: dict[str, Any]
    pending: list[float]
    lowest: float
    seconds: float
    pixels: int
    about: dict[str, Any] = field(default_factory=dict)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """The folder of a run, which is created, with other runs kept out.

    Raises:
        OutputError: it cannot be created or written, or another process trains there.
    """
    make_run_folder(folder)
    try:
        handle = lock(folder, folder / LOCK)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield
    finally:
        os.close(handle)


def make_run_folder(folder: Path) -> None:
    """Create the folder of a run, before anything is read for it.

    Raises:
        OutputError: it cannot be created.
    """
    try:
        make_folders(folder)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{folder}: is a file, or lies in one; name a folder for the run") from error
    except OSError as error:
        raise cannot_write(folder, error) from error


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically: whoever reads ``path`` finds the old checkpoint or this one.

    Raises:
        OutputError: it cannot be written there.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **vars(checkpoint)}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read back, onto the CPU.

    Raises:
        TrainingError: not readable, damaged, or not such a checkpoint.
    """
    content = read_torch_file(path)
    if content.get("format") != FORMAT:
        raise TrainingError(f"{path}: not a checkpoint of this version of lof; train again in another folder")
    return checkpoint_of(content, path)


def checkpoint_of(content: dict[str, Any], path: Path) -> Checkpoint:
    """What :func:`save_checkpoint` wrote to ``path``.

    Raises:
        TrainingError: something in it is missing, too much or of another kind.
    """
    try:
        found = Checkpoint(**{key: value for key, value in content.items() if key not in _NO_FIELDS})
        wrong = [name for name, kind in _KINDS.items() if not isinstance(getattr(found, name), kind)]
        if not wrong and not 0 <= found.rung < len(found.recipe["rung"]):
            wrong = ["rung"]
        if not wrong and not 0 <= found.step <= found.recipe["rung"][found.rung]["steps"]:
            wrong = ["step"]
        if not wrong:
            wrong = [name for name in ("sd", "ema") if not all(map(_is_whole, getattr(found, name).values()))]
        if not wrong and any(not isinstance(found.about.get(key), kind) for key, kind in _ABOUT.items()):
            wrong = ["about"]
    except (KeyError, TypeError) as error:
        raise damaged(path, one_line(error)) from error
    if wrong:
        raise damaged(path, f"its {wrong[0]} is wrong")
    return found


def _is_whole(value: object) -> bool:
    """Whether it is a plain tensor all of whose elements the file holds."""
    return (
        isinstance(value, Tensor)
        and value.device.type == "cpu"
        and value.layout == torch.strided
        and value.nbytes <= value.untyped_storage().nbytes()
    )


def damaged(path: Path, what: str) -> TrainingError:
    """The error for a checkpoint that is not as it was written."""
    return TrainingError(f"{path}: is damaged ({what}); copy it again, or name another file or folder")


def read_torch_file(path: Path) -> dict[str, Any]:
    """A dictionary that ``torch.save`` wrote, without running any code in it.

    Raises:
        TrainingError: not readable, damaged, or no dictionary.
    """
    try:
        with open_read(path) as file:
            bad = is_spoilt(file)
            content = None if bad else torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(f"{path}: does not exist; check the name") from None
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot be read ({error.strerror or error}); name a checkpoint"
        ) from error
    except Exception as error:  # what is no checkpoint, or a damaged one, can raise anything
        raise TrainingError(
            f"{path}: cannot be read as a checkpoint (damaged, or something else); name another file"
        ) from error
    if bad:
        raise damaged(path, "a checksum does not match")
    if not isinstance(content, dict):
        raise TrainingError(f"{path}: holds no checkpoint; name another file")
    return content
