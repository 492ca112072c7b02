"""The matrix of codecs: its variants are valid codecs, its table counts what it says, and it can be continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from lof.codecs import hard_rounding
from lof.errors import UsageError
from lof.testing import check_codec
from pipelines import command
from pipelines.matrix import main
from pipelines.matrix_report import cell, plot, table
from pipelines.variants import variant


@pytest.mark.parametrize("name", ["tiny:4:z*8", "tiny:4:z/8", "tiny:4:gains2"])
def test_a_variant_codes_the_same_picture_at_about_the_same_rate(
    name: str, photograph: NDArray[np.uint8]
) -> None:
    x = torch.from_numpy(photograph[64:128, 160:288].copy()).permute(2, 0, 1)[None].float() / 255
    own, other = (variant(one, device="cpu", precision="fp32") for one in ("tiny:4", name))
    figures = []
    for codec in (own, other):
        coded = codec.code(codec.analyse(x), hard_rounding)
        values = {key: c.value for key, c in coded.items()}
        error = (codec.synthesise(values) - x).square().mean()
        figures.append((float(coded["y"].bits.sum()), float(error)))
    assert figures[0] != figures[1]
    assert figures[1] == pytest.approx(figures[0], rel=0.25)


def test_variants_change_what_they_name_alone() -> None:
    own, longer, other = (variant(f"tiny:4{v}", device="cpu") for v in ("", ":lambda*4", ":ms-ssim"))
    assert longer.lmbda == 4 * own.lmbda
    assert (other.metric, other.lmbda) == ("ms-ssim", own.lambda_for("ms-ssim"))
    assert own.metric == "mse"
    check_codec(variant("tiny:4:z/8:gains4", device="cpu"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tiny", "NAME:QUALITY"),
        ("tiny:4:y*3", "variant y\\*3"),
        ("msp-tiny:4:z*8", "no mean-scale hyperprior"),
    ],
)
def test_a_name_that_is_no_cell_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        variant(text, device="cpu")


def row(method: str, cost: float) -> dict[str, Any]:
    return {
        "method": method,
        "baseline": {"cost": 1.0},
        "optimised": {"cost": cost},
        "evaluations": 10,
        "seconds": 1.0,
    }


def test_shares_are_of_the_references_mean_gain() -> None:
    rows = [row("SGA", 0.9), row("SGA", 0.7), row("fast", 0.9), row("fast", 1.0)]
    one = cell("tiny:4", rows, ["SGA", "fast"])
    assert one.share("fast", "SGA") == pytest.approx(0.25)
    text = table([one], "SGA")
    assert "| `tiny:4` | −20.0 % | −5.0 % | 25 % |" in text
    assert "0 of 2 files worse than plain, 1 as it" in text
    assert plot([one], "SGA").startswith(b"\x89PNG")


def test_the_pipeline_goes_on_where_it_stopped(
    tmp_path: Path, photograph: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(photograph[64:128, 160:224]).save(tmp_path / "in" / "a.png")
    (tmp_path / "p.toml").write_text('name = "p"\n[[stage]]\nkind = "mean-field"\nevaluations = 2\n')
    arguments = ["matrix", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--crop", "64"]
    arguments += ["--profiles", str(tmp_path / "p.toml"), "--sga-steps", "3"]
    for cells in ("tiny:4", "tiny:4,tiny:4:z/8"):
        monkeypatch.setattr("sys.argv", [*arguments, "--cells", cells])
        with pytest.raises(SystemExit) as stopped:
            command.run(main)
        assert not stopped.value.code
    journal = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(journal) == 6  # plain, SGA and the profile, for each of two cells
    text = (tmp_path / "out" / "matrix.md").read_text()
    assert "`tiny:4`" in text
    assert "`tiny:4:z/8`" in text
    assert (tmp_path / "out" / "matrix.png").stat().st_size > 1000


def test_a_reference_that_gains_nothing_has_no_shares() -> None:
    one = cell("tiny:4", [row("plain", 1.0), row("SGA-1", 1.0), row("fast", 0.9)], ["SGA-1", "fast"])
    assert "share of SGA-1's gain –, least –" in table([one], "SGA-1")
