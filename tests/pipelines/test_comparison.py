"""Codecs side by side: whose images count, what the anchor is, and the pipeline from its command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines import command
from pipelines.benchmark_report import PLAIN
from pipelines.compare_codecs import main
from pipelines.comparison import compare, plot, table

CURVE = {2: (0.30, 29.0), 4: (0.60, 31.5), 5: (0.80, 32.5), 6: (1.00, 33.2)}


def rows(codec: str, factor: float, method: str = PLAIN, images: str = "ab") -> list[dict[str, Any]]:
    return [
        {"codec": codec, "method": method, "quality": q, "image": i, "bpp": factor * bpp, "psnr": psnr}
        for i in images
        for q, (bpp, psnr) in CURVE.items()
    ]


def test_bd_rates_are_against_the_first_codec_and_rates_are_means() -> None:
    found = compare(
        [*rows("one", 1.0), *rows("two", 0.9), *rows("two", 0.8, "fast")], {"one": 2.0, "two": 0.5}
    )
    assert [(c.codec, c.method, c.seconds) for c in found] == [
        ("one", PLAIN, 2.0),
        ("two", PLAIN, 0.5),
        ("two", "fast", 0.5),
    ]
    assert [c.bd_rate for c in found] == pytest.approx([0.0, -0.1, -0.2], abs=1e-6)
    assert "| two | fast | −20.0 % | 0.500 s | 0.2400, 29.00 |" in table(found)
    assert plot(found).startswith(b"\x89PNG")


def test_images_that_a_codec_lacks_count_for_none() -> None:
    spoilt = [row | {"bpp": 100.0} for row in rows("one", 1.0, images="c")]
    (one, two) = compare([*rows("one", 1.0), *spoilt, *rows("two", 0.9)], {})
    assert [p.bpp for p in one.points] == [bpp for bpp, _ in CURVE.values()]
    assert two.bd_rate == pytest.approx(-0.1)
    assert two.seconds is None


def test_a_rate_point_that_one_codec_alone_has_is_kept() -> None:
    found = compare([r for r in rows("one", 1.0) if r["quality"] != 2] + rows("two", 1.0), {})
    assert [[p.quality for p in c.points] for c in found] == [[4, 5, 6], [2, 4, 5, 6]]
    assert found[1].bd_rate == pytest.approx(0.0, abs=0.01)
    (_, single) = compare(rows("one", 1.0) + rows("two", 0.5)[:1], {})
    assert single.bd_rate is None


def test_the_pipeline_measures_files_and_continues(
    tmp_path: Path,
    crop: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(qualities: str) -> tuple[object, str, str]:
        """Exit code and output, of this process, so that PyTorch is imported once."""
        options = ["-o", str(tmp_path / "out"), "--codecs", "tiny,other=msp-tiny", "--qualities", qualities]
        monkeypatch.setattr("sys.argv", ["compare_codecs.py", str(tmp_path / "photos"), *options])
        with pytest.raises(SystemExit) as stopped:
            command.run(main)
        return stopped.value.code or 0, *capsys.readouterr()

    (tmp_path / "photos").mkdir()
    Image.fromarray(crop[:64, :64]).save(tmp_path / "photos" / "face.png")
    code, first, errors = run("4")
    assert code == 0, errors
    assert "| tiny | plain | – |" in first
    assert "| other | plain | – |" in first
    journal = (tmp_path / "out" / "rows.jsonl").read_bytes()
    assert run("4")[1] == first
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == journal
    code, _, errors = run("four")
    assert (code, errors.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--codecs", "tiny,tiny"), "two of one label among tiny, tiny"),
        (("--codecs", "tiny", "--only-plain", "tiny, other"), "no codec has the label other"),
    ],
)
def test_labels_are_names_of_one_codec_each(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    arguments = ["compare_codecs", str(tmp_path), "-o", str(tmp_path / "out"), "--qualities", "4", *options]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        command.run(main)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
