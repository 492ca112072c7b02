"""What in an output folder is lof's own: it is replaced, continued and never an input. All else is left alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from lof.errors import UsageError
from lof.files.inputs import Source, output_name
from lof.files.storage import Location
from lof.jobs.crops import crop_name
from lof.jobs.manifest import FOLDER, NAME, key
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

    def there(name: str) -> bool:
        return os.path.lexists(str(out / name)) if listed is None else name in listed

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
