"""Archives that are searched further: better streams replace worse ones, nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import MORE, QUICK, findings, rows, save, tree

from lof.archive import improve, open_sources
from lof.jobs import JobSettings
from lof.pools import ThisProcess
from lof.profiles import parse_profile


def test_improve_replaces_what_gets_better_keeps_the_rest_and_continues(made: Path) -> None:
    before = rows(made / "dst")["photos/a.png"]
    save(made / "photos/sub/b.jpg", seed=77)
    sources = open_sources([str(made / "photos")], made / "dst")
    first = improve(made / "dst", sources, MORE, ThisProcess())
    assert (first.replaced, first.missing) == (1, 0)
    assert [path for path, _ in first.errors] == ["photos/sub/b.jpg"]
    assert "original has changed" in first.errors[0][1]
    after = rows(made / "dst")["photos/a.png"]
    assert before.cost is not None
    assert after.cost is not None
    assert after.cost < before.cost
    assert first.gain == pytest.approx(after.cost / before.cost - 1)
    assert after.profile == "more"
    assert after.seconds > before.seconds
    second = improve(made / "dst", sources, MORE, ThisProcess())
    assert (second.replaced, second.kept, second.tried) == (0, 0, 1)
    plain = improve(made / "dst", sources, QUICK, ThisProcess())
    assert plain.replaced + plain.kept == 1
    assert findings(made / "dst") == []


def test_improve_keeps_a_stream_that_no_search_makes_better(made: Path) -> None:
    sources = open_sources([str(made / "photos")], made / "dst")
    nothing = JobSettings(
        "tiny",
        parse_profile(
            {"name": "none", "stage": [{"kind": "relax", "evaluations": 1, "learning_rate": 1e-9}]}
        ),
    )
    before = tree(made / "dst/streams")
    result = improve(made / "dst", sources, nothing, ThisProcess())
    assert (result.replaced, result.kept) == (0, 2)
    assert tree(made / "dst/streams") == before


def test_improve_leaves_streams_whose_original_is_gone(made: Path) -> None:
    (made / "photos/a.png").unlink()
    result = improve(made / "dst", open_sources([str(made / "photos")], made / "dst"), MORE, ThisProcess())
    assert (result.replaced, result.missing) == (1, 1)
