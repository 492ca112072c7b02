"""Files anywhere: local paths as ever, and URLs (``s3://…``, ``file://…``) through fsspec.

A :data:`Location` is a :class:`pathlib.Path`, or a :class:`upath.UPath` for a URL. They share what lof needs
(``name``, ``parent``, ``joinpath``); the rest is here. Whatever a store raises arrives as :class:`OSError`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lof.errors import UsageError, one_line

if TYPE_CHECKING:
    from typing_extensions import TypeIs
    from upath import UPath

Location: TypeAlias = "Path | UPath"

# Stores in which an object appears when its upload is complete, and not before.
_PUT_IS_ATOMIC = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "memory"})
# What tells versions of a file apart, best first; stores differ in what they say.
_VERSION_KEYS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "mtime",
    "LastModified",
    "last_modified",
    "created",
)


def is_url(text: str) -> bool:
    """Whether a text names a place by its protocol, ``s3://bucket/folder``."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme.replace("+", "").isalnum()


def is_remote(location: Location) -> TypeIs[UPath]:
    """Whether a location goes through fsspec."""
    return not isinstance(location, Path)


def parse(text: str) -> Location:
    """The location that a text names.

    Raises:
        UsageError: nobody knows the protocol, or the package that does is not installed.
    """
    if not is_url(text):
        return Path(text)
    import fsspec
    from fsspec.registry import known_implementations
    from upath import UPath

    protocol = text.partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
        return UPath(text)
    except ImportError as error:
        hint = known_implementations.get(protocol, {}).get("err") or str(error)
        raise UsageError(
            f"{text}: the package for {protocol}:// is not installed ({one_line(hint)})"
        ) from error
    except Exception as error:  # each protocol has its own words for a URL that it does not take
        raise UsageError(f"{text}: unknown protocol; use a path, s3://, gs://, az:// or file://") from error


def require_shared(location: Location) -> None:
    """Refuse what lives in the memory of one process.

    Raises:
        UsageError: other processes could not see the location.
    """
    if is_remote(location) and location.protocol == "memory":
        raise UsageError(f"{location}: lives in this process alone; use it with --jobs 1 and without --ray")


def open_read(location: Location) -> BufferedReader:
    """The file, open for reading; of a remote one only what is read is fetched.

    Raises:
        OSError: it cannot be read, or is a pipe or a device: those are not opened, since reading may never end.
    """
    with _as_os_errors():
        if isinstance(location, Path) and not (location.is_file() or location.is_dir()):
            location.stat()  # says why, where there is none
            raise OSError(errno.EINVAL, "not a regular file")
        return location.open("rb")  # type: ignore[return-value]


def read_bytes(location: Location) -> bytes:
    """The whole content; errors as of :func:`open_read`."""
    if is_remote(location):
        with _as_os_errors():
            return location.read_bytes()
    with open_read(location) as file:
        return file.read()


def sha256(location: Location) -> str:
    """SHA-256 of the content, as 64 hexadecimal digits."""
    with open_read(location) as file, _as_os_errors():
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_and_version(location: Location) -> tuple[int, int] | None:
    """Length in bytes and what tells versions apart: the time of the last change in nanoseconds, or for a
    remote file 62 bits of a digest over what the store says. ``None`` where there is no such file.
    """
    try:
        if is_remote(location):
            with _as_os_errors():
                return _of_info(location.fs.info(location.path))
        status = location.stat()
        return status.st_size, status.st_mtime_ns
    except (OSError, ValueError):
        return None


def is_file(location: UPath) -> bool:
    """Whether a remote file is there; what else the store says is an ``OSError``."""
    with _as_os_errors():
        try:
            return bool(location.fs.info(location.path)["type"] == "file")
        except FileNotFoundError:
            return False


def walk(folder: UPath) -> dict[str, tuple[int, int]]:
    """All files below a remote folder by their names in it, with :func:`size_and_version`: one listing."""
    with _as_os_errors():
        found = folder.fs.find(folder.path, detail=True)
        base = folder.fs._strip_protocol(folder.path).rstrip("/")
    return {
        name.removeprefix(base).lstrip("/"): _of_info(info)
        for name, info in found.items()
        if info["type"] == "file" and name != base
    }


def write(location: UPath, data: bytes) -> None:
    """Write a remote file whole or not at all: one upload where the store does so, else moved into place."""
    fs, path = location.fs, location.path
    with _as_os_errors():
        if location.protocol in _PUT_IS_ATOMIC:
            fs.pipe_file(path, data)
            return
        fs.makedirs(location.parent.path, exist_ok=True)
        temporary = location.with_name(temporary_name(location.name)).path
        try:
            fs.pipe_file(temporary, data)
            fs.mv(temporary, path)
        except BaseException:
            with suppress(Exception):
                fs.rm_file(temporary)
            raise


def remove(location: Location) -> None:
    """Remove a file."""
    with _as_os_errors():
        location.unlink()


def names_in(folder: Location) -> list[str]:
    """Names of what is in a folder, folders too; nothing where there is none."""
    try:
        if isinstance(folder, Path):
            return os.listdir(folder)
        with _as_os_errors():
            return [name.rstrip("/").rpartition("/")[2] for name in folder.fs.ls(folder.path, detail=False)]
    except OSError:
        return []


def temporary_name(name: str) -> str:
    """The name under which a file is written before it is moved to its own; differs every time."""
    return f".{beginning(name)}.{secrets.token_hex(4)}.tmp"


def beginning(name: str) -> str:
    """What temporary names keep of a name: names are limited in bytes, mostly to 255."""
    return os.fsencode(name)[:100].decode(errors="ignore")


def _of_info(info: dict[str, Any]) -> tuple[int, int]:
    version = next((str(info[key]) for key in _VERSION_KEYS if info.get(key)), "")
    return int(info["size"] or 0), int(hashlib.sha256(version.encode()).hexdigest()[:15], 16)


@contextmanager
def _as_os_errors() -> Iterator[None]:
    # The drivers of the stores raise errors of many libraries.
    try:
        yield
    except OSError as error:
        if error.strerror is None:
            error.strerror = one_line(error)
        raise
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        raise OSError(errno.EIO, one_line(error)) from error
