"""From what a user names (files, folders, globs) to the list of files to work on, and where outputs go."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from lof.errors import UsageError
from lof.files.remote import RemoteTree, look
from lof.files.storage import Location, is_remote, is_url

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"}
    | {".jp2", ".j2k", ".jpf", ".jpx", ".heic", ".heif", ".ppm", ".pgm", ".pbm", ".pnm"}
)


@dataclass(frozen=True)
class Source:
    """One file to work on. ``relative`` is where its output belongs below the output folder.

    ``version`` is what a store's listing said, see :func:`lof.files.storage.size_and_version`.
    """

    path: Location
    relative: PurePosixPath
    version: tuple[int, int] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Found:
    """``sources`` in the order of the inputs, sorted within each folder.

    ``ignored`` counts the other files of the folders by suffix (lower case, ``""`` for none); hidden files
    are not counted.
    """

    sources: list[Source]
    ignored: dict[str, int]


@dataclass(frozen=True)
class _Tree:
    """A folder to walk, and which of its files (by their parts below it) are meant."""

    base: Path
    wanted: Callable[[tuple[str, ...]], bool]
    depth: int | None  # folders deeper than this hold nothing that is wanted; None: no limit


def find(
    inputs: Sequence[str], suffixes: frozenset[str] = IMAGE_SUFFIXES, exclude: Location | None = None
) -> Found:
    """Find the files that ``inputs`` name.

    A file is taken whatever its suffix. Folders are walked (links followed, each folder once; hidden files
    and folders left out) for files with one of ``suffixes`` (lower case). A glob knows ``*``, ``?``, ``[…]``
    and ``**``, and selects like a folder, from its part before the first wildcard; a name that exists is
    never a glob. The structure below a folder is kept; with several folders each one's own name goes before
    it. A file that several inputs name counts once.

    Args:
        inputs: paths, globs or URLs (see :mod:`lof.files.storage`).
        suffixes: what a file in a folder must end in.
        exclude: a folder that is not descended into, e.g. the output folder below an input.

    A folder below an input that cannot be read is itself among the sources, so that reading it fails and is
    reported like a file that cannot be read, and all else is worked on.

    Raises:
        UsageError: an input does not exist, cannot be read or yields nothing; or two files would have
            outputs of the same name.
    """
    if not inputs:
        raise UsageError("no input; name files, folders or quoted globs")
    named = [_named(text) for text in inputs]
    several = len({_real(item.base) for item in named if isinstance(item, _Tree | RemoteTree)}) > 1
    taken: dict[tuple[str, str], Source] = {}
    ignored: dict[tuple[str, str], str] = {}
    for text, item in zip(inputs, named, strict=True):
        if not isinstance(item, _Tree | RemoteTree):
            taken.setdefault(_identity(item), Source(item, PurePosixPath(item.name)))
            continue
        prefix = PurePosixPath(_real(item.base)).name if several else ""
        empty = True
        for identity, parts, version, locked in _files(item, exclude):
            suffix = os.path.splitext(parts[-1])[1].lower()
            if locked or suffix in suffixes:
                empty = False
                source = Source(item.base.joinpath(*parts), PurePosixPath(prefix, *parts), version)
                taken.setdefault(identity, source)
            else:
                ignored[identity] = suffix
        if empty:
            raise UsageError(
                f"{text}: holds none of {' '.join(sorted(suffixes))}; name another folder or glob"
            )
    _refuse_collisions(taken.values())
    counts = Counter(suffix for identity, suffix in ignored.items() if identity not in taken)
    return Found(list(taken.values()), dict(sorted(counts.items())))


def output_path(source: Source, out: Location, suffix: str) -> Location:
    """Where the output of ``source`` goes: ``photo.jpg`` → ``out/photo.jpg.lof``.

    The full name stays, so ``photo.jpg`` and ``photo.png`` have outputs of their own.
    """
    return out.joinpath(*PurePosixPath(output_name(source, suffix)).parts)


def output_name(source: Source, suffix: str) -> str:
    """The output of ``source`` below the output folder, posix."""
    return source.relative.as_posix() + suffix


def _named(text: str) -> Location | _Tree | RemoteTree:
    if is_url(text):
        return look(text)
    return Path(text) if os.path.lexists(text) and not os.path.isdir(text) else _tree(text)


def _tree(text: str) -> _Tree:
    if os.path.isdir(text):
        return _Tree(Path(text), lambda parts: True, None)
    parts = Path(text).parts
    first = next((i for i, part in enumerate(parts) if any(sign in part for sign in "*?[")), None)
    base = Path(*parts[:first])
    if first is None or not base.is_dir():
        raise UsageError(f"{text}: does not exist; check the name")
    pattern = parts[first:]
    return _Tree(base, lambda below: _matches(below, pattern), None if "**" in pattern else len(pattern))


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatch(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _real(path: Location) -> str:
    return str(path) if is_remote(path) else os.path.realpath(str(path))


def _identity(path: Location) -> tuple[str, str]:
    # Links to folders are resolved, links to files are files of their own: each may want its output.
    return _real(path.parent), path.name


def _files(
    tree: _Tree | RemoteTree, exclude: Location | None
) -> Iterator[tuple[tuple[str, str], tuple[str, ...], tuple[int, int] | None, bool]]:
    """Every wanted file and every folder that cannot be read, sorted by parts.

    Identity, parts below the base, from a store the version, and whether it is such a folder.
    """
    if isinstance(tree, _Tree):
        hidden = None if exclude is None or is_remote(exclude) else _real(exclude)
        for parts, identity, locked in sorted(_walk(tree, hidden)):
            yield identity, parts, None, locked
        return
    for parts, version in tree.walk(exclude):
        if tree.pattern is None or _matches(parts, tree.pattern):
            yield _identity(tree.base.joinpath(*parts)), parts, version, False


def _walk(tree: _Tree, exclude: str | None) -> Iterator[tuple[tuple[str, ...], tuple[str, str], bool]]:
    """Parts below the base, identity, and whether it is a folder that cannot be read."""
    # Why not fsspec's find: for local folders it skips what it cannot read without a word, and knows no links.
    seen: set[str] = set()
    # Linked folders come last, so that a folder which is also there by itself keeps its own name.
    waiting: deque[tuple[str, ...]] = deque([()])
    while waiting:
        below = waiting.popleft()
        folder = tree.base.joinpath(*below)
        real = os.path.realpath(folder)
        if real in seen or (below and real == exclude):
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as listed:
                entries = [entry for entry in listed if not entry.name.startswith(".")]
        except OSError as error:
            if not below:
                raise UsageError(
                    f"{folder}: cannot be read ({error.strerror}); change its permissions or leave it out"
                ) from error
            yield below, _identity(folder), True
            continue
        for entry in entries:
            parts = (*below, entry.name)
            if not _is_folder(entry):
                if tree.wanted(parts):
                    yield parts, (real, entry.name), False
            elif tree.depth is None or len(parts) < tree.depth:
                (waiting.append if entry.is_symlink() else waiting.appendleft)(parts)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _refuse_collisions(sources: Iterable[Source]) -> None:
    places: dict[PurePosixPath, Location] = {}
    for source in sources:
        other = places.setdefault(source.relative, source.path)
        if other is not source.path:
            raise UsageError(
                f"{other} and {source.path}: both outputs would be {source.relative}; "
                "name the folder that holds both, or call once for each"
            )
