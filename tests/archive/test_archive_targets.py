"""Archives whose streams have a size for all together, a region, another metric, or little memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import archive, findings, rows, save
from PIL import Image

from lof.archive import Event, Planned, Policy, Settled, Surveyed, improve, open_sources, plan
from lof.errors import UsageError
from lof.jobs import JobSettings
from lof.metrics import mse
from lof.pictures.reading import read_picture
from lof.pictures.region import Regions
from lof.pools import Advanced, ThisProcess
from lof.profiles import parse_profile
from lof.results import Target
from lof.search.windows import BASE, HELD

SHORT = parse_profile({"name": "short", "stage": [{"kind": "mean-field", "evaluations": 2}]})
JPEG = JobSettings("jpeg", SHORT)
LAPPED = JobSettings("lapped-tiny", SHORT, device="cpu")


def streams(dst: Path) -> int:
    return sum(row.object_size for row in rows(dst).values() if row.state == "streamed")


def test_a_size_for_all_streams_is_kept_to_also_when_interrupted_and_continued(tmp_path: Path) -> None:
    photos, dst = tmp_path / "photos", tmp_path / "dst"
    for number in range(3):
        save(photos / f"{number}.png", number, size=(96 + 32 * number, 96))
    (photos / "notes.txt").write_text("words")
    settings = replace(JPEG, target=Target(size=4000), total=True)
    seen: list[Event] = []

    def stop(event: Event) -> None:
        seen.append(event)
        if isinstance(event, Settled) and event.row.state == "streamed":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive(photos, dst=dst, settings=settings, on_event=stop)
    assert [event.done for event in seen if isinstance(event, Surveyed)] == [1, 2, 3]
    assert sum(row.state == "streamed" for row in rows(dst).values()) == 1
    summary = archive(photos, dst=dst, settings=settings)
    assert (summary.streamed, summary.unchanged, summary.errors) == (2, 1, [])
    assert 0.9 * 4000 < streams(dst) <= 4000
    assert all(
        row.notes.startswith("made for a target of ") for row in rows(dst).values() if row.state == "streamed"
    )
    assert archive(photos, dst=dst, settings=settings).streamed == 0
    save(photos / "3.png", 3)
    more = archive(photos, dst=dst, settings=settings)  # what is left is a small share, or none
    assert (more.streamed, len(more.errors)) == (0, 1)
    assert streams(dst) <= 4000
    assert findings(dst) == [("failed", "photos/3.png")]
    with pytest.raises(UsageError, match=r"--total: 2 of 2 bytes are left for 4 images; ask for more"):
        archive(photos, dst=tmp_path / "none", settings=replace(settings, target=Target(size=2)))


def test_redo_shares_a_size_for_all_out_anew_when_an_image_is_new(tmp_path: Path) -> None:
    photos, dst = tmp_path / "photos", tmp_path / "dst"
    settings, redo = replace(JPEG, target=Target(size=4000), total=True), Policy(redo=True)
    for number in range(2):
        save(photos / f"{number}.png", number)
    archive(photos, dst=dst, settings=settings)
    assert archive(photos, dst=dst, settings=settings, policy=redo).streamed == 0
    save(photos / "2.png", 2)
    planned = plan(open_sources([str(photos)], dst), dst, settings, policy=redo)
    assert [item.do for item in planned if isinstance(item, Planned)] == ["search"] * 3
    summary = archive(photos, dst=dst, settings=settings, policy=redo)
    assert (summary.streamed, summary.errors) == (3, [])
    assert 0.9 * 4000 < streams(dst) <= 4000


def test_a_region_decides_where_the_bytes_go_and_improve_leaves_it_alone(tmp_path: Path) -> None:
    photos, maps = tmp_path / "photos", tmp_path / "maps/sub"
    random = np.random.default_rng(5)
    noise = random.integers(0, 256, (96, 128, 3)).astype(np.uint8)
    (photos / "sub").mkdir(parents=True)
    for name in ("sub/a.png", "b.png"):
        Image.fromarray(noise).save(photos / name)
    level = np.ones((96, 128), np.uint8)
    level[:, :64] = 50
    maps.mkdir(parents=True)
    Image.fromarray(level).save(maps / "a.png")
    (tmp_path / "left").mkdir()
    errors = []
    for regions in (Regions(maps=tmp_path / "maps"), Regions(((0, 0, 64, 96, 50.0),))):
        dst = tmp_path / f"dst{len(errors)}"
        archive(photos, dst=dst, settings=replace(JPEG, regions=regions))
        found = rows(dst)
        assert found["photos/sub/a.png"].notes == "made for a region"
        other = found["photos/b.png"].notes
        assert other == (
            "made for a region"
            if regions.maps is None
            else f"no map of it in {tmp_path}/maps: all pixels count the same"
        )
        pixels = read_picture(dst / found["photos/sub/a.png"].object).pixels
        errors.append([mse(noise[:, part], pixels[:, part]) for part in (slice(0, 64), slice(64, 128))])
        assert errors[-1][0] < 0.7 * errors[-1][1]
    assert errors[0] == errors[1]
    tried = improve(dst, open_sources([str(photos)], dst), JPEG, ThisProcess())
    assert (tried.tried, tried.replaced, tried.kept) == (2, 0, 0)


def test_a_map_that_does_not_fit_is_a_failure_until_it_does(tmp_path: Path) -> None:
    photos, maps, dst = tmp_path / "photos", tmp_path / "maps", tmp_path / "dst"
    save(photos / "a.png")
    maps.mkdir()
    Image.new("L", (8, 8), 255).save(maps / "a.png")
    settings = replace(JPEG, regions=Regions(maps=maps))
    ((path, error),) = archive(photos, dst=dst, settings=settings).errors
    assert path == "photos/a.png"
    assert "is 80×64, but its map" in error
    assert "8×8; give a map of its size" in error
    Image.new("L", (80, 64), 255).save(maps / "a.png")
    mended = archive(photos, dst=dst, settings=replace(JPEG, regions=Regions(maps=maps)))
    assert (mended.streamed, mended.errors) == (1, [])


def test_streams_for_another_metric_say_so_and_are_improved_by_it(tmp_path: Path) -> None:
    photos, dst = tmp_path / "photos", tmp_path / "dst"
    save(photos / "a.png", size=(176, 168))
    archive(photos, dst=dst, settings=replace(LAPPED, metric="ms-ssim"))
    before = rows(dst)["photos/a.png"]
    assert (before.metric, before.notes) == ("mse", "made for the metric ms-ssim")
    assert _ms_ssim_cost(before) == pytest.approx(before.cost)
    more = replace(
        LAPPED, profile=parse_profile({"name": "more", "stage": [{"kind": "mean-field", "evaluations": 8}]})
    )
    improve(dst, open_sources([str(photos)], dst), more, ThisProcess())
    after = rows(dst)["photos/a.png"]
    assert after.tried
    assert _ms_ssim_cost(after) == pytest.approx(after.cost)
    assert after.cost is not None
    assert before.cost is not None
    assert after.cost <= before.cost
    assert findings(dst) == []


def _ms_ssim_cost(row: Any) -> float:
    return float(row.bpp + row.lmbda * (1 - row.ms_ssim))


def test_large_images_are_searched_in_windows_and_improved_so(tmp_path: Path) -> None:
    photos, dst = tmp_path / "photos", tmp_path / "dst"
    save(photos / "a.png", size=(1024, 256))
    pixels = 1024 * 256
    settings = replace(LAPPED, memory=BASE + (HELD + 48) * pixels)
    seen: list[int] = []

    def note(event: Event) -> None:
        if isinstance(event, Advanced):
            seen.append(event.message.windows)

    assert archive(photos, dst=dst, settings=settings, on_event=note).streamed == 1
    assert min(seen) > 1
    seen.clear()
    more = replace(settings, seed=1)
    improved = improve(dst, open_sources([str(photos)], dst), more, ThisProcess(), on_event=note)
    assert improved.replaced + improved.kept == 1
    assert min(seen) > 1
    assert findings(dst) == []
    few = archive(photos, dst=tmp_path / "other", settings=replace(settings, memory=10**6))
    assert "lapped-tiny needs" in few.errors[0][1]
