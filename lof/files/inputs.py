"""From what a user names (files, folders, globs) to the list of files to work on, and where outputs go."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from lof.errors import UsageError
from lof.files.storage import Location, is_file, is_remote, is_url, parse, walk

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
    """A folder, or what a glob selects below one (by its parts).

    ``files`` is what the listing of a store gave: names below the base, with their versions.
    """

    base: Location
    pattern: tuple[str, ...] | None
    files: dict[str, tuple[int, int]] = field(default_factory=dict)

    def wants(self, parts: tuple[str, ...]) -> bool:
        """Whether a file, by its parts below the base, is meant."""
        return self.pattern is None or _matches(parts, self.pattern)

    def goes_below(self, depth: int) -> bool:
        """Whether folders so deep may hold what is wanted."""
        return self.pattern is None or "**" in self.pattern or depth < len(self.pattern)


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
    several = len({_real(item.base) for item in named if isinstance(item, _Tree)}) > 1
    taken: dict[tuple[str, str], Source] = {}
    ignored: dict[tuple[str, str], str] = {}
    for text, item in zip(inputs, named, strict=True):
        if not isinstance(item, _Tree):
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


def _named(text: str) -> Location | _Tree:
    """The file or the tree that a text names."""
    if not is_url(text) and os.path.lexists(text):
        return _Tree(Path(text), None) if os.path.isdir(text) else Path(text)
    place, pattern = _split(text)
    base = parse(place)
    if not is_remote(base):
        if pattern is None or not base.is_dir():
            raise UsageError(f"{text}: does not exist; check the name")
        return _Tree(base, pattern)
    try:
        if pattern is None and is_file(base):
            return base
        files = walk(base)
    except OSError as error:
        raise UsageError(
            f"{text}: cannot be read ({error.strerror}); check the name, the network and the credentials"
        ) from error
    if not files:
        raise UsageError(f"{text}: does not exist or is empty; check the name")
    return _Tree(base, pattern, files)


def _split(text: str) -> tuple[str, tuple[str, ...] | None]:
    """A path or URL before its first part with a wildcard, and the parts from there on."""
    scheme, separator, path = text.rpartition("://")
    parts = path.split("/")
    first = next((i for i, part in enumerate(parts) if any(sign in part for sign in "*?[")), None)
    if first is None:
        return text, None
    above = "/".join(parts[:first])
    if not separator:
        above = above or ("/" if path.startswith("/") else ".")
    return f"{scheme}{separator}{above}", tuple(part for part in parts[first:] if part)


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
    tree: _Tree, exclude: Location | None
) -> Iterator[tuple[tuple[str, str], tuple[str, ...], tuple[int, int] | None, bool]]:
    """Every wanted file and every folder that cannot be read, sorted by parts.

    Identity, parts below the base, from a store the version, and whether it is such a folder.
    """
    if not is_remote(tree.base):
        hidden = None if exclude is None or is_remote(exclude) else _real(exclude)
        for parts, identity, locked in sorted(_walk(tree, hidden)):
            yield identity, parts, None, locked
        return
    left_out = () if exclude is None else _below(tree.base, exclude)
    for parts, version in sorted((tuple(name.split("/")), version) for name, version in tree.files.items()):
        hidden_part = any(part.startswith(".") for part in parts)
        if not hidden_part and tree.wants(parts) and not (left_out and parts[: len(left_out)] == left_out):
            yield _identity(tree.base.joinpath(*parts)), parts, version, False


def _below(base: Location, folder: Location) -> tuple[str, ...]:
    """The parts of a folder below a base in the same store; empty where it is elsewhere."""
    above, other = (str(place).rstrip("/") + "/" for place in (base, folder))
    return tuple(other.removeprefix(above).strip("/").split("/")) if other.startswith(above) else ()


def _walk(tree: _Tree, exclude: str | None) -> Iterator[tuple[tuple[str, ...], tuple[str, str], bool]]:
    """Parts below the base, identity, and whether it is a folder that cannot be read."""
    # Why not fsspec's find: for local folders it skips what it cannot read without a word, and knows no links.
    seen: set[str] = set()
    # Linked folders come last, so that a folder which is also there by itself keeps its own name.
    waiting: deque[tuple[str, ...]] = deque([()])
    while waiting:
        below = waiting.popleft()
        folder = tree.base.joinpath(*below)
        real = os.path.realpath(str(folder))
        if real in seen or (below and real == exclude):
            continue
        seen.add(real)
        try:
            with os.scandir(str(folder)) as listed:
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
                if tree.wants(parts):
                    yield parts, (real, entry.name), False
            elif tree.goes_below(len(parts)):
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
                "name the folder that holds both, or call once for each, with an output folder of its own"
            )
