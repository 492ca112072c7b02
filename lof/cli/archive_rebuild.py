"""``lof archive rebuild``: a new manifest, where the old one is lost or damaged."""

from __future__ import annotations

from lof.cli import _options as options
from lof.cli.archive import Dst, Json, archive, end

_REBUILD = (
    "Make a new manifest from what lies in the archive, where the old one is lost or damaged.\n\n"
    "Every stream is decoded and every stored file is read. Empty folders, links, times, permission bits and the "
    "figures of quality are lost with the old manifest. A damaged one is kept below DST/.lof. What cannot be read "
    "is named and gets no row; the same command tries it again.\n\n"
    "If it was stopped or killed, the same command continues. A later `create` searches again for the images that "
    "are still in a source."
)


@archive.command("rebuild", help=_REBUILD)
def rebuild(
    dst: Dst,
    *,
    weights: options.Weights = None,
    jobs: options.Readers = None,
    ray: options.Ray = None,
    num_gpus: options.NumGpus = None,
    json: Json = False,
) -> None:
    """Rebuild the manifest; the help stands in ``_REBUILD``."""
    from lof.archive import rebuild as rebuild_manifest
    from lof.cli import archive_display
    from lof.pools import make_pool

    pool = make_pool(jobs, ray=ray, num_gpus=num_gpus)
    with archive_display.ArchiveLines(None, json=json, by_files=True) as display:
        rebuilt = rebuild_manifest(dst, pool, weights=weights, on_event=display)
    end(rebuilt, archive_display.show_rebuilt, json=json)
