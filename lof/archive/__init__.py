"""Archives: trees of images as streams and a manifest, made to be interrupted, checked and improved.

:func:`create` reads sources and writes the archive, :func:`verify` checks it, :func:`restore` gives the tree
back, :func:`improve` searches further from the streams that are there, :func:`rebuild` makes a lost manifest anew. How
the archive survives a kill at any moment stands in :mod:`lof.archive.store`, how it looks on disk in ``FORMAT.md``.
"""

from __future__ import annotations

from lof.archive.create import Planned, Summary, create, plan
from lof.archive.decide import Policy
from lof.archive.entries import Limits, Source
from lof.archive.events import Checked, Event, OnEvent, Settled, Surveyed, Unchanged
from lof.archive.improve import Improved, improve
from lof.archive.manifest import Manifest, Total
from lof.archive.rebuild import Rebuilt, rebuild
from lof.archive.restore import Restored, restore
from lof.archive.schema import Row
from lof.archive.sources import open_sources, size_of
from lof.archive.verify import Finding, Verdict, verify
from lof.archive.work import Floors

__all__ = [
    "Checked",
    "Event",
    "Finding",
    "Floors",
    "Improved",
    "Limits",
    "Manifest",
    "OnEvent",
    "Planned",
    "Policy",
    "Rebuilt",
    "Restored",
    "Row",
    "Settled",
    "Source",
    "Summary",
    "Surveyed",
    "Total",
    "Unchanged",
    "Verdict",
    "create",
    "improve",
    "open_sources",
    "plan",
    "rebuild",
    "restore",
    "size_of",
    "verify",
]
