"""What in an output folder is lof's own: it is replaced, continued and never an input. All else is left alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

from lof.containers import SUFFIXES
from lof.errors import UsageError
from lof.files.inputs import Source, output_name
from lof.files.storage import Location, is_remote, sha256
from lof.jobs.crops import crop_name, crop_path, stream_of
from lof.jobs.identity import has_its_content, is_at_its_place
from lof.jobs.manifest import FOLDER, NAME, Manifest, Row, key
from lof.jobs.remote_manifest import open_snapshot
from lof.jobs.settings import JobSettings

REPORTS = ("report.jsonl", "report.csv", "report.html")
"""Files of :func:`lof.report.write_reports` in the output folder."""


def refuse_others(
    sources: Sequence[Source],
    out: Location,
    settings: JobSettings,
    listed: Mapping[str, tuple[int, int]] | None,
) -> None:
    """Refuse to replace files that lof did not write.

    A stream is lof's where the manifest says so, or where the crop of its picture is kept: that is written before the
    stream, so it also tells of a job that was killed before the manifest knew. Reports are lof's where there is a
    manifest.

    Args:
        listed: what a store holds below ``out``; ``None`` for a folder here.

    Raises:
        UsageError: there are such files; it names the first.
    """

    there = partial(_is_there, out, listed)
    outputs = {source: output_name(source, settings.suffix) for source in sources}
    others = [s for s, name in outputs.items() if there(name) and not there(crop_name(s.relative))]
    if others:
        with open_snapshot(out) as manifest:
            rows = {s: manifest.get(s.relative.as_posix()) for s in others} if manifest else {}
        others = [s for s in others if (row := rows.get(s)) is None or row.output != key(outputs[s])]
    names = [outputs[source] for source in others]
    if not there(f"{FOLDER}/{NAME}"):
        names += filter(there, REPORTS)
    if names:
        more = f" ({len(names) - 1} more are too)" if len(names) > 1 else ""
        raise UsageError(
            f"{out / names[0]}: is another file already{more}; choose another folder with -o, or add --force"
        )


def reason_to_keep(
    source: Source,
    row: Row,
    out: Location,
    settings: JobSettings,
    listed: Mapping[str, tuple[int, int]] | None,
    *,
    whole: bool,
) -> str | None:
    """Why the stream that a row tells of is not to be replaced by that of a source; ``None`` where it may be.

    Args:
        listed: as for :func:`refuse_others`.
        whole: the stream is there as it was written.
    """
    names = (output_name(source, suffix) for suffix in SUFFIXES)
    name = next((name for name in names if key(name) == row.output), None)
    if row.state != "done" or name is None or not _is_there(out, listed, name):
        return None
    try:
        if not is_at_its_place(source, row) and not has_its_content(source, row):
            return (
                f"{source.path}: {out / name} was made from {row.place}; "
                "choose another folder with -o, or add --force to replace it"
            )
    except OSError as error:
        return f"{source.path}: cannot be read ({error.strerror}); check its name and permissions"
    # Version 1 of the manifest, whose rows lack the place, kept nothing that tells a stream written just before a kill.
    if whole or not row.place or name != output_name(source, settings.suffix) or _is_newer(out, source, name):
        return None
    return (
        f"{out / name}: is not as lof wrote it; "
        "delete it to have it made again, choose another folder with -o, or add --force"
    )


def without_outputs(sources: Sequence[Source], out: Location) -> list[Source]:
    """The sources but for those that lof wrote into ``out`` itself, which some formats make look like inputs.

    Besides what the manifest says, it is a stream that is no older than the crop of its picture, where the manifest
    does not know that picture: its job was killed in between.

    Raises:
        OutputError: the manifest cannot be read, is damaged or of a newer version.
        UsageError: nothing is left.
    """
    names = _names_below(sources, out)
    if not names:
        return list(sources)
    with open_snapshot(out) as manifest:
        own = manifest.outputs() if manifest else set()

        def is_own(name: str) -> bool:
            return key(name) in own or any(
                _was_cut_short(out, name, name.removesuffix(suffix), manifest)
                for suffix in SUFFIXES
                if name.endswith(suffix)
            )

        left = [source for source in sources if source not in names or not is_own(names[source])]
    if not left:
        raise UsageError(f"{out}: the inputs are streams that lof wrote there; name other images")
    return left


def _is_there(out: Location, listed: Mapping[str, tuple[int, int]] | None, name: str) -> bool:
    return os.path.lexists(str(out / name)) if listed is None else name in listed


def _is_newer(out: Location, source: Source, name: str) -> bool:
    """Whether a stream is one that lof wrote after the row: its job was killed in between."""
    try:
        return sha256(out / name) == stream_of(crop_path(out, source.relative))
    except OSError:
        return False


def _names_below(sources: Sequence[Source], out: Location) -> dict[Source, str]:
    """Those sources in ``out`` that end like streams, with their names there."""
    real = lru_cache(lambda folder: str(folder) if is_remote(folder) else os.path.realpath(folder))
    above = real(out).rstrip("/") + "/"
    names = {}
    for source in sources:
        if source.path.name.endswith(tuple(SUFFIXES)) and is_remote(source.path) == is_remote(out):
            place = f"{real(source.path.parent).rstrip('/')}/{source.path.name}"
            if place.startswith(above):
                names[source] = place.removeprefix(above)
    return names


def _was_cut_short(out: Location, name: str, picture: str, manifest: Manifest | None) -> bool:
    row = manifest.get(picture) if manifest else None
    if is_remote(out) or (row is not None and row.state == "done"):
        return False
    try:
        return (out / name).stat().st_mtime_ns >= crop_path(out, picture).stat().st_mtime_ns
    except OSError:
        return False
