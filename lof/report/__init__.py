"""Reports of a job: tables for people, spreadsheets and programs, and one page to look at.

Reads records only (see :mod:`lof.report.records`); knows no codec and no torch. :mod:`lof.report.comparison` looks at
pictures instead, and measures them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lof.files.atomic import write_atomically
from lof.files.storage import Location
from lof.report.records import in_order, to_json
from lof.results import Crops

__all__ = ["Crops", "write_reports"]


def write_reports(
    records: Sequence[dict[str, Any]],
    folder: Location,
    *,
    title: str,
    crops: Callable[[dict[str, Any]], Crops | None],
) -> list[Location]:
    """Write ``report.jsonl``, ``report.csv`` and ``report.html`` into ``folder``, each whole or not at all.

    Args:
        records: see :mod:`lof.report.records`; any order, the reports sort by source.
        title: heading of the page.
        crops: the same cut of a picture before and after, asked for once per picture shown;
            ``None`` where there is none (its source has moved).

    Raises:
        OutputError: the folder cannot be written.
    """
    from lof.report.flat import to_csv
    from lof.report.page import render

    ordered = in_order(records)
    contents = {
        "report.jsonl": "".join(f"{to_json(record)}\n" for record in ordered),
        "report.csv": to_csv(ordered),
        "report.html": render(ordered, title=title, crops=crops),
    }
    for name, text in contents.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in contents]
