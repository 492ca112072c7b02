"""Every error that lof raises on purpose.

One root, :class:`LofError`. Its message is one line: what is wrong (naming the file), then what to do.
The exit code of the command line is an attribute of the class, so no caller decides by reading a message.
"""

from __future__ import annotations

import importlib.util
from typing import ClassVar


class LofError(Exception):
    """Root of all errors raised on purpose. ``exit_code`` is what the command line exits with."""

    exit_code: ClassVar[int] = 1


class UsageError(LofError):
    """The call itself is wrong: an unknown option value, two options that exclude each other."""

    exit_code: ClassVar[int] = 2


class ImageError(LofError):
    """An input image cannot be read, or holds something that lof would have to drop silently."""


class StreamError(LofError):
    """A compressed file is not one, is damaged, or belongs to other weights."""


class UnknownCodecError(UsageError):
    """No registered codec has that name or quality."""


class WeightsError(LofError):
    """Weights are missing, damaged or of another architecture."""


class ProfileError(UsageError):
    """A profile does not exist or does not fit the schema."""


class SearchError(LofError):
    """The search cannot run as asked (an objective that this image cannot have)."""


class TargetError(LofError):
    """No file of the codec has the size or the quality that is asked for."""


class LowMemoryError(LofError):
    """Too little memory is free here. It says nothing about the file, which may be whole."""

    exit_code: ClassVar[int] = 3


class OutputError(LofError):
    """An output cannot be written where it was asked for."""


class ArchiveError(LofError):
    """An archive or a source of one cannot be read, or does not hold what its manifest says."""


class WorkerError(LofError):
    """A worker process died while it had an image in hand."""


class TrainingError(LofError):
    """A training run cannot start, or has diverged."""


class StudyError(LofError):
    """A study cannot be opened, joined or continued as asked."""


class MissingExtraError(LofError):
    """What was asked for needs a package that is installed on demand, by an extra of lof."""


def one_line(error: object) -> str:
    """The message of somebody else's error in one line of at most 300 characters; where it has none, its type."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def require(package: str, extra: str, what: str) -> None:
    """Check that the package of an extra is installed, before any work.

    Args:
        package: as it is imported.
        extra: that installs it, such as ``study``.
        what: was asked for, as the message begins: ``lof study``.

    Raises:
        MissingExtraError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(
            f"{what} needs {package}, which is not installed; install it with: pip install 'lof[{extra}]'"
        )
