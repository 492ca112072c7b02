"""The qualities at which a target may be met: how often codecs are loaded to find them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lof import Target
from lof.archive import create, open_sources
from lof.codecs import Codec, CodecSpec, Continuous, Points, RatePoint, load_codec
from lof.errors import WeightsError
from lof.files.inputs import find
from lof.jobs import JobSettings, run_job
from lof.pools import ThisProcess
from lof.profiles import parse_profile
from lof.targets import Ladder

SHORT = parse_profile({"name": "short", "stage": [{"kind": "mean-field", "evaluations": 1}]})
TO_SIZE = JobSettings("lapped-tiny", SHORT, device="cpu", target=Target(size=2000))


def test_where_one_network_serves_all_qualities_none_is_loaded_to_see_whether_it_is_at_hand() -> None:
    def load(quality: float) -> Codec:
        raise AssertionError("nothing is loaded here")

    spec = CodecSpec("one", Continuous(1, 8, (0.0018, 0.18)), 4, "from a test", source="elsewhere")
    ladder = Ladder.of(spec, "mse", load)
    assert (len(ladder.lmbdas), ladder.start) == (449, 4)


def test_of_weights_from_elsewhere_those_at_hand_are_used() -> None:
    def load(quality: float) -> Codec:
        if quality == 2:
            raise WeightsError("not at hand")
        return load_codec("tiny", device="cpu")

    points = Points({("mse", float(quality)): RatePoint(0.01 * quality) for quality in (1, 2, 3)})
    ladder = Ladder.of(CodecSpec("some", points, 2, "from a test", source="elsewhere"), "mse", load)
    assert list(ladder.lmbdas) == [1, 3]


def test_a_worker_looks_for_the_qualities_once_for_all_of_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        small = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC)
        (tmp_path / "in").mkdir(exist_ok=True)
        image.save(tmp_path / f"in/{number}.png")
    made: list[Ladder] = []
    ladder = JobSettings.ladder

    def counted(settings: JobSettings) -> Ladder:
        made.append(ladder(settings))
        return made[-1]

    monkeypatch.setattr(JobSettings, "ladder", counted)
    assert run_job(find([str(tmp_path / "in")]).sources, tmp_path / "out", TO_SIZE).done == 3
    assert len(made) == 1
    sources = open_sources([str(tmp_path / "in")], tmp_path / "dst")
    assert create(sources, tmp_path / "dst", TO_SIZE, ThisProcess()).streamed == 3
    assert len(made) == 2
